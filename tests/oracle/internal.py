# SPDX-License-Identifier: GPL-2.0-or-later
"""folio_pte_batch() of mm/internal.h, and the batch of swap entries."""

from __future__ import annotations

from tests.oracle.contpte import batch_hint, ptep_get
from tests.oracle.entries import NonPresent, Pte
from tests.oracle.machine import Machine, Ptep


def _compared(pte: Pte, *, write: bool, dirty: bool) -> tuple[bool, ...]:
    """What two entries of a batch share; young never counts."""
    return (*pte.attributes(), write and pte.write, dirty and pte.dirty)


def folio_pte_batch(
    m: Machine, ptep: Ptep, pte: Pte, max_nr: int, *, write: bool = False, dirty: bool = False
) -> int:
    """Entries from ``ptep`` that map consecutive pages of one folio alike.

    :param pte: the entry there, already read
    :param write: respect the write bit; ``dirty`` likewise
    """
    folio = m.folio(pte.pfn)
    max_nr = min(max_nr, folio.head + folio.nr_pages - pte.pfn)
    wanted = _compared(pte, write=write, dirty=dirty)
    nr = batch_hint(m, ptep, pte)
    while nr < max_nr:
        other = ptep_get(m, ptep.plus(nr))
        if not isinstance(other, Pte) or other.pfn != pte.pfn + nr:
            break
        if _compared(other, write=write, dirty=dirty) != wanted:
            break
        nr += batch_hint(m, ptep.plus(nr), other)
    return min(nr, max_nr)


def swap_pte_batch(m: Machine, ptep: Ptep, entry: NonPresent, max_nr: int) -> int:
    """Swap entries with consecutive offsets and equal bits."""
    nr = 1
    while nr < max_nr and ptep_get(m, ptep.plus(nr)) == entry.advance(nr):
        nr += 1
    return nr


CLUSTER = 512  # entries of a swap cluster


def free_swap_run(m: Machine, first: int, nr: int) -> None:
    """One call; one lock pair for every cluster of the run."""
    m.count("swp_op")
    m.count("swp_lock", len({offset // CLUSTER for offset in range(first, first + nr)}))
