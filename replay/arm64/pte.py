# SPDX-License-Identifier: GPL-2.0-or-later
"""Page table entry bits and their predicates.

Bit numbers of a valid entry are arm64's (arch/arm64/include/asm/pgtable-hwdef.h,
pgtable-prot.h). The frame number starts at bit 12 for every granule, because
the simulator's frames are its own. Non-present entries use a layout of the
simulator: a kind in bits 4-8, an offset from bit 12.
"""

from __future__ import annotations

from tracer.jit import inner

VALID = 1 << 0
USER = 1 << 6
RDONLY = 1 << 7
AF = 1 << 10
PRESENT_INVALID = 1 << 11  # PROT_NONE, NUMA hint: present but not valid
WRITE = 1 << 51  # DBM
CONT = 1 << 52
UXN = 1 << 54
DIRTY = 1 << 55  # software dirty
SPECIAL = 1 << 56
UFFD = 1 << 58

PFN_SHIFT = 12
PFN_MASK = ((1 << 36) - 1) << PFN_SHIFT

# Non-present entries.
KIND_SHIFT = 4
KIND_MASK = 0x1F << KIND_SHIFT
SWAP = 1 << KIND_SHIFT
MIGRATION_READ = 2 << KIND_SHIFT
MIGRATION_READ_EXCL = 3 << KIND_SHIFT
MIGRATION_WRITE = 4 << KIND_SHIFT
MARKER_UFFD = 5 << KIND_SHIFT
MARKER_GUARD = 6 << KIND_SHIFT
HWPOISON = 7 << KIND_SHIFT
NP_EXCLUSIVE = 1 << 2
NP_UFFD = 1 << 3
NP_YOUNG = 1 << 9
NP_DIRTY = 1 << 10

# Bits that a contpte block's entries may differ in.
BLOCK_IGNORES = AF | DIRTY


@inner
def pte_present(pte: int) -> bool:
    return (pte & (VALID | PRESENT_INVALID)) != 0


@inner
def pte_valid_cont(pte: int) -> bool:
    return (pte & (VALID | CONT)) == (VALID | CONT)


@inner
def pte_pfn(pte: int) -> int:
    return (pte & PFN_MASK) >> PFN_SHIFT


@inner
def pte_dirty(pte: int) -> bool:
    """Software dirty, or hardware dirty: writable and not read-only."""
    return (pte & DIRTY) != 0 or (pte & (WRITE | RDONLY)) == WRITE


@inner
def pte_mkclean(pte: int) -> int:
    return (pte & ~DIRTY) | RDONLY


@inner
def pte_mkdirty(pte: int) -> int:
    if pte & WRITE:
        pte &= ~RDONLY
    return pte | DIRTY


@inner
def pte_wrprotect(pte: int) -> int:
    """A hardware-dirty entry keeps its dirtiness in the software bit."""
    if (pte & (WRITE | RDONLY)) == WRITE:
        pte |= DIRTY
    return (pte & ~WRITE) | RDONLY


@inner
def pte_mkwrite(pte: int) -> int:
    pte |= WRITE
    if pte & DIRTY:
        pte &= ~RDONLY
    return pte


@inner
def pte_advance_pfn(pte: int, nr: int) -> int:
    return pte + (nr << PFN_SHIFT)


@inner
def is_swap(pte: int) -> bool:
    return (pte & (VALID | PRESENT_INVALID)) == 0 and (pte & KIND_MASK) == SWAP


@inner
def is_migration(pte: int) -> bool:
    if pte & (VALID | PRESENT_INVALID):
        return False
    kind = pte & KIND_MASK
    return MIGRATION_READ <= kind <= MIGRATION_WRITE
