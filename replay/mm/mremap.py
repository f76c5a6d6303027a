# SPDX-License-Identifier: GPL-2.0-or-later
"""move_page_tables(): by entry, by PMD and by PUD (mm/mremap.c)."""

from __future__ import annotations

from replay.arm64.contpte import (
    get_and_clear_full_ptes,
    pte_batch_hint,
    ptep_get,
    set_ptes,
)
from replay.arm64.pte import CONT, SPECIAL, pte_pfn, pte_present
from replay.arm64.tlbflush import flush_tlb_range
from replay.counters import INDEX
from replay.mm.batch import RESPECT_WRITE, folio_pte_batch
from replay.mm.folio import folio_nr_pages
from replay.mm.huge_memory import (
    flush_pmd_tlb_range,
    move_huge_pmd,
    pmd_trans_huge,
    split_huge_pmd_locked,
)
from replay.mm.memory import table_is_empty
from replay.mm.pgtable import (
    index_of,
    move_table,
    pmd_populate,
    pte_alloc,
    pte_free,
    table_of,
)
from replay.mm.rmap import flush_tlb_batched_pending
from replay.policies import FEATURE_INDEX
from replay.state import PAGE_SHIFT, PMD_SIZE, POLICY, PUD_SIZE, State
from tracer.jit import inner

PTL = INDEX["ptl"]
F_BATCH = POLICY + FEATURE_INDEX["mremap_batch"]
F_DEFERRED = POLICY + FEATURE_INDEX["mremap_flush"]


@inner
def _flush(st: State, start: int, end: int) -> bool:
    """Under the PTLs, unless the policy flushes once at the end."""
    if st.s[F_DEFERRED]:
        return True
    flush_tlb_range(st, start, end, 1, 1, 0)
    return False


@inner
def _extent(old: int, end: int, new: int, size: int) -> int:
    """get_extent(): up to the next boundary of either address."""
    extent = min(size - old % size, end - old)
    return min(extent, size - new % size)


@inner
def _move_run(st: State, i: int, pte: int, max_nr: int) -> int:
    """mremap_folio_pte_batch(): only contpte entries are worth a look at the folio."""
    if not st.s[F_BATCH] or max_nr == 1 or pte_batch_hint(st, i, pte) == 1:
        return 1
    if pte & SPECIAL or folio_nr_pages(st, pte_pfn(pte)) == 1:
        return 1
    return folio_pte_batch(st, i, pte, max_nr, RESPECT_WRITE)


@inner
def _move_ptes(st: State, mm: int, source: int, old: int, end: int, new: int) -> bool:
    """move_ptes() over one extent; True when a flush is still due."""
    target = pte_alloc(st, mm, new)
    st.c[PTL] += 2 if target != source else 1
    flush_tlb_batched_pending(st, mm)
    start = old
    present = False
    while old < end:
        i = index_of(st, source, old)
        pte = ptep_get(st, i)
        nr = 1
        if pte != 0:
            if pte_present(pte):
                present = True
                nr = _move_run(st, i, pte, (end - old) >> st.s[PAGE_SHIFT])
            pte = get_and_clear_full_ptes(st, i, old, nr)
            if pte_present(pte):
                pte &= ~CONT
            set_ptes(st, index_of(st, target, new), new, pte, nr)
        old += nr << st.s[PAGE_SHIFT]
        new += nr << st.s[PAGE_SHIFT]
    return present and _flush(st, start, end)


@inner
def _move_normal_pmd(st: State, mm: int, old: int, new: int) -> int:
    """Hang the table over: 0 not possible, 1 flushed, 2 flush still due."""
    if table_of(st, mm, new) >= 0:
        return 0
    table = table_of(st, mm, old)
    if pmd_trans_huge(st, table):
        move_huge_pmd(st, mm, table, new)
        if st.s[F_DEFERRED]:
            return 2
        flush_pmd_tlb_range(st, old)
        return 1
    # The lock is the PMD table's, one for the PMDs of a PUD.
    st.c[PTL] += 1 if old // st.s[PUD_SIZE] == new // st.s[PUD_SIZE] else 2
    move_table(st, table, mm, new)
    pmd_populate(st)
    return 2 if _flush(st, old, old + st.s[PMD_SIZE]) else 1


@inner
def _move_normal_pud(st: State, mm: int, old: int, new: int) -> int:
    """Every table of a PUD at once: 0 not possible, 1 flushed, 2 flush due, 3 nothing there."""
    size = st.s[PMD_SIZE]
    found = 0
    offset = 0
    while offset < st.s[PUD_SIZE]:
        if table_of(st, mm, new + offset) >= 0:
            return 0
        if table_of(st, mm, old + offset) >= 0:
            found += 1
        offset += size
    if not found:
        return 3
    st.c[PTL] += 1  # page_table_lock, for every PUD
    offset = 0
    while offset < st.s[PUD_SIZE]:
        table = table_of(st, mm, old + offset)
        if table >= 0:
            move_table(st, table, mm, new + offset)
        offset += size
    pmd_populate(st)  # pud_populate() waits in the same way
    return 2 if _flush(st, old, old + st.s[PUD_SIZE]) else 1


@inner
def _drop_empty_target(st: State, mm: int, new: int) -> None:
    """A table that the kernel freed unseen would stop a PMD move; an empty one is not there."""
    table = table_of(st, mm, new)
    if table >= 0 and table_is_empty(st, table):
        pte_free(st, table)


@inner
def move_page_tables(st: State, mm: int, old: int, end: int, new: int) -> None:
    """Move [old, end) to ``new``, by the largest aligned step at each point."""
    start = old
    due = False
    while old < end:
        extent = _extent(old, end, new, st.s[PUD_SIZE])
        if extent == st.s[PUD_SIZE]:
            moved = _move_normal_pud(st, mm, old, new)
            if moved:
                due = due or moved == 2
                old += extent
                new += extent
                continue
        extent = _extent(old, end, new, st.s[PMD_SIZE])
        table = table_of(st, mm, old)
        if table >= 0:
            moved = 0
            if extent == st.s[PMD_SIZE]:
                _drop_empty_target(st, mm, new)
                moved = _move_normal_pmd(st, mm, old, new)
                due = due or moved == 2
            if not moved:
                split_huge_pmd_locked(st, table)
                due = _move_ptes(st, mm, table, old, old + extent, new) or due
        old += extent
        new += extent
    if due:
        flush_tlb_range(st, start, end, 1, 1, 0)
