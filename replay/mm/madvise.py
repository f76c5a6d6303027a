# SPDX-License-Identifier: GPL-2.0-or-later
"""The page table scans of MADV_COLD, MADV_PAGEOUT and MADV_FREE (mm/madvise.c)."""

from __future__ import annotations

from replay.arm64.contpte import clear_young_dirty_ptes, peek, ptep_get
from replay.arm64.pte import AF, PFN_SHIFT, SPECIAL, is_swap, pte_dirty, pte_pfn, pte_present
from replay.counters import INDEX
from replay.mm.batch import folio_pte_batch
from replay.mm.folio import folio_nr_pages
from replay.mm.huge_memory import change_huge_pmd, madvise_free_huge_pmd, pmd_trans_huge
from replay.mm.memory import clear_not_present_ptes, free_swap_run, swap_pte_batch
from replay.mm.mmu_gather import tlb_gather_mmu, tlb_remove_tlb_entries
from replay.mm.pgtable import index_of, pmd_addr_end, table_of
from replay.mm.rmap import flush_tlb_batched_pending
from replay.policies import FEATURE_INDEX
from replay.state import PAGE_SHIFT, PMD_SIZE, POLICY, TABLE_BLOCK, State
from tracer.jit import inner

PTL = INDEX["ptl"]
MMC = INDEX["mmc"]
RMW_REF = INDEX["rmw_ref"]
F_BATCH = POLICY + FEATURE_INDEX["madvise_batch"]
F_SWAP_FREE = POLICY + FEATURE_INDEX["swap_free_batch"]

COLD = 0
PAGEOUT = 1
FREE = 2


@inner
def _run(st: State, i: int, pte: int, max_nr: int) -> int:
    """madvise_folio_pte_batch(): negative when the range covers the folio only in part."""
    nr_folio = folio_nr_pages(st, pte_pfn(pte))
    if nr_folio == 1:
        return 1
    if not st.s[F_BATCH]:
        return 1
    nr = folio_pte_batch(st, i, pte, max_nr, 0)
    return nr if nr == nr_folio else -nr


@inner
def _any_young_dirty(st: State, i: int, nr: int) -> int:
    """1: some entry is young, 2: some entry is dirty, as the batch reported."""
    found = 0
    for k in range(i, i + nr):
        pte = peek(st, k)
        if pte & AF:
            found |= 1
        if pte_dirty(pte):
            found |= 2
    return found


@inner
def _is_shared(st: State, pfn: int, nr: int) -> bool:
    """Somebody else maps the pages too: COLD and PAGEOUT leave them alone."""
    for page in range(pfn, pfn + nr):
        if st.mapcount[page] > 1:
            return True
    return False


@inner
def _present(st: State, ctx: int, i: int, va: int, pte: int, max_nr: int, what: int) -> int:
    """One folio of the scan; returns the entries passed."""
    if pte & SPECIAL:
        return 1
    nr = _run(st, i, pte, max_nr)
    if nr < 0:
        # Left alone when it is shared, or cannot be split.
        return -nr
    if what != FREE and _is_shared(st, pte_pfn(pte), nr):
        return nr
    if what == PAGEOUT:
        st.c[RMW_REF] += 1
        return nr
    found = _any_young_dirty(st, i, nr)
    if found & 1 or (what == FREE and found):
        clear_young_dirty_ptes(st, i, va, nr, 1 if what == FREE else 0)
        tlb_remove_tlb_entries(st, ctx, va, nr)
    return nr


@inner
def _huge(st: State, ctx: int, table: int, size: int, what: int) -> None:
    """The scan over a PMD that maps a folio.

    One that the range covers in part is split by the kernel as a folio; its
    try_to_migrate_one() is an operation of its own.
    """
    if size != st.s[PMD_SIZE]:
        return
    if what == FREE:
        madvise_free_huge_pmd(st, ctx, table)
        return
    if what == PAGEOUT:
        st.c[PTL] += 1
        st.c[RMW_REF] += 1
    elif st.table[table, TABLE_BLOCK] & AF:
        change_huge_pmd(st, ctx, table, st.table[table, TABLE_BLOCK] & ~AF, True)


@inner
def madvise_pte_range(
    st: State, ctx: int, mm: int, va: int, end: int, what: int, split: int
) -> None:
    """madvise_cold_or_pageout_pte_range(), madvise_free_pte_range(): one PMD.

    :param what: COLD, PAGEOUT or FREE
    :param split: address at which the kernel splits a folio, unlocks, and goes on with
        another operation that begins there; 0 for none
    """
    tlb_gather_mmu(st, ctx, mm, 0)
    while va < end:
        stop = pmd_addr_end(st, va, end)
        table = table_of(st, mm, va)
        if table < 0:
            va = stop
            continue
        if pmd_trans_huge(st, table):
            _huge(st, ctx, table, stop - va, what)
            va = stop
            continue
        st.c[PTL] += 1
        flush_tlb_batched_pending(st, mm)
        freed = False
        while va < stop:
            i = index_of(st, table, va)
            pte = ptep_get(st, i)
            max_nr = (stop - va) >> st.s[PAGE_SHIFT]
            nr = 1
            if va == split and pte_present(pte):
                _run(st, i, pte, max_nr)
                return
            if pte_present(pte):
                nr = _present(st, ctx, i, va, pte, max_nr, what)
            elif what == FREE and is_swap(pte):
                if st.s[F_SWAP_FREE]:
                    nr = swap_pte_batch(st, i, pte, max_nr)
                free_swap_run(st, pte >> PFN_SHIFT, nr)
                clear_not_present_ptes(st, i, va, nr)
                freed = True
            va += nr << st.s[PAGE_SHIFT]
        if freed:
            st.c[MMC] += 1
