# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulated machine's memory: flat arrays and the names of their slots.

Everything is int64 so that no unsigned promotion can happen in the kernels;
kernel pointers were replaced by dense indices before they get here, and user
addresses have their top bits clear.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from replay import counters

Int64 = npt.NDArray[np.int64]

# --- State.s: parameters (constant during a run) ----------------------------
PAGE_SHIFT = 0
PAGE_SIZE = 1
PTRS_PER_PTE = 2
PMD_SHIFT = 3
PMD_SIZE = 4
PUD_SIZE = 5
CONT_PTES = 6
CPU_TLBI_RANGE = 7
CPU_LPA2 = 8
CPU_KPTI = 9
CPU_BBML = 10
CPU_REPEAT_TLBI = 11
POLICY = 16  # first of the policy's feature values, in the order of policies.FEATURES
# --- State.s: registers ------------------------------------------------------
FIRST_REGISTER = 80
NR_TABLES = 80  # page tables in use
FREE_TABLE = 81  # head of the free list of page tables, -1 when empty
HASH_USED = 82
NR_LARGE = 83  # rows of State.large in use
SWAP_NEXT = 84  # next swap offset handed out
INFERRED_PAGES = 85  # pages whose mapping had to be inferred
INFERRED_OPS = 86  # operations that needed it
UNKNOWN_OPS = 87  # operations without an implementation
OP_SEEN = 88  # index of the operation being replayed
EXPECT_FORCE = 89  # pages after which a batch page allocation fails, 0: never
FAULT_KIND = 90
DUP_MM = 91  # source mm of a fork whose closing flush is still due, -1 if none
CHECK = 92  # invariants are checked
VIOLATION = 93  # code of the first violated invariant, 0 if none
# page_vma_mapped_walk's struct, one walk at a time
PVMW_MM = 94
PVMW_ADDR = 95
PVMW_END = 96
PVMW_PTE = 97  # index of the current entry, -1 between tables
PVMW_LOCKED = 98
PVMW_PFN = 99
PVMW_NR = 100
PVMW_SYNC = 101
PVMW_MIGRATION = 102
NR_S = 104

# --- State.ga: one row per context (a task): mmu_gather and tlb_ubc -----------
GA_MM = 0
GA_FULLMM = 1
GA_START = 2
GA_END = 3
GA_FREED_TABLES = 4
GA_CLEARED_PTES = 5
GA_CLEARED_PMDS = 6
GA_CLEARED_PUDS = 7
GA_DELAYED_RMAP = 8
GA_NR = 9  # slots used in the active batch
GA_MAX = 10  # slots of the active batch
GA_BATCH = 11  # active batch: 0 the embedded one
GA_BATCHES = 12  # page batches allocated
GA_RUNS = 13  # runs gathered since the last free
GA_ACTIVE = 14
UBC_REQUIRED = 15  # tlb_ubc.flush_required
UBC_WRITABLE = 16  # tlb_ubc.writable
NR_GA = 20

# --- State.mm: one row per mm --------------------------------------------------
MM_PENDING = 0  # low half of mm->tlb_flush_batched
MM_FLUSHED = 1  # high half
MM_PINNED = 2  # MMF_HAS_PINNED
MM_TABLES = 3  # head of the mm's list of tables, -1 when empty
NR_MM = 6

# --- State.table: one row per page table ------------------------------------
TABLE_MM = 0
TABLE_PMD = 1  # va >> PMD_SHIFT
TABLE_NEXT = 2  # next table of the mm, or of the free list
TABLE_PREV = 3
TABLE_BLOCK = 4  # the PMD's own entry while it maps a folio, 0 while it is a table
NR_TABLE = 5

# --- State.info: one uint16 per page -----------------------------------------
INFO_ORDER = 0xF  # folio order, on every page of the folio
INFO_AE = 1 << 4  # PG_anon_exclusive
INFO_ANON = 1 << 5
INFO_SWAPBACKED = 1 << 6
INFO_SWAPCACHE = 1 << 7
INFO_SHMEM = 1 << 8
INFO_PARTIAL = 1 << 9  # partially_mapped, on the deferred split queue
INFO_PINNED = 1 << 10
INFO_HWPOISON = 1 << 11
INFO_LIVE = 1 << 12
INFO_KSM = 1 << 13
INFO_DIRTY = 1 << 14  # PG_dirty of a file folio

# --- State.large: one row per large folio --------------------------------------
LARGE_MAPCOUNT = 0
LARGE_NR_MAPPED = 1
LARGE_ENTIRE = 2
LARGE_SWAP = 3  # first swap offset, -1 when it has none
NR_LARGE_COLS = 4


