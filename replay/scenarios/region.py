# SPDX-License-Identifier: GPL-2.0-or-later
"""A mapped region: where its folios are, and the operations that map it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from replay import state, stream
from replay.arm64.geometry import Granule
from replay.mm.run import GATHER_FREE_PGTABLES
from replay.scenarios.builder import Builder, Int64, rows

# On a PUD boundary of every granule.
BASE: Final = 0x4000_0000_0000
ANON_VMF: Final = stream.VMF_READ | stream.VMF_WRITE | stream.VMF_ANON | stream.VMF_KNOWN
FILE_VMF: Final = stream.VMF_READ | stream.VMF_WRITE | stream.VMF_SHARED | stream.VMF_KNOWN
ANON_INFO: Final = state.INFO_ANON | state.INFO_SWAPBACKED
RMAP_EXCLUSIVE: Final = 1


@dataclass(frozen=True)
class Region:
    """One VMA, or the part of it a workload uses.

    :ivar va: int64[folios], first address of every folio
    :ivar pfn: int64[folios], first frame
    :ivar order: int64[folios]
    """

    start: int
    end: int
    va: Int64
    pfn: Int64
    order: Int64
    geometry: Granule
    vmf: int = ANON_VMF
    vm_start: int = 0
    vm_end: int = 1 << 56
    mm: int = 0
    ctx: int = 0

    @property
    def nr(self) -> Int64:
        """Pages of every folio."""
        return np.int64(1) << self.order

    @property
    def folio_end(self) -> Int64:
        return self.va + (self.nr << self.geometry.page_shift)

    def vma(self) -> dict[str, int]:
        """Columns that every operation on the VMA has."""
        return {
            "ctx": self.ctx, "mm": self.mm, "vmf": self.vmf, "vm_start": self.vm_start,
            "vm_end": self.vm_end,
        }  # fmt: skip

    def moved(self, new: int) -> Region:
        """The same pages at another address."""
        by = new - self.start
        end = self.end + by
        return replace(self, start=new, end=end, va=self.va + by, vm_start=new, vm_end=end)

    def pmds(self, size: int) -> tuple[Int64, Int64]:
        """Start and end of the region's part of every ``size`` bytes.

        :return: int64[n], int64[n]
        """
        first = np.arange(self.start // size, -(-self.end // size), dtype=np.int64) * size
        return np.maximum(first, self.start), np.minimum(first + size, self.end)


def anon(start: int, size: int, order: int, geometry: Granule, *, frame: int = 0) -> Region:
    """Anonymous memory as faults fill it: folios of one order, single pages where none fits.

    :param frame: first frame to use
    """
    page, whole = geometry.page_size, geometry.page_size << order
    first = min(-(-start // whole) * whole, start + size)
    last = max(first, (start + size) // whole * whole)
    va = [np.arange(start, first, page), np.arange(first, last, whole),
          np.arange(last, start + size, page)]  # fmt: skip
    orders = np.repeat([0, order, 0], [len(v) for v in va]).astype(np.int64)
    where = np.concatenate(va).astype(np.int64)
    pfn = frames(where - start // whole * whole, orders, geometry, frame)
    return Region(
        start, start + size, where, pfn, orders, geometry, vm_start=start, vm_end=start + size
    )


def frames(offset: Int64, order: Int64, geometry: Granule, first: int) -> Int64:
    """Frames for folios at these offsets: aligned like addresses where a folio fills a block.

    The allocator places smaller ones anywhere in a contpte block. Here every place
    is as frequent as every other: block by block, the folios move on by one.

    :param offset: int64[n], bytes
    :param order: int64[n]
    :return: int64[n]
    """
    page = offset >> geometry.page_shift
    cont = geometry.cont_ptes
    block, inside = page // cont, page % cont
    moved = block * cont + (inside + (block << order)) % cont
    first = -(-first // cont) * cont
    return first + np.where((1 << order) < cont, moved, page)


def fault_in(b: Builder, r: Region) -> None:
    """Write every page once, first page of a folio first."""
    b.add(
        rows(
            "do_anonymous_page", va=r.va, end=r.folio_end, pfn=r.pfn, nr=r.nr, order=r.order,
            flags=RMAP_EXCLUSIVE, info=ANON_INFO, **r.vma(),
        )
    )  # fmt: skip


def touch(b: Builder, r: Region, *, write: bool) -> None:
    """The CPU uses every page: young, and dirty with ``write``."""
    pages = (r.end - r.start) >> r.geometry.page_shift
    b.op("access", va=r.start, end=r.end, nr=pages, flags=int(write), **r.vma())


def unmap(b: Builder, r: Region, *, below: bool = False, upper: bool = True) -> None:
    """munmap() of the region, with the page tables that only it used.

    :param below: another mapping is directly below, too
    :param upper: tables of PMDs are there; False after they were moved away
    """
    b.op("zap_page_range", va=r.start, end=r.end, flags=1, **r.vma())
    free_pgtables(b, r, below=below, upper=upper)


def finish(b: Builder, r: Region) -> None:
    """tlb_finish_mmu() of an operation that frees no page tables."""
    b.op("tlb_finish_mmu", ctx=r.ctx, mm=r.mm)


def free_pgtables(b: Builder, r: Region, *, below: bool = False, upper: bool = True) -> None:
    """tlb_finish_mmu() after free_pgtables().

    Mappings grow down: the next one is directly above the region, and keeps the
    tables that it shares with it. Which tables exist in the range is the engine's to know.
    """
    size, above = 1 << r.geometry.pmd_shift, 1 << r.geometry.pud_shift
    low, high = r.start - r.start % size, r.end - r.end % size
    if below and r.start % size:
        low += size
    # A table of PMDs goes when its whole range is the region's; it counts from its start.
    pud = r.start - r.start % above
    whole = upper and pud + above <= r.end and not (below and r.start % above)
    b.op(
        "tlb_finish_mmu", ctx=r.ctx, mm=r.mm, va=low, end=max(low, high),
        flags=GATHER_FREE_PGTABLES, arg=pud if whole else 0,
    )  # fmt: skip
