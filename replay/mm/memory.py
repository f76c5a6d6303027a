# SPDX-License-Identifier: GPL-2.0-or-later
"""Zap and fork: the loops of mm/memory.c that tear down and copy page tables."""

from __future__ import annotations

from replay.arm64.contpte import (
    clear_full_ptes,
    get_and_clear_full_ptes,
    pte_clear,
    ptep_get,
    ptep_get_and_clear,
    raw_get,
    set_pte_at,
    set_ptes,
    wrprotect_ptes,
)
from replay.arm64.pte import (
    AF,
    CONT,
    KIND_MASK,
    MARKER_GUARD,
    MARKER_UFFD,
    MIGRATION_READ,
    NP_EXCLUSIVE,
    NP_UFFD,
    PFN_SHIFT,
    SPECIAL,
    UFFD,
    WRITE,
    is_migration,
    is_swap,
    pte_dirty,
    pte_mkclean,
    pte_mkwrite,
    pte_pfn,
    pte_present,
    pte_wrprotect,
)
from replay.arm64.tlbflush import flush_tlb_mm
from replay.counters import INDEX
from replay.mm.batch import RESPECT_DIRTY, folio_pte_batch
from replay.mm.folio import (
    folio_dup_rmap_ptes,
    folio_flag,
    folio_head,
    folio_nr_pages,
    folio_remove_rmap_ptes,
)
from replay.mm.huge_memory import (
    copy_huge_pmd,
    pmd_trans_huge,
    split_huge_pmd_locked,
    zap_huge_pmd,
)
from replay.mm.mmu_gather import (
    pte_free_tlb,
    tlb_end_vma,
    tlb_flush_mmu,
    tlb_flush_mmu_tlbonly,
    tlb_gather_mmu,
    tlb_remove_folio_pages,
    tlb_remove_tlb_entries,
)
from replay.mm.pgtable import index_of, pmd_addr_end, pte_alloc, pte_free, table_of
from replay.mm.rmap import flush_tlb_batched_pending
from replay.policies import FEATURE_INDEX
from replay.state import (
    INFO_ANON,
    INFO_DIRTY,
    INFO_SHMEM,
    PAGE_SHIFT,
    PMD_SIZE,
    POLICY,
    PTRS_PER_PTE,
    TABLE_BLOCK,
    State,
)
from replay.stream import VMF_PFNMAP, VMF_SHARED, VMF_UFFD_WP
from tracer.jit import inner

LD = INDEX["ld"]
PTL = INDEX["ptl"]
MMC = INDEX["mmc"]
SWP_OP = INDEX["swp_op"]
SWP_LOCK = INDEX["swp_lock"]
DUP_SWAP = INDEX["folio_dup_swap"]
RMW_REF = INDEX["rmw_ref"]
AEX = INDEX["aex"]

F_ZAP = POLICY + FEATURE_INDEX["zap_batch"]
F_FORK = POLICY + FEATURE_INDEX["fork_batch"]
F_SWAP_FREE = POLICY + FEATURE_INDEX["swap_free_batch"]
F_DELAYED = POLICY + FEATURE_INDEX["delayed_rmap"]
F_PT_RECLAIM = POLICY + FEATURE_INDEX["pt_reclaim"]
F_MARKER = POLICY + FEATURE_INDEX["marker_check"]
F_SWAP_TABLE = POLICY + FEATURE_INDEX["swap_table"]
F_MARKER_BATCH = POLICY + FEATURE_INDEX["marker_batch"]

SWAPFILE_CLUSTER = 512  # entries of a swap cluster, include/linux/swap.h

# Flags of the zap operation.
ZAP_DROP_MARKER = 1
ZAP_RECLAIM_PT = 2  # MADV_DONTNEED

# Counters of one add_mm_rss_vec(): bit per rss member.
RSS_FILE = 1
RSS_ANON = 2
RSS_SWAP = 4
RSS_SHMEM = 8


@inner
def rss_members(bits: int) -> int:
    """Members that add_mm_rss_vec() has to touch."""
    nr = 0
    while bits:
        nr += bits & 1
        bits >>= 1
    return nr