class State(NamedTuple):
    """Arrays of the simulated machine.

    :ivar c: int64[len(counters.NAMES)], counters of the operation being replayed
    :ivar s: int64[NR_S], parameters and registers
    :ivar pte: int64[tables * PTRS_PER_PTE], page table entries
    :ivar table: int64[tables, NR_TABLE]
    :ivar hash: int64[2**k, 2], (mm, pmd) key to table, open addressing; key -1 is free
    :ivar mapcount: int32[pages], _mapcount + 1
    :ivar info: uint16[pages], folio order and page flags
    :ivar largeix: int32[pages / 2], row of ``large`` of the folio at that page pair
    :ivar large: int32[folios, NR_LARGE_COLS]
    :ivar mm: int64[mms, NR_MM]
    :ivar ga: int64[contexts, NR_GA]
    """

    c: Int64
    s: Int64
    pte: Int64
    table: Int64
    hash: Int64
    mapcount: npt.NDArray[np.int32]
    info: npt.NDArray[np.uint16]
    largeix: npt.NDArray[np.int32]
    large: npt.NDArray[np.int32]
    mm: Int64
    ga: Int64


def allocate(
    *, pages: int, mms: int, contexts: int, tables: int, ptrs_per_pte: int, large: int = 64
) -> State:
    """An empty machine.

    :param pages: page frames, a multiple of 2
    :param tables: page tables to start with; :func:`grow` adds more
    :param large: large folios to start with
    """
    slots = 64
    while slots < 4 * tables:
        slots *= 2
    state = State(
        c=np.zeros(len(counters.NAMES), np.int64),
        s=np.zeros(NR_S, np.int64),
        pte=np.zeros(tables * ptrs_per_pte, np.int64),
        table=np.full((tables, NR_TABLE), -1, np.int64),
        hash=np.full((slots, 2), -1, np.int64),
        mapcount=np.zeros(pages, np.int32),
        info=np.zeros(pages, np.uint16),
        largeix=np.full(pages // 2 + 1, -1, np.int32),
        large=np.zeros((large, NR_LARGE_COLS), np.int32),
        mm=np.zeros((mms, NR_MM), np.int64),
        ga=np.zeros((contexts, NR_GA), np.int64),
    )
    state.mm[:, MM_TABLES] = -1
    state.s[FREE_TABLE] = -1
    state.s[DUP_MM] = -1
    state.ga[:, GA_MM] = -1
    return state


def grow(state: State, *, tables: int, large: int) -> State:
    """A machine with the same contents and room for more tables and large folios."""
    per = int(state.s[PTRS_PER_PTE])
    pte = np.zeros(tables * per, np.int64)
    pte[: state.pte.size] = state.pte
    table = np.full((tables, NR_TABLE), -1, np.int64)
    table[: state.table.shape[0]] = state.table
    rows = np.zeros((large, NR_LARGE_COLS), np.int32)
    rows[: state.large.shape[0]] = state.large
    slots = state.hash.shape[0]
    while slots < 4 * tables:
        slots *= 2
    # Made anew in any case: freed tables leave slots that only a rehash gives back.
    hashed = np.full((slots, 2), -1, np.int64)
    in_use = state.table[: int(state.s[NR_TABLES])]
    rehash(in_use, hashed)
    state.s[HASH_USED] = int((in_use[:, TABLE_MM] >= 0).sum())
    return state._replace(pte=pte, table=table, large=rows, hash=hashed)


def hash_slot(mm: int, pmd: int, slots: int) -> int:
    """Home slot of a (mm, pmd) key; ``slots`` is a power of two."""
    return (pmd * 40503 + mm * 65599) & (slots - 1)


def rehash(table: Int64, hashed: Int64) -> None:
    """Fill an empty hash from the table rows in use."""
    slots = hashed.shape[0]
    for index in range(table.shape[0]):
        mm, pmd = int(table[index, TABLE_MM]), int(table[index, TABLE_PMD])
        if mm < 0:
            continue
        slot = hash_slot(mm, pmd, slots)
        while hashed[slot, 0] >= 0:
            slot = (slot + 1) & (slots - 1)
        hashed[slot, 0] = key(mm, pmd)
        hashed[slot, 1] = index


def key(mm: int, pmd: int) -> int:
    """Hash key of a page table: mm in the high bits, PMD index in the low 34."""
    return (mm << 34) | pmd
