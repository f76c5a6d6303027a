# SPDX-License-Identifier: GPL-2.0-or-later
"""PMD-mapped anon folios: mapping, splitting, and what the range operations do to them.

Mirrors mm/huge_memory.c (6.12, 7.3). ``TABLE_BLOCK`` of a page table holds the
PMD's own entry, in the layout of a PTE, while the PMD maps a folio; the table
is then the deposited one and its entries are zero.
"""

from __future__ import annotations

from replay.arm64.contpte import set_ptes
from replay.arm64.pte import AF, CONT, UFFD, pte_dirty, pte_mkclean, pte_pfn, pte_wrprotect
from replay.arm64.tlbflush import flush_tlb_range
from replay.counters import INDEX
from replay.mm.folio import (
    ADD_NEW,
    AEX,
    DSPLIT,
    PAGE_LINE,
    RMAP_CALL,
    RMW_MAP,
    folio_add_anon_rmap_ptes,
    folio_nr_pages,
)
from replay.mm.mmu_gather import tlb_flush_pmd_range, tlb_remove_page_size
from replay.mm.pgtable import (
    deposit_table,
    move_table,
    pmd_populate,
    pte_free,
)
from replay.state import (
    INFO_AE,
    INFO_PARTIAL,
    INFO_SWAPCACHE,
    LARGE_ENTIRE,
    LARGE_MAPCOUNT,
    LARGE_NR_MAPPED,
    PMD_SHIFT,
    PMD_SIZE,
    PTRS_PER_PTE,
    TABLE_BLOCK,
    TABLE_PMD,
    State,
)
from replay.stream import VMF_SHARED
from tracer.jit import inner

CAS = INDEX["cas"]
LD = INDEX["ld"]
MMC = INDEX["mmc"]
PTL = INDEX["ptl"]
RMW_REF = INDEX["rmw_ref"]
ST = INDEX["st"]
XCHG = INDEX["xchg"]


@inner
def pmd_trans_huge(st: State, table: int) -> bool:
    """The PMD maps a folio, not a table."""
    return table >= 0 and st.table[table, TABLE_BLOCK] != 0


@inner
def flush_pmd_tlb_range(st: State, va: int) -> None:
    """One entry of PMD size, synchronous."""
    start = va - va % st.s[PMD_SIZE]
    flush_tlb_range(st, start, start + st.s[PMD_SIZE], st.s[PTRS_PER_PTE], 1, 0)


@inner
def pmdp_invalidate(st: State, va: int) -> None:
    """Exchange the entry for an invalid one and flush it."""
    st.c[XCHG] += 1
    flush_pmd_tlb_range(st, va)


# --- rmap of whole mappings --------------------------------------------------------


@inner
def _add_new_anon_rmap_pmd(st: State, pfn: int, exclusive: int) -> None:
    st.c[ADD_NEW] += 1
    st.c[RMAP_CALL] += 1
    st.c[PAGE_LINE] += 1
    row = st.largeix[pfn >> 1]
    st.large[row, LARGE_ENTIRE] = 1
    st.large[row, LARGE_MAPCOUNT] = 1
    if exclusive:
        st.info[pfn] = st.info[pfn] | INFO_AE
        st.c[AEX] += 1


@inner
def folio_remove_rmap_pmd(st: State, pfn: int) -> None:
    """Undo a whole mapping; PTE mappings that stay make it a partly mapped folio."""
    st.c[RMAP_CALL] += 1
    st.c[RMW_MAP] += 3
    st.c[PAGE_LINE] += 1
    row = st.largeix[pfn >> 1]
    st.large[row, LARGE_ENTIRE] -= 1
    st.large[row, LARGE_MAPCOUNT] -= 1
    mapped = st.large[row, LARGE_NR_MAPPED]
    if st.large[row, LARGE_ENTIRE] or not 0 < mapped < folio_nr_pages(st, pfn):
        return
    if not st.info[pfn] & INFO_PARTIAL:
        st.c[DSPLIT] += 1
        if not st.info[pfn] & INFO_SWAPCACHE:
            st.info[pfn] = st.info[pfn] | INFO_PARTIAL


@inner
def _dup_anon_rmap_pmd(st: State, pfn: int) -> None:
    """folio_try_dup_anon_rmap_pmd()"""
    st.c[RMAP_CALL] += 1
    st.c[RMW_MAP] += 2
    st.c[PAGE_LINE] += 1
    row = st.largeix[pfn >> 1]
    st.large[row, LARGE_ENTIRE] += 1
    st.large[row, LARGE_MAPCOUNT] += 1
    if st.info[pfn] & INFO_AE:
        st.info[pfn] = st.info[pfn] & (0x7FFF ^ INFO_AE)
        st.c[AEX] += 1


# --- mapping and splitting ------------------------------------------------------------


@inner
def map_huge_anon(st: State, mm: int, va: int, pfn: int, entry: int, exclusive: int) -> None:
    """do_huge_pmd_anonymous_page(): a new folio of PMD size, whose table is deposited."""
    table = deposit_table(st, mm, va)
    st.c[PTL] += 1
    st.c[MMC] += 1
    st.c[ST] += 1
    _add_new_anon_rmap_pmd(st, pfn, exclusive)
    st.table[table, TABLE_BLOCK] = entry