@inner
def rss_member(st: State, pfn: int) -> int:
    info = st.info[folio_head(st, pfn)]
    if info & INFO_ANON:
        return RSS_ANON
    return RSS_SHMEM if info & INFO_SHMEM else RSS_FILE


# --- zap -------------------------------------------------------------------------


@inner
def swap_pte_batch(st: State, i: int, pte: int, max_nr: int) -> int:
    """Consecutive swap entries with equal bits."""
    nr = 1
    while nr < max_nr:
        if ptep_get(st, i + nr) != pte + (nr << PFN_SHIFT):
            break
        nr += 1
    return nr


@inner
def free_swap_run(st: State, first: int, nr: int) -> None:
    """Swap counts of a run: one call, one lock pair for each cluster it touches."""
    st.c[SWP_OP] += 1
    st.c[SWP_LOCK] += (first + nr - 1) // SWAPFILE_CLUSTER - first // SWAPFILE_CLUSTER + 1


@inner
def clear_not_present_ptes(st: State, i: int, va: int, nr: int) -> None:
    for k in range(nr):
        pte_clear(st, i + k, va + (k << st.s[PAGE_SHIFT]))


@inner
def _zap_markers(st: State, i: int, va: int, nr: int, pte: int, vm_flags: int, flags: int) -> None:
    """zap_install_uffd_wp_if_needed(): file-backed uffd-wp entries leave a marker."""
    if flags & ZAP_DROP_MARKER or not vm_flags & VMF_UFFD_WP or not pte & UFFD:
        return
    for k in range(nr):
        if k == 0 or not st.s[F_MARKER_BATCH]:
            raw_get(st, i + k)
        set_pte_at(st, i + k, va + (k << st.s[PAGE_SHIFT]), MARKER_UFFD)


@inner
def _zap_present(
    st: State, ctx: int, i: int, va: int, pte: int, max_nr: int, vm_flags: int, flags: int
) -> int:
    """zap_present_ptes(): entries done, rss members in bits 16+, force bits in 24+.

    Bit 24: flush under the lock; bit 25: leave the loop first.
    """
    if pte & SPECIAL:
        ptep_get_and_clear(st, i, va)
        tlb_remove_tlb_entries(st, ctx, va, 1)
        return 1
    pfn = pte_pfn(pte)
    nr = 1
    if folio_nr_pages(st, pfn) > 1 and max_nr != 1 and st.s[F_ZAP]:
        nr = folio_pte_batch(st, i, pte, max_nr, 0)
    anon = (st.info[folio_head(st, pfn)] & INFO_ANON) != 0
    force = 0
    delay = 0
    if anon:
        clear_full_ptes(st, i, va, nr)
    else:
        full = get_and_clear_full_ptes(st, i, va, nr)
        if pte_dirty(full):
            folio_flag(st, pfn, INFO_DIRTY, 1)
            force = 1
            delay = st.s[F_DELAYED]
    tlb_remove_tlb_entries(st, ctx, va, nr)
    if not anon:
        _zap_markers(st, i, va, nr, pte, vm_flags, flags)
    folio_remove_rmap_ptes(st, pfn, nr)
    if tlb_remove_folio_pages(st, ctx, nr, delay):
        force = 3
    return nr | (rss_member(st, pfn) << 16) | (force << 24)


@inner
def _is_marker(pte: int) -> bool:
    kind = pte & KIND_MASK
    return kind == MARKER_UFFD or kind == MARKER_GUARD


@inner
def _zap_nonpresent(st: State, i: int, va: int, pte: int, max_nr: int, flags: int) -> int:
    """Swap and other entries: entries done, rss members in bits 16+."""
    members = 0
    nr = 1
    if is_swap(pte):
        if st.s[F_SWAP_FREE]:
            nr = swap_pte_batch(st, i, pte, max_nr)
        free_swap_run(st, pte >> PFN_SHIFT, nr)
        members = RSS_SWAP
    elif is_migration(pte):
        pfn = pte_pfn(pte)
        # A migration entry holds neither a mapping nor a reference.
        members = rss_member(st, pfn)
    elif _is_marker(pte) and not flags & ZAP_DROP_MARKER:
        return 1
    clear_not_present_ptes(st, i, va, nr)
    return nr | (members << 16)


