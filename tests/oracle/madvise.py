# SPDX-License-Identifier: GPL-2.0-or-later
"""mm/madvise.c: the page table scans of MADV_COLD, MADV_PAGEOUT and MADV_FREE."""

from __future__ import annotations

from tests.oracle.access import clear_young_dirty_ptes
from tests.oracle.contpte import logical, ptep_get
from tests.oracle.entries import Pte, is_swap
from tests.oracle.internal import folio_pte_batch, free_swap_run, swap_pte_batch
from tests.oracle.machine import Gather, Machine, Ptep
from tests.oracle.mmu_gather import tlb_gather_mmu, tlb_remove_tlb_entries
from tests.oracle.rmap import flush_tlb_batched_pending
from tests.oracle.zap import clear_not_present

COLD, PAGEOUT, FREE = "cold", "pageout", "free"


def _run(m: Machine, ptep: Ptep, pte: Pte, room: int) -> tuple[int, bool]:
    """Entries of the folio from here, and whether that is all of it."""
    folio = m.folio(pte.pfn)
    if not folio.large or not m.f.madvise_batch:
        return 1, True
    nr = folio_pte_batch(m, ptep, pte, room)
    return nr, nr == folio.nr_pages


def _present(
    m: Machine, gather: Gather, ptep: Ptep, va: int, pte: Pte, room: int, what: str
) -> int:
    """One folio; the entries passed."""
    if pte.special:
        return 1
    folio = m.folio(pte.pfn)
    nr, whole = _run(m, ptep, pte, room)
    if not whole:
        return nr  # shared, or it could not be split
    pages = range(pte.pfn, pte.pfn + nr)
    if what != FREE and any(folio.mapcount[page] > 1 for page in pages):
        return nr  # others map it too
    if what == PAGEOUT:
        m.count("rmw_ref")
        return nr
    run = [logical(m, ptep.plus(k)) for k in range(nr)]
    if any(p.young or (what == FREE and p.dirty) for p in run):
        clear_young_dirty_ptes(m, ptep, nr, dirty=what == FREE)
        tlb_remove_tlb_entries(m, gather, va, nr)
    return nr


def madvise_pte_range(
    m: Machine, ctx: int, mm: int, va: int, end: int, what: str, split: int
) -> Gather:
    """:param split: where a folio is split: another operation goes on there"""
    gather = tlb_gather_mmu(m, ctx, mm)
    for start, stop, table in m.tables_of(mm, va, end):
        if table is None:
            continue
        m.count("ptl")
        flush_tlb_batched_pending(m, mm)
        at, freed = start, False
        while at < stop:
            ptep, room = m.ptep(table, at), m.pages(at, stop)
            entry, nr = ptep_get(m, ptep), 1
            if isinstance(entry, Pte) and at == split:
                _run(m, ptep, entry, room)
                return gather
            if isinstance(entry, Pte):
                nr = _present(m, gather, ptep, at, entry, room, what)
            elif what == FREE and is_swap(entry):
                if m.f.swap_free_batch:
                    nr = swap_pte_batch(m, ptep, entry, room)
                free_swap_run(m, entry.pfn, nr)
                clear_not_present(m, ptep, at, nr)
                freed = True
            at += nr * m.page
        m.count("mmc", freed)
    return gather