@inner
def split_huge_pmd(st: State, table: int) -> None:
    """__split_huge_pmd_locked() without freeze: the table comes back, filled in one batch."""
    pmd = st.table[table, TABLE_BLOCK]
    if pmd == 0:
        return
    va = st.table[table, TABLE_PMD] << st.s[PMD_SHIFT]
    per = st.s[PTRS_PER_PTE]
    pfn = pte_pfn(pmd)
    pmdp_invalidate(st, va)
    # The table is filled through a PMD entry on the stack, populated like any other.
    pmd_populate(st)
    st.c[RMW_REF] += 1
    folio_add_anon_rmap_ptes(st, pfn, per, st.info[pfn] & INFO_AE)
    st.table[table, TABLE_BLOCK] = 0
    set_ptes(st, table * per, va, pmd, per)
    folio_remove_rmap_pmd(st, pfn)
    st.c[ST] += 1
    pmd_populate(st)


@inner
def split_huge_pmd_locked(st: State, table: int) -> None:
    """The same with its own round of the PMD lock."""
    if pmd_trans_huge(st, table):
        st.c[PTL] += 1
        split_huge_pmd(st, table)


# --- range operations over a whole PMD ---------------------------------------------------


@inner
def zap_huge_pmd(st: State, ctx: int, table: int, va: int) -> bool:
    """Drop the mapping and the deposited table; True when a flush is forced."""
    pfn = pte_pfn(st.table[table, TABLE_BLOCK])
    st.c[PTL] += 1
    st.c[XCHG] += 1
    st.c[MMC] += 1
    tlb_flush_pmd_range(st, ctx, va, st.s[PMD_SIZE])
    folio_remove_rmap_pmd(st, pfn)
    pte_free(st, table)
    return tlb_remove_page_size(st, ctx)


@inner
def unmap_huge_pmd(st: State, table: int) -> None:
    """unmap_huge_pmd_locked(): reclaim drops a clean lazyfree mapping whole."""
    pfn = pte_pfn(st.table[table, TABLE_BLOCK])
    pmdp_invalidate(st, st.table[table, TABLE_PMD] << st.s[PMD_SHIFT])
    st.c[MMC] += 1
    st.c[RMW_REF] += 1
    folio_remove_rmap_pmd(st, pfn)
    pte_free(st, table)


@inner
def copy_huge_pmd(st: State, table: int, dst_mm: int, va: int, vm_flags: int) -> None:
    """Both sides share the folio, write-protected."""
    pmd = st.table[table, TABLE_BLOCK]
    target = deposit_table(st, dst_mm, va)
    st.c[PTL] += 2
    st.c[RMW_REF] += 1
    st.c[MMC] += 1
    st.c[CAS] += 1
    st.c[ST] += 1
    _dup_anon_rmap_pmd(st, pte_pfn(pmd))
    if not vm_flags & VMF_SHARED:
        pmd = pte_wrprotect(pmd)
        st.table[table, TABLE_BLOCK] = pmd
    st.table[target, TABLE_BLOCK] = pmd & ~(AF | UFFD)


@inner
def change_huge_pmd(st: State, ctx: int, table: int, entry: int, flush: bool) -> None:
    """Invalidate, store the new entry, and gather the range once more."""
    va = st.table[table, TABLE_PMD] << st.s[PMD_SHIFT]
    st.c[PTL] += 1
    pmdp_invalidate(st, va)
    st.c[ST] += 1
    st.table[table, TABLE_BLOCK] = entry & ~CONT
    if flush:
        tlb_flush_pmd_range(st, ctx, va, st.s[PMD_SIZE])


@inner
def move_huge_pmd(st: State, mm: int, table: int, new: int) -> None:
    """The entry and its deposited table move; the caller flushes."""
    st.c[PTL] += 2
    st.c[XCHG] += 1
    st.c[ST] += 1
    move_table(st, table, mm, new)


@inner
def madvise_free_huge_pmd(st: State, ctx: int, table: int) -> None:
    """Old and clean, if it was anything else."""
    pmd = st.table[table, TABLE_BLOCK]
    if pmd & AF or pte_dirty(pmd):
        change_huge_pmd(st, ctx, table, pte_mkclean(pmd) & ~AF, True)


@inner
def pmdp_clear_flush_young(st: State, table: int) -> None:
    """Aging of a whole mapping."""
    pmd = st.table[table, TABLE_BLOCK]
    st.c[LD] += 1
    if pmd & AF:
        st.c[CAS] += 1
        st.table[table, TABLE_BLOCK] = pmd & ~AF
        flush_pmd_tlb_range(st, st.table[table, TABLE_PMD] << st.s[PMD_SHIFT])


@inner
def pmd_is_exclusive(st: State, table: int) -> bool:
    """do_huge_pmd_wp_page() may reuse: ours alone, or nobody else maps it."""
    pfn = pte_pfn(st.table[table, TABLE_BLOCK])
    if st.info[pfn] & INFO_AE:
        return True
    return st.large[st.largeix[pfn >> 1], LARGE_MAPCOUNT] == 1