@inner
def table_is_empty(st: State, table: int) -> bool:
    if st.table[table, TABLE_BLOCK]:
        return False
    per = st.s[PTRS_PER_PTE]
    for k in range(table * per, (table + 1) * per):
        if st.pte[k]:
            return False
    return True


@inner
def _zap_pte_range(
    st: State, ctx: int, mm: int, table: int, va: int, end: int, vm_flags: int, flags: int
) -> None:
    """zap_pte_range() over one table, re-entered after every forced flush."""
    start = va
    while va < end:
        st.c[PTL] += 1
        flush_tlb_batched_pending(st, mm)
        members = 0
        force = 0
        while va < end and force < 2:
            i = index_of(st, table, va)
            pte = ptep_get(st, i)
            nr = 1
            if pte != 0:
                max_nr = (end - va) >> st.s[PAGE_SHIFT]
                if pte_present(pte):
                    result = _zap_present(st, ctx, i, va, pte, max_nr, vm_flags, flags)
                    force |= result >> 24
                else:
                    result = _zap_nonpresent(st, i, va, pte, max_nr, flags)
                nr = result & 0xFFFF
                members |= (result >> 16) & 0xFF
            va += nr << st.s[PAGE_SHIFT]
        st.c[MMC] += rss_members(members)
        if force:
            tlb_flush_mmu_tlbonly(st, ctx)
            tlb_flush_mmu(st, ctx)
    whole = end - start == st.s[PMD_SIZE]
    if whole and flags & ZAP_RECLAIM_PT and st.s[F_PT_RECLAIM] and table_is_empty(st, table):
        st.c[PTL] += 1
        pte_free(st, table)
        pte_free_tlb(st, ctx, start)


@inner
def zap_vma_range(
    st: State, ctx: int, mm: int, va: int, end: int, vm_flags: int, flags: int
) -> None:
    """unmap_page_range() of 6.12, __zap_vma_range() of 7.3."""
    tlb_gather_mmu(st, ctx, mm, 0)
    while va < end:
        stop = pmd_addr_end(st, va, end)
        table = table_of(st, mm, va)
        if pmd_trans_huge(st, table):
            if stop - va == st.s[PMD_SIZE]:
                if zap_huge_pmd(st, ctx, table, va):
                    tlb_flush_mmu(st, ctx)
                table = -1
            else:
                split_huge_pmd_locked(st, table)
        if table >= 0:
            _zap_pte_range(st, ctx, mm, table, va, stop, vm_flags, flags)
        va = stop
    tlb_end_vma(st, ctx)


# --- fork ------------------------------------------------------------------------


@inner
def _copy_nonpresent(st: State, src: int, dst: int, va: int, pte: int, vm_flags: int) -> int:
    """copy_nonpresent_pte(): rss members."""
    members = 0
    entry = pte & ~NP_UFFD
    if is_swap(pte):
        st.c[SWP_OP] += 1
        # 7.0 takes it by swap_dup_entry_direct().
        st.c[DUP_SWAP] += 0 if st.s[F_SWAP_TABLE] else 1
        st.c[SWP_LOCK] += 1
        members = RSS_SWAP
        if pte & NP_EXCLUSIVE:
            entry &= ~NP_EXCLUSIVE
            set_pte_at(st, src, va, pte & ~NP_EXCLUSIVE)
    elif is_migration(pte):
        members = rss_member(st, pte_pfn(pte))
        if not vm_flags & VMF_SHARED and (pte & KIND_MASK) != MIGRATION_READ:
            # Neither of the two may find its page exclusive again.
            set_pte_at(st, src, va, (pte & ~KIND_MASK) | MIGRATION_READ)
            entry = (entry & ~KIND_MASK) | MIGRATION_READ
    elif (pte & KIND_MASK) == MARKER_UFFD:
        return 0
    set_pte_at(st, dst, va, entry)
    return members


