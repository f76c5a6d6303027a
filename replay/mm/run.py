# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop over the op stream: one record, one kernel function, one counter vector."""

from __future__ import annotations

from replay.arm64.contpte import set_ptes
from replay.arm64.pte import is_migration, pte_present
from replay.mm.check import check_gather, check_range
from replay.mm.fault import (
    access,
    do_swap_page,
    do_wp_page,
    map_new_anon,
    rmap_of_mapped,
    set_pte_range,
    user_pte,
    wp_page_copy,
    wp_page_reuse,
)
from replay.mm.folio import folio_flag, folio_head, folio_new, folio_order
from replay.mm.huge_memory import pmd_trans_huge, split_huge_pmd_locked
from replay.mm.madvise import COLD, FREE, PAGEOUT, madvise_pte_range
from replay.mm.memory import copy_page_range, dup_mmap_end, table_is_empty, zap_vma_range
from replay.mm.migrate import remove_migration_pte, try_to_migrate_one
from replay.mm.mmu_gather import pte_free_tlb, tlb_end_vma, tlb_finish_mmu, tlb_gather_mmu
from replay.mm.mprotect import MM_CP_UFFD_WP, change_protection
from replay.mm.mremap import move_page_tables
from replay.mm.pgtable import index_of, pmd_addr_end, pte_alloc, pte_free, ptep, table_of
from replay.mm.rmap import (
    folio_referenced_one,
    try_to_unmap_flush,
    try_to_unmap_flush_dirty,
    try_to_unmap_one,
)
from replay.state import (
    CHECK,
    GA_ACTIVE,
    GA_CLEARED_PMDS,
    GA_CLEARED_PTES,
    GA_CLEARED_PUDS,
    GA_END,
    GA_FREED_TABLES,
    GA_FULLMM,
    GA_START,
    HASH_USED,
    INFERRED_OPS,
    INFERRED_PAGES,
    INFO_AE,
    INFO_ANON,
    INFO_LIVE,
    INFO_SWAPBACKED,
    INFO_SWAPCACHE,
    LARGE_MAPCOUNT,
    LARGE_NR_MAPPED,
    MM_FLUSHED,
    MM_PENDING,
    MM_TABLES,
    NR_LARGE,
    NR_TABLES,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SHIFT,
    PMD_SIZE,
    UNKNOWN_OPS,
    VIOLATION,
    Int64,
    State,
)
from replay.stream import (
    CODES,
    F_ARG,
    F_CODE,
    F_CTX,
    F_END,
    F_FLAGS,
    F_GROUP,
    F_INFO,
    F_LIMIT,
    F_MM,
    F_NR,
    F_ORDER,
    F_PFN,
    F_VA,
    F_VMEND,
    F_VMF,
    VMF_WRITE,
)
from tracer.jit import entry, inner

DO_ANONYMOUS_PAGE = CODES["do_anonymous_page"]
SET_PTE_RANGE = CODES["set_pte_range"]
ADD_NEW_ANON = CODES["folio_add_new_anon_rmap"]
WP_PAGE_COPY = CODES["wp_page_copy"]
WP_PAGE_REUSE = CODES["wp_page_reuse"]
DO_SWAP_PAGE = CODES["do_swap_page"]
TRY_TO_UNMAP_ONE = CODES["try_to_unmap_one"]
TRY_TO_UNMAP_FLUSH = CODES["try_to_unmap_flush"]
TRY_TO_UNMAP_FLUSH_DIRTY = CODES["try_to_unmap_flush_dirty"]
FOLIO_REFERENCED_ONE = CODES["folio_referenced_one"]
ZAP = CODES["zap_page_range"]
TLB_FINISH_MMU = CODES["tlb_finish_mmu"]
COPY_PAGE_RANGE = CODES["copy_page_range"]
DUP_MMAP_END = CODES["dup_mmap_end"]
CHANGE_PROTECTION = CODES["change_protection"]
MOVE_PAGE_TABLES = CODES["move_page_tables"]
MADVISE_COLD = CODES["madvise_cold"]
MADVISE_PAGEOUT = CODES["madvise_pageout"]
MADVISE_FREE = CODES["madvise_free"]
TRY_TO_MIGRATE_ONE = CODES["try_to_migrate_one"]
REMOVE_MIGRATION_PTE = CODES["remove_migration_pte"]
EXIT_MMAP = CODES["exit_mmap"]
ACCESS = CODES["access"]
INFER_MAP = CODES["infer_map"]
INFER_ACCESS = CODES["infer_access"]
DO_WP_PAGE = CODES["do_wp_page"]
SPLIT_HUGE_PMD = CODES["split_huge_pmd"]
INFER_ACCESS = CODES["infer_access"]

