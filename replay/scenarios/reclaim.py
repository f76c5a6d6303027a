# SPDX-License-Identifier: GPL-2.0-or-later
"""What reclaim is asked to do: MADV_PAGEOUT lists, lazyfree, file unmap, aging."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from replay import state
from replay.scenarios.builder import Builder, Int64, merge, rows
from replay.scenarios.region import ANON_INFO, Region

# enum ttu_flags, include/linux/rmap.h; shrink_folio_list() of 6.9 and later.
TTU_SPLIT_HUGE_PMD: Final = 0x4
TTU_SYNC: Final = 0x10
TTU_BATCH_FLUSH: Final = 0x40
FREE_BATCH: Final = 31  # FOLIO_BATCH_SIZE: freed folios that complete the deferred flush

SWAP_INFO: Final = ANON_INFO | state.INFO_SWAPCACHE
SHMEM_INFO: Final = state.INFO_SHMEM | state.INFO_SWAPBACKED | state.INFO_SWAPCACHE


def ttu_flags(order: Int64, pmd_order: int) -> Int64:
    """Flags of try_to_unmap() in shrink_folio_list(), by folio order."""
    flags = np.full(len(order), TTU_BATCH_FLUSH, np.int64)
    flags[order > 0] |= TTU_SYNC
    flags[order >= pmd_order] |= TTU_SPLIT_HUGE_PMD
    return flags


def shrink_list(r: Region, *, dirty: bool, info: int) -> Int64:
    """shrink_folio_list() over all folios of the region, as one list.

    A dirty folio is written as soon as it is unmapped, which completes the
    deferred flush; the others wait for the free batch or the end of the list.

    :return: int64[n, NR_FIELDS]
    """
    n = len(r.va)
    at = np.arange(n, dtype=np.int64) * 4
    pmd_order = r.geometry.pmd_shift - r.geometry.page_shift
    unmap = rows(
        "try_to_unmap_one", va=r.va, end=r.folio_end, pfn=r.pfn, nr=r.nr, order=r.order,
        flags=ttu_flags(r.order, pmd_order), info=info, **r.vma(),
    )  # fmt: skip
    parts = [(unmap, at)]
    if dirty:
        parts.append((rows("try_to_unmap_flush_dirty", ctx=np.full(n, r.ctx)), at + 1))
    full = at[FREE_BATCH - 1 :: FREE_BATCH] + 2
    ends = np.append(full, at[-1] + 3)
    parts.append((rows("try_to_unmap_flush", ctx=np.full(len(ends), r.ctx)), ends))
    return merge(parts)


def _slice(r: Region, start: int, end: int) -> Region:
    """The folios of a region that begin in [start, end)."""
    inside = (r.va >= start) & (r.va < end)
    return replace(r, va=r.va[inside], pfn=r.pfn[inside], order=r.order[inside])


def madvise_pageout(b: Builder, r: Region, *, dirty: bool = True, info: int = SWAP_INFO) -> None:
    """MADV_PAGEOUT: every PMD is scanned, then its folios are reclaimed as one list."""
    starts, ends = r.pmds(1 << r.geometry.pmd_shift)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        goes_on = int(end < r.end)
        b.op("madvise_pageout", va=start, end=end, nr=goes_on, **r.vma())
        part = _slice(r, start, end)
        if len(part.va):
            b.add(shrink_list(part, dirty=dirty, info=info))
    b.op("tlb_finish_mmu", ctx=r.ctx, mm=r.mm)


def madvise_free(b: Builder, r: Region) -> None:
    """MADV_FREE: every PMD's entries become old and clean, one flush at the end of the VMA."""
    starts, ends = r.pmds(1 << r.geometry.pmd_shift)
    b.op("madvise_free", va=starts, end=ends, nr=(ends < r.end).astype(np.int64), **r.vma())
    b.op("tlb_finish_mmu", ctx=r.ctx, mm=r.mm)


def age(b: Builder, r: Region) -> None:
    """Classic LRU aging: folio_referenced_one() of every folio."""
    b.op(
        "folio_referenced_one", va=r.va, end=r.folio_end, pfn=r.pfn, nr=r.nr, order=r.order,
        **r.vma(),
    )  # fmt: skip
