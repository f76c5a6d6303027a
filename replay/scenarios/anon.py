# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios on anonymous memory that is unmapped: reclaim, zap, MADV_DONTNEED, swap-in."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from replay import state, stream
from replay.scenarios.builder import Builder, Int64, interleave, rows
from replay.scenarios.params import Params
from replay.scenarios.reclaim import age, madvise_free, madvise_pageout
from replay.scenarios.region import (
    BASE,
    RMAP_EXCLUSIVE,
    Region,
    anon,
    fault_in,
    finish,
    unmap,
)

ZAP_DONTNEED: Final = 2  # replay.mm.memory.ZAP_RECLAIM_PT
MM_CP_UFFD_WP: Final = 4
BLOCK_PAGES: Final = 16


def written(b: Builder, p: Params) -> Region:
    """The region of the parameters in the state they ask for: written once, then changed."""
    r = _filled(b, p)
    if not p.dirty:
        madvise_pageout(b, r)
        r = swap_in(b, r)
    if p.partial:
        start = _holes(r, p.partial)
        dontneed(b, r, start, start + p.partial * r.geometry.page_size)
    if p.shared:
        b.op("copy_page_range", va=r.start, end=r.end, arg=p.iterations + 1, **r.vma())
        b.op("dup_mmap_end", ctx=r.ctx, mm=r.mm)
    if not p.young:
        age(b, r)
    return r


def swap_in(b: Builder, r: Region) -> Region:
    """One read fault per folio whose entries are swap entries.

    :return: the folios that came back
    """
    g = r.geometry
    if int(r.order.max()) >= g.pmd_shift - g.page_shift:
        # alloc_swap_folio() tries orders below the PMD's.
        r = anon(r.start, r.end - r.start, 0, g, frame=int((r.pfn + r.nr).max()))
    b.op(
        "do_swap_page", va=r.va, end=r.folio_end, pfn=r.pfn, nr=r.nr, order=r.order,
        flags=RMAP_EXCLUSIVE, arg=1, **r.vma(),
    )  # fmt: skip
    return r


def _holes(r: Region, count: int) -> Int64:
    """Where the given number of pages of every 16 begin, from the fourth on where they fit."""
    page = r.geometry.page_size
    blocks = np.arange(r.start, r.end, BLOCK_PAGES * page)
    return blocks + min(3, BLOCK_PAGES - count) * page


def _filled(b: Builder, p: Params) -> Region:
    """The region of the parameters, every page written once."""
    r = anon(BASE + p.alignment, p.size, p.order, p.geometry(), frame=1 << max(9, p.order))
    fault_in(b, r)
    if p.pte_mapped and p.folio_size >= 1 << p.geometry().pmd_shift:
        b.op("split_huge_pmd", va=r.va, **r.vma())
    return r


def pageout(b: Builder, p: Params) -> None:
    """MADV_PAGEOUT of written memory, then munmap() of its swap entries."""
    r = written(b, p)
    b.phase("pageout", "madvise", "behavior=MADV_PAGEOUT")
    madvise_pageout(b, r)
    b.phase("munmap_swapped", "munmap", timed=False)
    unmap(b, r)


def lazyfree(b: Builder, p: Params) -> None:
    """MADV_FREE, then MADV_PAGEOUT drops the clean folios."""
    r = written(b, p)
    b.phase("madv_free", "madvise", "behavior=MADV_FREE", timed=False)
    madvise_free(b, r)
    b.phase("pageout_lazyfree", "madvise", "behavior=MADV_PAGEOUT")
    madvise_pageout(b, r, dirty=False, info=state.INFO_ANON)


def zap(b: Builder, p: Params) -> None:
    """MADV_DONTNEED of the whole region; written again; munmap()."""
    r = written(b, p)
    b.phase("dontneed", "madvise", "behavior=MADV_DONTNEED")
    dontneed(b, r, np.array([r.start]), np.array([r.end]))
    b.setup()
    fault_in(b, r)
    b.phase("munmap", "munmap")
    unmap(b, r)


def exit_(b: Builder, p: Params) -> None:
    """The process exits: one gather for the whole address space."""
    r = written(b, p)
    b.phase("exit")
    b.op("exit_mmap", ctx=r.ctx, mm=r.mm)
    b.op("zap_page_range", va=r.start, end=r.end, flags=1, **r.vma())
    b.op("tlb_finish_mmu", ctx=r.ctx, mm=r.mm, va=0, end=(1 << 56) - 1, flags=0xF5)


def munmap(b: Builder, p: Params) -> None:
    """munmap() of written memory."""
    r = written(b, p)
    b.phase("munmap", "munmap")
    unmap(b, r)


def dontneed(b: Builder, r: Region, start: Int64, end: Int64) -> None:
    """One MADV_DONTNEED for each [start, end)."""
    n = len(start)
    columns = r.vma()
    zaps = rows("zap_page_range", va=start, end=end, flags=ZAP_DONTNEED, **columns)
    done = rows("tlb_finish_mmu", ctx=np.full(n, r.ctx), mm=r.mm)
    b.add(interleave(zaps, done))


def dontneed_page(b: Builder, p: Params) -> None:
    """One MADV_DONTNEED per page over the region."""
    r = written(b, p)
    page = r.geometry.page_size
    start = np.arange(r.start, r.end, page)
    b.phase("dontneed_page", "madvise", "behavior=MADV_DONTNEED")
    dontneed(b, r, start, start + page)


def partial(b: Builder, p: Params) -> None:
    """MADV_DONTNEED of some pages of every 16, then munmap() of what is left."""
    r = written(b, replace(p, partial=0))
    count = p.partial or 5
    first = _holes(r, count)
    b.phase("partial_dontneed", "madvise", "behavior=MADV_DONTNEED")
    dontneed(b, r, first, first + count * r.geometry.page_size)
    b.phase("munmap_partial", "munmap")
    unmap(b, r)


def uffdwp(b: Builder, p: Params) -> None:
    """UFFDIO_WRITEPROTECT, MADV_PAGEOUT, munmap()."""
    r = written(b, p)
    r = replace(r, vmf=r.vmf | stream.VMF_UFFD_WP)
    b.phase("uffd_wp", "ioctl", "cmd=UFFDIO_WRITEPROTECT", timed=False)
    b.op("change_protection", va=r.start, end=r.end, flags=MM_CP_UFFD_WP, **r.vma())
    finish(b, r)
    b.phase("pageout_uffdwp", "madvise", "behavior=MADV_PAGEOUT")
    madvise_pageout(b, r)
    b.phase("munmap_uffdwp", "munmap", timed=False)
    unmap(b, r)


def swapin(b: Builder, p: Params) -> None:
    """MADV_PAGEOUT, one read per page, munmap()."""
    r = written(b, p)
    b.phase("pageout_for_swapin", "madvise", "behavior=MADV_PAGEOUT", timed=False)
    madvise_pageout(b, r)
    b.phase("swapin")
    r = swap_in(b, r)
    b.phase("munmap_swapin", "munmap", timed=False)
    unmap(b, r)
