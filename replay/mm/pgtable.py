# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables of every mm: finding, allocating and freeing PTE tables.

Only the last level is kept entry by entry; upper levels are a hash from
(mm, PMD index) to the table.
"""

from __future__ import annotations

from replay.counters import INDEX
from replay.policies import FEATURE_INDEX
from replay.state import (
    FREE_TABLE,
    HASH_USED,
    MM_TABLES,
    NR_TABLES,
    PAGE_SHIFT,
    PMD_SHIFT,
    POLICY,
    PTRS_PER_PTE,
    TABLE_BLOCK,
    TABLE_MM,
    TABLE_NEXT,
    TABLE_PMD,
    TABLE_PREV,
    State,
)
from tracer.jit import inner

TOMBSTONE = -2
DSB_ISHST = INDEX["dsb_ishst"]
F_BROADCAST = POLICY + FEATURE_INDEX["broadcast_tlbi"]


@inner
def _home(st: State, mm: int, pmd: int) -> int:
    return (pmd * 40503 + mm * 65599) & (st.hash.shape[0] - 1)


@inner
def _slot(st: State, mm: int, pmd: int) -> int:
    """Slot of the key, or -1."""
    mask = st.hash.shape[0] - 1
    slot = _home(st, mm, pmd)
    want = (mm << 34) | pmd
    while st.hash[slot, 0] != -1:
        if st.hash[slot, 0] == want:
            return slot
        slot = (slot + 1) & mask
    return -1


@inner
def table_of(st: State, mm: int, va: int) -> int:
    """Table that maps ``va``, or -1."""
    slot = _slot(st, mm, va >> st.s[PMD_SHIFT])
    return st.hash[slot, 1] if slot >= 0 else -1


@inner
def _insert(st: State, mm: int, pmd: int, table: int) -> None:
    mask = st.hash.shape[0] - 1
    slot = _home(st, mm, pmd)
    while st.hash[slot, 0] >= 0:
        slot = (slot + 1) & mask
    if st.hash[slot, 0] == -1:
        st.s[HASH_USED] += 1
    st.hash[slot, 0] = (mm << 34) | pmd
    st.hash[slot, 1] = table
    st.table[table, TABLE_MM] = mm
    st.table[table, TABLE_PMD] = pmd
    head = st.mm[mm, MM_TABLES]
    st.table[table, TABLE_NEXT] = head
    st.table[table, TABLE_PREV] = -1
    if head >= 0:
        st.table[head, TABLE_PREV] = table
    st.mm[mm, MM_TABLES] = table


@inner
def _detach(st: State, table: int) -> None:
    """Take a table out of the hash and of its mm's list."""
    mm = st.table[table, TABLE_MM]
    slot = _slot(st, mm, st.table[table, TABLE_PMD])
    st.hash[slot, 0] = TOMBSTONE
    before, after = st.table[table, TABLE_PREV], st.table[table, TABLE_NEXT]
    if before >= 0:
        st.table[before, TABLE_NEXT] = after
    else:
        st.mm[mm, MM_TABLES] = after
    if after >= 0:
        st.table[after, TABLE_PREV] = before


@inner
def pmd_populate(st: State) -> None:
    """set_pmd() of a table waits until the walker can see it: DSB ISHST, arm64 only."""
    if st.s[F_BROADCAST]:
        st.c[DSB_ISHST] += 1


@inner
def pte_alloc(st: State, mm: int, va: int) -> int:
    """Table that maps ``va``, allocated empty when there is none.

    The caller has made sure that a free table is left.
    """
    table = table_of(st, mm, va)
    if table >= 0:
        return table
    pmd_populate(st)
    return deposit_table(st, mm, va)


@inner
def deposit_table(st: State, mm: int, va: int) -> int:
    """An empty table for ``va`` that nothing points to yet; there must be none so far."""
    table = st.s[FREE_TABLE]
    if table >= 0:
        st.s[FREE_TABLE] = st.table[table, TABLE_NEXT]
    else:
        table = st.s[NR_TABLES]
        st.s[NR_TABLES] += 1
    st.table[table, TABLE_BLOCK] = 0
    _insert(st, mm, va >> st.s[PMD_SHIFT], table)
    return table


@inner
def pte_free(st: State, table: int) -> None:
    """Give a table back; its entries are cleared."""
    per = st.s[PTRS_PER_PTE]
    st.pte[table * per : (table + 1) * per] = 0
    _detach(st, table)
    st.table[table, TABLE_MM] = -1
    st.table[table, TABLE_NEXT] = st.s[FREE_TABLE]
    st.s[FREE_TABLE] = table


@inner
def move_table(st: State, table: int, mm: int, va: int) -> None:
    """Hang a table under another PMD (move_normal_pmd())."""
    _detach(st, table)
    _insert(st, mm, va >> st.s[PMD_SHIFT], table)


@inner
def index_of(st: State, table: int, va: int) -> int:
    """Index into State.pte of the entry of ``va``."""
    per = st.s[PTRS_PER_PTE]
    return table * per + ((va >> st.s[PAGE_SHIFT]) & (per - 1))


@inner
def pmd_addr_end(st: State, va: int, end: int) -> int:
    """End of the table that maps ``va``, or ``end`` if that comes first."""
    shift = st.s[PMD_SHIFT]
    return min(((va >> shift) + 1) << shift, end)


@inner
def ptep(st: State, mm: int, va: int) -> int:
    """Index into State.pte of the entry of ``va``, or -1 without a table."""
    table = table_of(st, mm, va)
    return index_of(st, table, va) if table >= 0 else -1
