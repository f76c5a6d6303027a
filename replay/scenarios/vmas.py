# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios that keep the pages and change how they are mapped: mprotect, mremap, fork."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from replay import stream
from replay.scenarios.anon import written
from replay.scenarios.builder import Builder, Column, interleave, rows
from replay.scenarios.files import cached, write_faults
from replay.scenarios.params import Params
from replay.scenarios.reclaim import SHMEM_INFO
from replay.scenarios.region import (
    ANON_INFO,
    BASE,
    Region,
    anon,
    fault_in,
    finish,
    touch,
    unmap,
)
from tracer.errors import UsageError

MM_CP_TRY_CHANGE_WRITABLE: Final = 1
EIGHTH: Final = 8
COW_STRIDE: Final = 16  # pages
MISALIGNED: Final = 64 << 10


def protect(b: Builder, r: Region, *, write: bool) -> None:
    """mprotect() of the whole region to read-only or back."""
    vmf = r.vmf if write else r.vmf & ~stream.VMF_WRITE
    flags = MM_CP_TRY_CHANGE_WRITABLE if write else 0
    columns = {**r.vma(), "vmf": vmf}
    b.op("change_protection", va=r.start, end=r.end, flags=flags, **columns)
    finish(b, r)


def protect_pages(b: Builder, r: Region, end: int, *, write: bool) -> None:
    """One mprotect() per page of [start, end)."""
    page = r.geometry.page_size
    start = np.arange(r.start, end, page)
    vmf = r.vmf if write else r.vmf & ~stream.VMF_WRITE
    flags = MM_CP_TRY_CHANGE_WRITABLE if write else 0
    columns: dict[str, Column] = {
        **r.vma(), "vmf": vmf, "vm_start": start, "vm_end": start + page
    }  # fmt: skip
    change = rows("change_protection", va=start, end=start + page, flags=flags, **columns)
    b.add(interleave(change, rows("tlb_finish_mmu", ctx=np.full(len(start), r.ctx), mm=r.mm)))


def mprotect(b: Builder, p: Params) -> None:
    """mprotect() of the whole region, read-only and back; ``shmem``: shared, used in between."""
    shmem = p.how == "shmem"
    r = cached(p) if shmem else written(b, p)
    if shmem:
        write_faults(b, r, whole=True, info=SHMEM_INFO)
    for _ in range(p.iterations):
        b.phase("mprotect_ro", "mprotect", "prot=PROT_READ")
        protect(b, r, write=False)
        b.phase("mprotect_rw", "mprotect", "prot=PROT_READ|PROT_WRITE")
        protect(b, r, write=True)
        if shmem:
            b.setup()
            touch(b, r, write=True)


def mprotect_page(b: Builder, p: Params) -> None:
    """mprotect() page by page, read-only over the region and back."""
    r = written(b, p)
    for _ in range(p.iterations):
        b.phase("mprotect_page_ro", "mprotect", "prot=PROT_READ")
        protect_pages(b, r, r.end, write=False)
        b.phase("mprotect_page_rw", "mprotect", "prot=PROT_READ|PROT_WRITE")
        protect_pages(b, r, r.end, write=True)


def mprotect_all(b: Builder, p: Params) -> None:
    """Whole region, then page by page over its first eighth; written; munmap()."""
    r = written(b, p)
    b.phase("mprotect_ro", "mprotect", "prot=PROT_READ")
    protect(b, r, write=False)
    b.phase("mprotect_rw", "mprotect", "prot=PROT_READ|PROT_WRITE")
    protect(b, r, write=True)
    end = r.start + p.size // EIGHTH
    b.phase("mprotect_page_ro", "mprotect", "prot=PROT_READ")
    protect_pages(b, r, end, write=False)
    b.phase("mprotect_page_rw", "mprotect", "prot=PROT_READ|PROT_WRITE")
    protect_pages(b, r, end, write=True)
    b.setup()
    touch(b, r, write=True)
    b.phase("munmap_mprotect", "munmap", timed=False)
    unmap(b, r)


def move(b: Builder, r: Region, new: int) -> Region:
    """mremap(MREMAP_FIXED): what was at the target goes, the pages move, the old VMA goes."""
    to = r.moved(new)
    b.op("zap_page_range", va=to.start, end=to.end, flags=1, **to.vma())
    finish(b, to)
    b.op(
        "move_page_tables", va=r.start, end=r.end, arg=new, ctx=r.ctx, mm=r.mm,
        nr=(r.end - r.start) >> r.geometry.page_shift,
    )  # fmt: skip
    pud = 1 << r.geometry.pud_shift
    unmap(b, r, upper=bool((r.end - r.start) % pud or r.start % pud or new % pud))
    return to