@inner
def _copy_present(
    st: State, src: int, dst: int, va: int, pte: int, max_nr: int, vm_flags: int
) -> int:
    """copy_present_ptes(): entries copied, rss members in bits 16+."""
    pfn = pte_pfn(pte)
    shared = vm_flags & VMF_SHARED
    nr = 1
    members = 0
    if not pte & SPECIAL:
        if folio_nr_pages(st, pfn) > 1 and max_nr != 1 and st.s[F_FORK]:
            nr = folio_pte_batch(st, src, pte, max_nr, 0 if shared else RESPECT_DIRTY)
            # FPB_MERGE_WRITE: one writable entry makes the run writable.
            for k in range(src, src + nr):
                if st.pte[k] & WRITE:
                    pte = pte_mkwrite(pte)
        st.c[RMW_REF] += 1
        folio_dup_rmap_ptes(st, pfn, nr)
        members = rss_member(st, pfn)
    if not shared and pte & WRITE:
        wrprotect_ptes(st, src, va, nr)
        pte = pte_wrprotect(pte)
    if shared:
        pte = pte_mkclean(pte)
    set_ptes(st, dst, va, pte & ~(AF | UFFD | CONT), nr)
    return nr | (members << 16)


@inner
def _vma_needs_copy(st: State, mm: int, va: int, end: int, vm_flags: int) -> bool:
    """Page cache mappings are faulted in again; only a VMA with an anon_vma is copied.

    An anon_vma shows as an anon page, a swap entry or a migration entry.
    """
    if vm_flags & (VMF_UFFD_WP | VMF_PFNMAP):
        return True
    if vm_flags & VMF_SHARED:
        return False
    while va < end:
        stop = pmd_addr_end(st, va, end)
        table = table_of(st, mm, va)
        if table >= 0:
            if st.table[table, TABLE_BLOCK]:
                return True
            first = index_of(st, table, va)
            for i in range(first, first + ((stop - va) >> st.s[PAGE_SHIFT])):
                pte = st.pte[i]
                if pte_present(pte) and not pte & SPECIAL:
                    if st.info[folio_head(st, pte_pfn(pte))] & INFO_ANON:
                        return True
                elif pte != 0 and not pte_present(pte):
                    return True
        va = stop
    return False


@inner
def copy_page_range(st: State, src_mm: int, dst_mm: int, va: int, end: int, vm_flags: int) -> None:
    """copy_page_range(): one VMA of the parent into the child."""
    if not _vma_needs_copy(st, src_mm, va, end, vm_flags):
        return
    while va < end:
        stop = pmd_addr_end(st, va, end)
        table = table_of(st, src_mm, va)
        if table < 0:
            va = stop
            continue
        if pmd_trans_huge(st, table):
            if stop - va == st.s[PMD_SIZE]:
                copy_huge_pmd(st, table, dst_mm, va, vm_flags)
                va = stop
                continue
            split_huge_pmd_locked(st, table)
        target = pte_alloc(st, dst_mm, va)
        st.c[PTL] += 2
        members = 0
        while va < stop:
            src = index_of(st, table, va)
            dst = index_of(st, target, va)
            pte = ptep_get(st, src)
            nr = 1
            if pte != 0:
                if pte_present(pte):
                    max_nr = (stop - va) >> st.s[PAGE_SHIFT]
                    result = _copy_present(st, src, dst, va, pte, max_nr, vm_flags)
                    nr = result & 0xFFFF
                    members |= result >> 16
                else:
                    members |= _copy_nonpresent(st, src, dst, va, pte, vm_flags)
            va += nr << st.s[PAGE_SHIFT]
        st.c[MMC] += rss_members(members)


@inner
def dup_mmap_end(st: State) -> None:
    """The parent's translations are stale: dup_mmap() ends with flush_tlb_mm(oldmm)."""
    flush_tlb_mm(st)