# Bits of tlb_finish_mmu's captured bit field, struct mmu_gather: fullmm first.
GATHER_FULLMM = 1
GATHER_FREED_TABLES = 1 << 2
GATHER_CLEARED_PTES = 1 << 4
GATHER_CLEARED_PMDS = 1 << 5
GATHER_CLEARED_PUDS = 1 << 6
# Of a generated stream: free_pgtables() frees what tables there are in [va, end), and the
# tables above them from ``arg`` on, if that is not 0. Above every bit of the kernel's.
GATHER_FREE_PGTABLES = 1 << 40

# Why run() stopped early.
NEED_ROOM = -1


# --- state that the capture does not show --------------------------------------------


@inner
def _maps_any(st: State, mm: int, va: int, end: int) -> bool:
    """An entry of the range maps something, or is a migration entry."""
    step = 1 << st.s[PAGE_SHIFT]
    while va < end:
        i = ptep(st, mm, va)
        if pmd_trans_huge(st, table_of(st, mm, va)):
            return True
        if i < 0:
            va = pmd_addr_end(st, va, end)
            continue
        pte = st.pte[i]
        if pte_present(pte) or is_migration(pte):
            return True
        va += step
    return False


@inner
def infer_map(
    st: State, mm: int, va: int, end: int, pfn: int, order: int, info: int, vm_flags: int
) -> None:
    """Map a folio that was mapped before the capture began: young and dirty, one batch a table.

    The caller discards the counters; the pages are counted as inferred.
    """
    head = pfn & -(1 << order)
    if not st.info[head] & INFO_LIVE or folio_order(st, head) != order:
        folio_new(st, head, order, info | INFO_LIVE)
    anon = info & INFO_ANON
    while va < end:
        stop = pmd_addr_end(st, va, end)
        nr = (stop - va) >> st.s[PAGE_SHIFT]
        table = pte_alloc(st, mm, va)
        write = vm_flags & VMF_WRITE if anon else 0
        set_ptes(st, index_of(st, table, va), va, user_pte(pfn, vm_flags, write, 1), nr)
        for page in range(pfn, pfn + nr):
            if order and st.mapcount[page] == 0:
                st.large[st.largeix[head >> 1], LARGE_NR_MAPPED] += 1
            st.mapcount[page] += 1
            if anon:
                st.info[page] = st.info[page] | INFO_AE
        if order:
            st.large[st.largeix[head >> 1], LARGE_MAPCOUNT] += nr
        st.s[INFERRED_PAGES] += nr
        pfn += nr
        va = stop
    st.s[INFERRED_OPS] += 1


@inner
def _infer_for_rmap(st: State, op: Int64) -> None:
    """A reclaim or migration of a folio that is mapped nowhere here: it was, before."""
    order = op[F_ORDER]
    nr = (1 << order) - (op[F_PFN] & ((1 << order) - 1))
    end = op[F_VA] + (nr << st.s[PAGE_SHIFT])
    if op[F_VMEND] > op[F_VA]:
        end = min(end, op[F_VMEND])
    if not _maps_any(st, op[F_MM], op[F_VA], end):
        info = op[F_INFO]
        infer_map(st, op[F_MM], op[F_VA], end, op[F_PFN], order, info, op[F_VMF])


