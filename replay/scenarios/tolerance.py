# SPDX-License-Identifier: GPL-2.0-or-later
"""What a generated workload cannot know about the machine that was measured, and the bounds of it.

Nothing here depends on a policy. A difference that no rule covers is a wrong model.
"""

from __future__ import annotations

from typing import Final

from replay import truth
from replay.truth import TruthRow

EXACT: Final = "exact"
DIFFERS: Final = "not"
UNMEASURED: Final = "unmeasured"

FRAMES: Final = "frames that the allocator gave; folios smaller than a block never fold"
PROGRAM: Final = "fork copies the program's own data, heap and stack too"
PLACEMENT: Final = "equal where mmap() may have placed the mapping"

CONT_PTES: Final = 16  # the sweep's granule
BLOCK_KB: Final = 64
PMD_KB: Final = 2048

# VMAs of the program that fork copies besides the region, as folios of its heap and stack.
PROGRAM_COUNTERS: Final = frozenset(
    {
        "fold_try",
        "contpte_set_ptes",
        "contpte_wrprotect_ptes",
        "contpte_try_unfold_partial",
        "cp_get",
    }
)
PROGRAM_MOST: Final = 4

_PUD: Final = 1 << 30
_PMD: Final = 1 << 21
_FILE: Final = 1 << 29
# Where a measured mapping was, as a distance from a PUD boundary. Truth files have no
# addresses; these give every count of the workload at once. A file mapping is page aligned:
# its flushes depend on the pages before its first 64 KiB and PMD boundaries. The others
# began below a PUD boundary, so that a table of PMDs went with them (tlb_remove_table() was
# entered nine times for eight tables).
PLACED: Final[dict[tuple[str, str, int], int]] = {
    ("6.12", "filefault", 0): _FILE + (20 << 12),
    ("7.3", "filefault", 0): _FILE + (74 << 12),
    ("7.3-unbatched", "filefault", 0): _FILE + (12 << 12),
    ("7.3-anon-batched", "filefault", 0): _FILE + (70 << 12),
    ("7.3", "partial", 4): _PUD - 4 * _PMD,
    ("7.3", "pageout", 2048): _PUD - _PMD,
    ("7.3-anon-batched", "zap", 64): _PUD - 4 * _PMD,
}


def _tries(row: TruthRow, simulated: int) -> int:
    """Most fold attempts, if every frame were aligned like its address.

    The generated frames are aligned in one of as many blocks as folios fit a block.
    """
    kb = (
        4
        if row.folio_kb == 0 or (row.phase == "swapin" and row.folio_kb >= PMD_KB)
        else row.folio_kb
    )
    return simulated * CONT_PTES * 4 // kb if kb < BLOCK_KB else -1


def verdict(counter: str, simulated: int, row: TruthRow) -> str:
    """``exact``, ``not``, ``unmeasured``, or the physical reason why the counts may differ."""
    real = row.counter(counter)
    if real is None:
        return UNMEASURED
    if real == simulated:
        return EXACT
    if counter in truth.TOLERANCES and 0 <= real - simulated <= row.dsb_noise():
        return truth.TOLERANCES[counter]
    if counter == "fold_try" and real <= _tries(row, simulated):
        return FRAMES
    own = row.phase == "fork" and counter in PROGRAM_COUNTERS
    if own and 0 < real - simulated <= PROGRAM_MOST:
        return PROGRAM
    return DIFFERS
