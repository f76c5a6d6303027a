# SPDX-License-Identifier: GPL-2.0-or-later
"""Granules: table sizes, contpte spans and address splits, per arm64 page size."""

from __future__ import annotations

from dataclasses import dataclass

from tracer.errors import UsageError

# MAX_TLBI_RANGE_PAGES, arch/arm64/include/asm/tlbflush.h: (31 + 1) << (5 * 3 + 1).
TLBI_RANGE_MAX_PAGES = 1 << 21


@dataclass(frozen=True)
class Granule:
    """One page size (arch/arm64/Kconfig, asm/pgtable-hwdef.h).

    :ivar cont_ptes: entries of a contpte block, CONT_PTES
    :ivar levels: page table levels by virtual address bits
    """

    name: str
    page_shift: int
    ptrs_per_pte: int
    cont_ptes: int
    cont_pmds: int
    levels: dict[int, int]

    @property
    def page_size(self) -> int:
        return 1 << self.page_shift

    @property
    def pmd_shift(self) -> int:
        """log2 of the bytes that one PTE table maps."""
        return self.page_shift + self.ptrs_per_pte.bit_length() - 1

    @property
    def pud_shift(self) -> int:
        return self.pmd_shift + self.ptrs_per_pte.bit_length() - 1


GRANULES: dict[str, Granule] = {
    "4K": Granule("4K", 12, 512, 16, 16, {39: 3, 48: 4, 52: 5}),
    "16K": Granule("16K", 14, 2048, 128, 32, {36: 2, 47: 3, 48: 4, 52: 4}),
    "64K": Granule("64K", 16, 8192, 32, 32, {42: 2, 48: 3, 52: 3}),
}


def granule(name: str) -> Granule:
    """:raises UsageError: for an unknown name."""
    if name not in GRANULES:
        raise UsageError(f"No granule {name!r}.", f"Known: {', '.join(GRANULES)}.")
    return GRANULES[name]


def granule_of(page_size: int) -> Granule:
    """The granule of a page size in bytes; x86's 4096 is 4K."""
    for candidate in GRANULES.values():
        if candidate.page_size == page_size:
            return candidate
    raise UsageError(f"No granule with {page_size} byte pages.")