@inner
def _infer(st: State, op: Int64) -> None:
    """Establish state that the operation needs and the capture does not show; free of counts."""
    code = op[F_CODE]
    if code == TRY_TO_UNMAP_ONE or code == TRY_TO_MIGRATE_ONE or code == FOLIO_REFERENCED_ONE:
        _infer_for_rmap(st, op)
    elif code == INFER_MAP and not _maps_any(st, op[F_MM], op[F_VA], op[F_END]):
        infer_map(st, op[F_MM], op[F_VA], op[F_END], op[F_PFN], op[F_ORDER], op[F_INFO], op[F_VMF])


@inner
def _infer_for_fault(st: State, op: Int64) -> None:
    """A write-protect fault on an entry that is not there; nothing is known of its page."""
    table = pte_alloc(st, op[F_MM], op[F_VA])
    if st.pte[index_of(st, table, op[F_VA])] == 0:
        st.s[INFERRED_OPS] += 1


@inner
def _folio_flags(st: State, op: Int64) -> None:
    """Take over the flags that the event recorded for a folio that is known here."""
    head = folio_head(st, op[F_PFN])
    if op[F_INFO] < 0 or not st.info[head] & INFO_LIVE:
        return
    if not st.info[head] & INFO_ANON:
        return
    folio_flag(st, head, INFO_SWAPBACKED, op[F_INFO] & INFO_SWAPBACKED)
    folio_flag(st, head, INFO_SWAPCACHE, op[F_INFO] & INFO_SWAPCACHE)


# --- tear-down ---------------------------------------------------------------------


@inner
def _free_range_tables(st: State, mm: int, start: int, end: int) -> None:
    """Free the empty tables of a range, the pages of free_pgtables()."""
    va = start
    while va < end:
        table = table_of(st, mm, va)
        if table >= 0 and table_is_empty(st, table):
            pte_free(st, table)
        va = ((va >> st.s[PMD_SHIFT]) + 1) << st.s[PMD_SHIFT]


@inner
def _free_all_tables(st: State, mm: int) -> None:
    while st.mm[mm, MM_TABLES] >= 0:
        pte_free(st, st.mm[mm, MM_TABLES])


@inner
def _free_pgtables(st: State, op: Int64) -> None:
    """Free the tables of a range that no other VMA needs; a PMD's folio has none."""
    ctx, mm, va = op[F_CTX], op[F_MM], op[F_VA]
    while va < op[F_END]:
        table = table_of(st, mm, va)
        if table >= 0 and not pmd_trans_huge(st, table):
            pte_free(st, table)
            pte_free_tlb(st, ctx, va)
        va += st.s[PMD_SIZE]
    if op[F_ARG]:
        st.ga[ctx, GA_FREED_TABLES] = 1
        st.ga[ctx, GA_CLEARED_PUDS] = 1
        st.ga[ctx, GA_START] = min(st.ga[ctx, GA_START], op[F_ARG])
        st.ga[ctx, GA_END] = max(st.ga[ctx, GA_END], op[F_ARG] + st.s[PAGE_SIZE])


@inner
def _finish_gather(st: State, op: Int64) -> None:
    """tlb_finish_mmu() with what the capture saw gathered at its entry.

    Freed page tables are known from there only: which neighbours keep a table
    alive is not in a capture of mappings.
    """
    ctx, mm, bits = op[F_CTX], op[F_MM], op[F_FLAGS]
    tlb_gather_mmu(st, ctx, mm, bits & GATHER_FULLMM)
    if bits & GATHER_FREE_PGTABLES:
        _free_pgtables(st, op)
    if bits & GATHER_FULLMM:
        st.ga[ctx, GA_FULLMM] = 1
    if bits & GATHER_FREED_TABLES:
        st.ga[ctx, GA_FREED_TABLES] = 1
        st.ga[ctx, GA_START] = min(st.ga[ctx, GA_START], op[F_VA])
        st.ga[ctx, GA_END] = max(st.ga[ctx, GA_END], op[F_END])
        if bits & GATHER_CLEARED_PTES:
            st.ga[ctx, GA_CLEARED_PTES] = 1
        if bits & GATHER_CLEARED_PMDS:
            st.ga[ctx, GA_CLEARED_PMDS] = 1
        if bits & GATHER_CLEARED_PUDS:
            st.ga[ctx, GA_CLEARED_PUDS] = 1
        if not bits & GATHER_FULLMM:
            _free_range_tables(st, mm, op[F_VA], op[F_END])
    tlb_finish_mmu(st, ctx)
    if bits & GATHER_FULLMM:
        _free_all_tables(st, mm)
        st.mm[mm, MM_PENDING] = 0
        st.mm[mm, MM_FLUSHED] = 0