def target(p: Params, how: str) -> int:
    """Destination of an mremap by how it moves: by PUD, PMD or PTE, aligned or not."""
    g = p.geometry()
    pud, pmd = 1 << g.pud_shift, 1 << g.pmd_shift
    past = -(-(p.size + p.alignment) // pud) * pud
    offsets = {"pud": 0, "pmd": pmd, "aligned": pmd, "pte": MISALIGNED, "misaligned": MISALIGNED,
               "page": g.page_size, "next": p.size - past}  # fmt: skip
    if how not in offsets:
        raise UsageError(f"mremap has no variant {how!r}.", f"Known: {', '.join(offsets)}.")
    return BASE + p.alignment + past + offsets[how]


def mremap(b: Builder, p: Params) -> None:
    """mremap() of the region to another address."""
    r = written(b, p)
    for i in range(p.iterations):
        b.phase("mremap", "mremap")
        r = move(b, r, BASE + p.alignment if i % 2 else target(p, p.how or "misaligned"))


def mremap_all(b: Builder, p: Params) -> None:
    """mremap() to a PMD aligned address, then to one 64 KiB behind; munmap()."""
    r = written(b, p)
    b.phase("mremap_aligned", "mremap")
    r = move(b, r, target(p, "aligned"))
    b.phase("mremap_misaligned", "mremap")
    r = move(b, r, target(p, "misaligned") + 4 * p.size)
    b.phase("munmap_mremap", "munmap", timed=False)
    unmap(b, r, below=True)


def fork_of(b: Builder, r: Region, child: int) -> None:
    """fork(): the child's mm gets the region, the parent is flushed once."""
    b.op("copy_page_range", va=r.start, end=r.end, arg=child, **r.vma())
    b.op("dup_mmap_end", ctx=r.ctx, mm=r.mm)


def child_exit(b: Builder, child: int, *regions: Region) -> None:
    """The child exits."""
    b.op("exit_mmap", ctx=1, mm=child)
    for r in regions:
        c = replace(r, mm=child, ctx=1)
        b.op("zap_page_range", va=c.start, end=c.end, flags=1, **c.vma())
    b.op("tlb_finish_mmu", ctx=1, mm=child, va=0, end=(1 << 56) - 1, flags=0xF5)


def fork(b: Builder, p: Params) -> None:
    """fork(), one write per 16 pages in the parent, the child exits, munmap()."""
    r = written(b, p)
    for i in range(p.iterations):
        child = 1 + i
        b.phase("fork", "clone")
        fork_of(b, r, child)
        b.phase("child_exit", timed=False)
        child_exit(b, child, r)
    b.phase("cow", timed=False)
    write_some(b, r)
    b.phase("munmap_cow", "munmap", timed=False)
    unmap(b, r)


def fork_all(b: Builder, p: Params) -> None:
    """fork() of a process with a stack, the child exits, one write per 16 pages, munmap()."""
    r = written(b, p)
    stack = anon(BASE + (1 << 46), r.geometry.page_size, 0, r.geometry, frame=after(r))
    fault_in(b, stack)
    b.phase("fork", "clone")
    b.op("copy_page_range", va=stack.start, end=stack.end, arg=1, **stack.vma())
    fork_of(b, r, 1)
    # The store to the stack on return from clone(), while the child waits.
    b.op("wp_page_copy", va=stack.va, pfn=stack.pfn + 1, nr=1, info=ANON_INFO, **stack.vma())
    b.setup()
    child_exit(b, 1, r, stack)
    write_some(b, r)
    b.phase("munmap_cow", "munmap", timed=False)
    unmap(b, r)


def after(r: Region) -> int:
    """First frame behind a region's and those of a small one."""
    return int((r.pfn + r.nr).max())


def write_some(b: Builder, r: Region) -> None:
    """One write per 16 pages, each to a page that fork() write-protected."""
    at = np.arange(r.start, r.end, COW_STRIDE << r.geometry.page_shift)
    pfn = after(r) + r.geometry.cont_ptes + np.arange(len(at))
    b.op("do_wp_page", va=at, pfn=pfn, nr=1, order=0, info=ANON_INFO, **r.vma())
