# SPDX-License-Identifier: GPL-2.0-or-later
"""page_vma_mapped_walk(): the rmap walkers' way from a folio to its entries.

Mirrors mm/page_vma_mapped.c (6.12, 7.3). The walk's struct lives in
``State.s``; there is one walk at a time.
"""

from __future__ import annotations

from replay.arm64.contpte import ptep_get, ptep_get_lockless
from replay.arm64.pte import (
    KIND_MASK,
    PFN_MASK,
    PFN_SHIFT,
    SPECIAL,
    is_migration,
    pte_pfn,
    pte_present,
)
from replay.counters import INDEX
from replay.mm.huge_memory import pmd_trans_huge
from replay.mm.pgtable import index_of, table_of
from replay.policies import FEATURE_INDEX
from replay.state import (
    PAGE_SIZE,
    PMD_SHIFT,
    PMD_SIZE,
    POLICY,
    PVMW_ADDR,
    PVMW_END,
    PVMW_LOCKED,
    PVMW_MIGRATION,
    PVMW_MM,
    PVMW_NR,
    PVMW_PFN,
    PVMW_PTE,
    PVMW_SYNC,
    TABLE_BLOCK,
    State,
)
from tracer.jit import inner

WALK = INDEX["walk"]
CHECK_PTE = INDEX["check_pte"]
PTL = INDEX["ptl"]
F_LOCKLESS = POLICY + FEATURE_INDEX["pvmw_lockless"]


@inner
def walk_start(
    st: State, mm: int, va: int, end: int, pfn: int, nr: int, sync: int, migration: int
) -> None:
    """Aim the walk at the entries of [va, end) that map frames [pfn, pfn + nr)."""
    st.s[PVMW_MM] = mm
    st.s[PVMW_ADDR] = va
    st.s[PVMW_END] = end
    st.s[PVMW_PTE] = -1
    st.s[PVMW_LOCKED] = 0
    st.s[PVMW_PFN] = pfn
    st.s[PVMW_NR] = nr
    st.s[PVMW_SYNC] = sync
    st.s[PVMW_MIGRATION] = migration


@inner
def _lock(st: State) -> None:
    if not st.s[PVMW_LOCKED]:
        st.s[PVMW_LOCKED] = 1
        st.c[PTL] += 1


@inner
def walk_done(st: State) -> None:
    """page_vma_mapped_walk_done()"""
    st.s[PVMW_PTE] = -1
    st.s[PVMW_LOCKED] = 0


@inner
def _read(st: State, i: int) -> int:
    """The walker's read before it holds the lock."""
    if st.s[F_LOCKLESS] and not st.s[PVMW_LOCKED]:
        return ptep_get_lockless(st, i)
    return ptep_get(st, i)


@inner
def _map_pte(st: State) -> bool:
    """map_pte(): take the lock; without PVMW_SYNC only where the first entry looks right."""
    if st.s[PVMW_SYNC]:
        _lock(st)
        return True
    pte = _read(st, st.s[PVMW_PTE])
    if st.s[PVMW_MIGRATION]:
        wanted = not pte_present(pte) and (pte & KIND_MASK) != 0
    else:
        wanted = pte_present(pte)
    if wanted:
        _lock(st)
    return wanted


@inner
def _check_pte(st: State) -> bool:
    st.c[CHECK_PTE] += 1
    pte = ptep_get(st, st.s[PVMW_PTE])
    if st.s[PVMW_MIGRATION]:
        if not is_migration(pte):
            return False
        pfn = (pte & PFN_MASK) >> PFN_SHIFT
    else:
        # The shared zero page belongs to no folio.
        if not pte_present(pte) or pte & SPECIAL:
            return False
        pfn = pte_pfn(pte)
    return st.s[PVMW_PFN] <= pfn < st.s[PVMW_PFN] + st.s[PVMW_NR]


@inner
def _next_pte(st: State) -> int:
    """Step to the next entry that is not none: 1 there, 0 end of range, 2 next table."""
    while True:
        st.s[PVMW_ADDR] += st.s[PAGE_SIZE]
        if st.s[PVMW_ADDR] >= st.s[PVMW_END]:
            walk_done(st)
            return 0
        if st.s[PVMW_ADDR] % st.s[PMD_SIZE] == 0:
            walk_done(st)
            return 2
        st.s[PVMW_PTE] += 1
        if _read(st, st.s[PVMW_PTE]) != 0:
            _lock(st)
            return 1


@inner
def _find_table(st: State) -> bool:
    """The restart label: first table at or after the address."""
    shift = st.s[PMD_SHIFT]
    while st.s[PVMW_ADDR] < st.s[PVMW_END]:
        table = table_of(st, st.s[PVMW_MM], st.s[PVMW_ADDR])
        if table >= 0:
            st.s[PVMW_PTE] = index_of(st, table, st.s[PVMW_ADDR])
            return True
        st.s[PVMW_ADDR] = ((st.s[PVMW_ADDR] >> shift) + 1) << shift
    return False


@inner
def _map_pmd(st: State, table: int) -> bool:
    """The PMD maps a folio: found, if it is this one."""
    st.s[PVMW_PTE] = -1
    st.c[PTL] += 1
    pfn = pte_pfn(st.table[table, TABLE_BLOCK])
    found = st.s[PVMW_PFN] <= pfn < st.s[PVMW_PFN] + st.s[PVMW_NR]
    return found and not st.s[PVMW_MIGRATION]


@inner
def page_vma_mapped_walk(st: State) -> bool:
    """Next entry that maps the folio, in PVMW_PTE and PVMW_ADDR; False at the end.

    PVMW_PTE is -1 where a PMD maps the folio; the next call looks there again.
    """
    st.c[WALK] += 1
    stepping = st.s[PVMW_PTE] >= 0
    while True:
        if not stepping:
            if not _find_table(st):
                return False
            table = table_of(st, st.s[PVMW_MM], st.s[PVMW_ADDR])
            if pmd_trans_huge(st, table):
                return _map_pmd(st, table)
            stepping = True
            if _map_pte(st) and _check_pte(st):
                return True
        step = _next_pte(st)
        if step == 0:
            return False
        if step == 2:
            stepping = False
        elif _check_pte(st):
            return True
