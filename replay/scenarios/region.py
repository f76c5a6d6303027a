# SPDX-License-Identifier: GPL-2.0-or-later
"""A mapped region: where its folios are, and the operations that map it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from replay import state, stream
from replay.arm64.geometry import Granule
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
    # Single pages get frames like their addresses, so that frames stay aligned alike.
    skew = (start % whole) // page
    base = -(-frame // (1 << order) << order) if order else frame
    where = np.concatenate(va).astype(np.int64)
    pfn = base + skew + ((where - start) >> geometry.page_shift)
    return Region(
        start, start + size, where, pfn, orders, geometry, vm_start=start, vm_end=start + size
    )


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


def unmap(b: Builder, r: Region, *, tables: bool = True) -> None:
    """munmap() of the region, with the page tables that only it used.

    :param tables: False where a neighbour in the same tables keeps all of them
    """
    b.op("zap_page_range", va=r.start, end=r.end, flags=1, **r.vma())
    finish(b, r, freed=tables)


def finish(b: Builder, r: Region, *, freed: bool = False) -> None:
    """tlb_finish_mmu(); ``freed`` with the bits and range that free_pgtables() leaves.

    A table counts from its first entry, and ends one page behind the last table's start.
    """
    size = 1 << r.geometry.pmd_shift
    first, last = -(-r.start // size) * size, r.end // size * size
    if freed and first < last:
        end = last - size + r.geometry.page_size
        b.op("tlb_finish_mmu", ctx=r.ctx, mm=r.mm, va=first, end=end, flags=0x24)
    else:
        b.op("tlb_finish_mmu", ctx=r.ctx, mm=r.mm)