# --- dispatch ------------------------------------------------------------------------


@inner
def _map_op(st: State, op: Int64) -> bool:
    """Faults; True when the code was one of theirs."""
    code, mm, va, pfn = op[F_CODE], op[F_MM], op[F_VA], op[F_PFN]
    vmf, order, nr, flags = op[F_VMF], op[F_ORDER], op[F_NR], op[F_FLAGS]
    if code == DO_ANONYMOUS_PAGE:
        map_new_anon(st, mm, va, pfn, order, vmf, flags & 1)
    elif code == ADD_NEW_ANON:
        if not rmap_of_mapped(st, mm, va, pfn):
            map_new_anon(st, mm, va, pfn, order, vmf, flags & 1)
    elif code == SET_PTE_RANGE:
        set_pte_range(st, mm, va, pfn, nr, order, flags, vmf, op[F_INFO])
    elif code == WP_PAGE_COPY:
        _infer_for_fault(st, op)
        wp_page_copy(st, mm, va, pfn, order, vmf)
    elif code == WP_PAGE_REUSE:
        _infer_for_fault(st, op)
        wp_page_reuse(st, mm, va, vmf)
    elif code == DO_SWAP_PAGE:
        do_swap_page(st, mm, va, pfn, nr, order, vmf, flags, op[F_ARG])
    elif code == DO_WP_PAGE:
        do_wp_page(st, mm, va, pfn, vmf)
    elif code == SPLIT_HUGE_PMD:
        split_huge_pmd_locked(st, table_of(st, mm, va))
    elif code == ACCESS:
        access(st, mm, va, nr, flags & 1)
    elif code == INFER_ACCESS:
        access(st, mm, va, nr, 0)
        st.s[INFERRED_OPS] += 1
    elif code != INFER_MAP:
        return False
    return True


@inner
def _rmap_op(st: State, op: Int64) -> bool:
    """Reclaim, aging, migration."""
    code, ctx, mm, va, pfn = op[F_CODE], op[F_CTX], op[F_MM], op[F_VA], op[F_PFN]
    if code == TRY_TO_UNMAP_ONE:
        _folio_flags(st, op)
        try_to_unmap_one(st, ctx, mm, pfn, va, op[F_VMEND], op[F_VMF], op[F_FLAGS], op[F_LIMIT])
    elif code == TRY_TO_UNMAP_FLUSH:
        try_to_unmap_flush(st, ctx)
    elif code == TRY_TO_UNMAP_FLUSH_DIRTY:
        try_to_unmap_flush_dirty(st, ctx)
    elif code == FOLIO_REFERENCED_ONE:
        folio_referenced_one(st, mm, pfn, va, op[F_VMEND])
    elif code == TRY_TO_MIGRATE_ONE:
        try_to_migrate_one(st, ctx, mm, pfn, va, op[F_VMEND], op[F_FLAGS])
    elif code == REMOVE_MIGRATION_PTE:
        remove_migration_pte(
            st, mm, pfn, op[F_ORDER], va, op[F_VMEND], op[F_VMF], op[F_INFO],
            1 if op[F_LIMIT] == 0 else 0,
        )  # fmt: skip
    else:
        return False
    return True


@inner
def _range_op(st: State, op: Int64) -> bool:
    """Operations on an address range."""
    code, ctx, mm, va, end = op[F_CODE], op[F_CTX], op[F_MM], op[F_VA], op[F_END]
    if code == ZAP:
        zap_vma_range(st, ctx, mm, va, end, op[F_VMF], op[F_FLAGS])
    elif code == TLB_FINISH_MMU:
        _finish_gather(st, op)
    elif code == COPY_PAGE_RANGE:
        copy_page_range(st, mm, op[F_ARG], va, end, op[F_VMF])
    elif code == DUP_MMAP_END:
        dup_mmap_end(st)
    elif code == CHANGE_PROTECTION:
        change_protection(st, ctx, mm, va, end, op[F_VMF], op[F_FLAGS])
    elif code == MOVE_PAGE_TABLES:
        move_page_tables(st, mm, va, end, op[F_ARG])
    elif code == MADVISE_COLD or code == MADVISE_PAGEOUT or code == MADVISE_FREE:
        what = COLD if code == MADVISE_COLD else (PAGEOUT if code == MADVISE_PAGEOUT else FREE)
        madvise_pte_range(st, ctx, mm, va, end, what, op[F_ARG])
        if op[F_NR] == 0:  # the VMA's last PMD
            tlb_end_vma(st, ctx)
    elif code == EXIT_MMAP:
        st.ga[ctx, GA_ACTIVE] = 0
        tlb_gather_mmu(st, ctx, mm, 1)
    else:
        return False
    return True


@inner
def _check(st: State, op: Int64) -> int:
    """Invariants around what the operation touched; 0 or a violation code."""
    bad = check_gather(st, op[F_CTX])
    # A private write fault writes its entry before folio_add_new_anon_rmap() counts it.
    if bad or op[F_CODE] == SET_PTE_RANGE:
        return bad
    end = max(op[F_END], op[F_VA] + (op[F_NR] << st.s[PAGE_SHIFT]))
    if op[F_VA] == 0 or op[F_CODE] == EXIT_MMAP or op[F_CODE] == TLB_FINISH_MMU:
        return 0
    bad = check_range(st, op[F_MM], op[F_VA], end)
    if not bad and op[F_CODE] == COPY_PAGE_RANGE:
        bad = check_range(st, op[F_ARG], op[F_VA], end)
    elif not bad and op[F_CODE] == MOVE_PAGE_TABLES:
        bad = check_range(st, op[F_MM], op[F_ARG], op[F_ARG] + end - op[F_VA])
    return bad


@inner
def _has_room(st: State, op: Int64) -> bool:
    """Enough free tables, large folio rows and hash slots for any one operation."""
    used = st.s[NR_TABLES]
    free = st.table.shape[0] - used
    need = 8
    if op[F_CODE] == COPY_PAGE_RANGE:
        need += ((op[F_END] - op[F_VA]) >> st.s[PMD_SHIFT]) + 2
        need = min(need, used + 8)
    elif op[F_CODE] == MOVE_PAGE_TABLES:
        need += ((op[F_END] - op[F_VA]) >> st.s[PMD_SHIFT]) + 4
        need = min(need, 2 * used + 8)
    elif op[F_CODE] == CHANGE_PROTECTION and op[F_FLAGS] & MM_CP_UFFD_WP:
        # Markers need tables where nothing is mapped.
        need += ((op[F_END] - op[F_VA]) >> st.s[PMD_SHIFT]) + 4
    elif op[F_CODE] == INFER_MAP:
        need += 2 * (((op[F_END] - op[F_VA]) >> st.s[PMD_SHIFT]) + 2)
    if free < need or st.large.shape[0] - st.s[NR_LARGE] < 4:
        return False
    return 4 * (st.s[HASH_USED] + need) < 3 * st.hash.shape[0]


@entry
def run(st: State, ops: Int64, first: int, out: Int64) -> int:
    """Replay ops[first:]; add each operation's counters to its row of ``out``.

    :param ops: int64[n, NR_FIELDS]
    :param out: int64[groups, counters]
    :return: n when done, else the index of the operation that needs more room or, with
        State.s[VIOLATION] set, that broke an invariant
    """
    n = ops.shape[0]
    for index in range(first, n):
        op = ops[index]
        if not _has_room(st, op):
            return index
        _infer(st, op)
        st.c[:] = 0
        if not (_map_op(st, op) or _rmap_op(st, op) or _range_op(st, op)):
            st.s[UNKNOWN_OPS] += 1
        row = out[op[F_GROUP]]
        for k in range(row.shape[0]):
            row[k] += st.c[k]
        if st.s[CHECK]:
            st.s[VIOLATION] = _check(st, op)
            if st.s[VIOLATION]:
                return index
    return n
