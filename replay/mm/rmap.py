# SPDX-License-Identifier: GPL-2.0-or-later
"""Reclaim's unmap, aging, and the deferred TLB flush.

Mirrors mm/rmap.c: try_to_unmap_one(), folio_referenced_one(), the tlb_ubc.
"""

from __future__ import annotations

from replay.arm64.contpte import (
    get_and_clear_full_ptes,
    ptep_clear_flush,
    ptep_get,
    raw_get,
    set_pte_at,
    set_ptes,
    test_and_clear_young_ptes,
)
from replay.arm64.pte import (
    HWPOISON,
    MARKER_UFFD,
    NP_EXCLUSIVE,
    NP_UFFD,
    PFN_SHIFT,
    PRESENT_INVALID,
    SWAP,
    UFFD,
    VALID,
    pte_dirty,
    pte_pfn,
)
from replay.arm64.tlbflush import flush_sync, flush_tlb_mm, flush_tlb_range
from replay.counters import INDEX
from replay.mm.batch import RESPECT_WRITE, folio_pte_batch
from replay.mm.folio import (
    exclusive_run,
    folio_head,
    folio_nr_pages,
    folio_remove_rmap_ptes,
    folio_swap_entry,
    folio_try_share_anon_rmap,
)
from replay.mm.huge_memory import pmdp_clear_flush_young, split_huge_pmd, unmap_huge_pmd
from replay.mm.page_vma_mapped import page_vma_mapped_walk, walk_done, walk_start
from replay.mm.pgtable import pmd_addr_end, table_of
from replay.policies import FEATURE_INDEX
from replay.state import (
    GA_ACTIVE,
    GA_MM,
    INFO_AE,
    INFO_ANON,
    INFO_SHMEM,
    INFO_SWAPBACKED,
    MM_FLUSHED,
    MM_PENDING,
    PAGE_SHIFT,
    PAGE_SIZE,
    POLICY,
    PVMW_ADDR,
    PVMW_PTE,
    UBC_REQUIRED,
    UBC_WRITABLE,
    State,
)
from replay.stream import VMF_LOCKED, VMF_UFFD_WP
from tracer.jit import inner

UBC = INDEX["ubc"]
SET_UBC = INDEX["set_tlb_ubc_flush_pending"]
TRY_FLUSH = INDEX["try_to_unmap_flush"]
BATCHED_PENDING = INDEX["flush_tlb_batched_pending"]
SWP_OP = INDEX["swp_op"]
SWP_LOCK = INDEX["swp_lock"]
DUP_SWAP = INDEX["folio_dup_swap"]
MMC = INDEX["mmc"]
MB = INDEX["mb"]
LD = INDEX["ld"]
ST = INDEX["st"]
RMW_REF = INDEX["rmw_ref"]

F_DEFER = POLICY + FEATURE_INDEX["deferred_flush"]
F_LAZYFREE = POLICY + FEATURE_INDEX["ttu_lazyfree_batch"]
F_FILE = POLICY + FEATURE_INDEX["ttu_file_batch"]
F_UFFD = POLICY + FEATURE_INDEX["ttu_uffd_batch"]
F_ANON = POLICY + FEATURE_INDEX["ttu_anon_batch"]
F_SYNC = POLICY + FEATURE_INDEX["pvmw_sync"]
F_MARKER = POLICY + FEATURE_INDEX["marker_check"]
F_SWP_STORE = POLICY + FEATURE_INDEX["swp_store"]
F_SWAP_TABLE = POLICY + FEATURE_INDEX["swap_table"]
F_LAZYFREE_PMD = POLICY + FEATURE_INDEX["ttu_lazyfree_pmd"]
F_AGING = POLICY + FEATURE_INDEX["aging_batch"]

# enum ttu_flags, include/linux/rmap.h
TTU_IGNORE_MLOCK = 0x8
TTU_SYNC = 0x10
TTU_HWPOISON = 0x20
TTU_BATCH_FLUSH = 0x40

# mm->tlb_flush_batched: the pending half starts over at this many.
PENDING_LARGE = 16383


# --- deferred flush --------------------------------------------------------------


@inner
def mm_tlb_flush_pending(st: State, mm: int) -> bool:
    """Some task gathers on the mm: what it cleared may still be in a TLB."""
    for ctx in range(st.ga.shape[0]):
        if st.ga[ctx, GA_ACTIVE] and st.ga[ctx, GA_MM] == mm:
            return True
    return False


@inner
def set_tlb_ubc_flush_pending(st: State, ctx: int, mm: int, pte: int, start: int, nr: int) -> None:
    """Issue the TLBI now, leave the DSB to try_to_unmap_flush()."""
    st.c[SET_UBC] += 1
    accessible = (pte & VALID) != 0
    if pte & PRESENT_INVALID and mm_tlb_flush_pending(st, mm):
        accessible = True
    if not accessible:
        return
    st.c[UBC] += 1
    flush_tlb_range(st, start, start + nr * st.s[PAGE_SIZE], 1, 0, 0)
    st.ga[ctx, UBC_REQUIRED] = 1
    if st.mm[mm, MM_PENDING] > PENDING_LARGE:
        st.mm[mm, MM_PENDING] = 1
        st.mm[mm, MM_FLUSHED] = 0
    else:
        st.mm[mm, MM_PENDING] += 1
    if pte_dirty(pte):
        st.ga[ctx, UBC_WRITABLE] = 1


@inner
def try_to_unmap_flush(st: State, ctx: int) -> None:
    st.c[TRY_FLUSH] += 1
    _complete(st, ctx)


@inner
def _complete(st: State, ctx: int) -> None:
    if st.ga[ctx, UBC_REQUIRED]:
        flush_sync(st)
        st.ga[ctx, UBC_REQUIRED] = 0
        st.ga[ctx, UBC_WRITABLE] = 0


@inner
def try_to_unmap_flush_dirty(st: State, ctx: int) -> None:
    """Where it calls try_to_unmap_flush() out of line, that is an operation of its own."""
    if st.ga[ctx, UBC_WRITABLE]:
        _complete(st, ctx)


@inner
def flush_tlb_batched_pending(st: State, mm: int) -> None:
    """Under the PTL before entries change: wait for the mm's deferred flushes."""
    st.c[BATCHED_PENDING] += 1
    if st.mm[mm, MM_PENDING] != st.mm[mm, MM_FLUSHED]:
        flush_tlb_mm(st)
        st.mm[mm, MM_FLUSHED] = st.mm[mm, MM_PENDING]


# --- try_to_unmap_one --------------------------------------------------------------


@inner
def _unmap_batch(st: State, i: int, va: int, pte: int, vm_flags: int, vm_end: int) -> int:
    """folio_unmap_pte_batch(): entries that this step takes."""
    pfn = pte_pfn(pte)
    nr = folio_nr_pages(st, pfn)
    if nr == 1 or not pte & (VALID | PRESENT_INVALID):
        return 1
    info = st.info[folio_head(st, pfn)]
    if vm_flags & VMF_UFFD_WP and not st.s[F_UFFD]:
        return 1
    if info & INFO_ANON:
        if info & INFO_SWAPBACKED:
            if not st.s[F_ANON]:
                return 1
        elif not st.s[F_LAZYFREE]:
            return 1
    elif not st.s[F_FILE]:
        return 1
    end = pmd_addr_end(st, va, vm_end)
    return folio_pte_batch(st, i, pte, (end - va) >> st.s[PAGE_SHIFT], RESPECT_WRITE)


@inner
def _markers(st: State, i: int, va: int, pte: int, nr: int, anon: int) -> None:
    """pte_install_uffd_wp_if_needed(): the cleared entry is read again in any case."""
    if not st.s[F_MARKER]:
        return
    raw_get(st, i)
    if not anon and pte & UFFD:
        for k in range(nr):
            set_pte_at(st, i + k, va + (k << st.s[PAGE_SHIFT]), MARKER_UFFD)


@inner
def _swap_out(st: State, i: int, va: int, pte: int, nr: int) -> None:
    """Swap count, exclusive bit, counters and swap entries, per run of equal exclusive."""
    pfn = pte_pfn(pte)
    done = 0
    while done < nr:
        run = exclusive_run(st, pfn + done, nr - done)
        st.c[SWP_OP] += 1
        st.c[DUP_SWAP] += 1
        st.c[SWP_LOCK] += 1
        entry = SWAP | (NP_UFFD if pte & UFFD else 0)
        if st.info[pfn + done] & INFO_AE:
            entry |= NP_EXCLUSIVE
            folio_try_share_anon_rmap(st, pfn + done, run)
        st.c[MMC] += 2
        first = folio_swap_entry(st, pfn + done)
        entry |= first << PFN_SHIFT
        if run > 1 and st.s[F_SWP_STORE]:
            set_ptes(st, i + done, va + (done << st.s[PAGE_SHIFT]), entry, run)
        else:
            for k in range(run):
                at = i + done + k
                set_pte_at(st, at, va + ((done + k) << st.s[PAGE_SHIFT]), entry + (k << PFN_SHIFT))
        folio_remove_rmap_ptes(st, pfn + done, run)
        st.c[RMW_REF] += 1
        done += run


@inner
def _clear(st: State, ctx: int, mm: int, i: int, va: int, nr: int, flags: int) -> int:
    """Clear the run and flush it: deferred in reclaim, at once elsewhere."""
    if flags & TTU_BATCH_FLUSH and st.s[F_DEFER]:
        pte = get_and_clear_full_ptes(st, i, va, nr)
        set_tlb_ubc_flush_pending(st, ctx, mm, pte, va, nr)
    elif nr == 1:
        pte = ptep_clear_flush(st, i, va, mm_tlb_flush_pending(st, mm))
    else:
        pte = get_and_clear_full_ptes(st, i, va, nr)
        flush_tlb_range(st, va, va + (nr << st.s[PAGE_SHIFT]), 1, 1, 0)
    return pte


@inner
def _abort(st: State, i: int, va: int, pte: int, nr: int) -> None:
    """The page may not go: put the entries back and end the walk."""
    set_ptes(st, i, va, pte, nr)
    walk_done(st)


@inner
def try_to_unmap_one(
    st: State,
    ctx: int,
    mm: int,
    pfn: int,
    va: int,
    vm_end: int,
    vm_flags: int,
    flags: int,
    limit: int,
) -> int:
    """Unmap a folio from one VMA.

    :param pfn: frame mapped at ``va``
    :param limit: pages after which the kernel gave up, as recorded; -1 for none
    :return: pages unmapped
    """
    head = folio_head(st, pfn)
    nr_folio = folio_nr_pages(st, pfn)
    info = st.info[head]
    anon = 1 if info & INFO_ANON else 0
    sync = 1 if flags & TTU_SYNC and st.s[F_SYNC] else 0
    end = min(va + ((nr_folio - (pfn - head)) << st.s[PAGE_SHIFT]), vm_end)
    walk_start(st, mm, va, end, head, nr_folio, sync, 0)
    done = 0
    while page_vma_mapped_walk(st):
        if vm_flags & VMF_LOCKED and not flags & TTU_IGNORE_MLOCK:
            walk_done(st)
            break
        i, at = st.s[PVMW_PTE], st.s[PVMW_ADDR]
        if i < 0:
            if _unmap_pmd(st, mm, at, info):
                done += nr_folio
                walk_done(st)
                break
            continue
        pte = ptep_get(st, i)
        nr = 1 if flags & TTU_HWPOISON else _unmap_batch(st, i, at, pte, vm_flags, vm_end)
        pte = _clear(st, ctx, mm, i, at, nr, flags)
        first = pte_pfn(pte)
        _markers(st, i, at, pte, nr, anon)
        if 0 <= limit <= done:
            if anon and not info & INFO_SWAPBACKED and not flags & TTU_HWPOISON:
                st.c[MB] += 1
            _abort(st, i, at, pte, nr)
            break
        if anon and info & INFO_SWAPBACKED and not flags & TTU_HWPOISON:
            _swap_out(st, i, at, pte, nr)
        else:
            if anon and not flags & TTU_HWPOISON:
                st.c[MB] += 1
            st.c[MMC] += 1
            if flags & TTU_HWPOISON:
                set_pte_at(st, i, at, HWPOISON | (first << PFN_SHIFT))
            folio_remove_rmap_ptes(st, first, nr)
            st.c[RMW_REF] += 1
        done += nr
        if nr == nr_folio and _exits_early(st):
            walk_done(st)
            break
    if done and flags & TTU_BATCH_FLUSH and info & INFO_SHMEM:
        _write_shmem(st, head, nr_folio)
    return done


@inner
def _write_shmem(st: State, head: int, nr: int) -> None:
    """shmem_writeout() of a folio nobody maps any more takes swap counts: folio_dup_swap()."""
    if not st.s[F_SWAP_TABLE]:
        return
    for pfn in range(head, head + nr):
        if st.mapcount[pfn]:
            return
    st.c[SWP_OP] += 1
    st.c[DUP_SWAP] += 1
    st.c[SWP_LOCK] += 1


@inner
def _unmap_pmd(st: State, mm: int, va: int, info: int) -> bool:
    """A whole mapping: dropped as one where the kernel can, else split for the PTE path."""
    table = table_of(st, mm, va)
    if info & INFO_ANON and not info & INFO_SWAPBACKED and st.s[F_LAZYFREE_PMD]:
        st.c[MB] += 1
        unmap_huge_pmd(st, table)
        return True
    split_huge_pmd(st, table)
    return False


@inner
def _exits_early(st: State) -> bool:
    """Kernels with a batched TTU stop after a whole folio."""
    return st.s[F_SWAP_TABLE] != 0


# --- aging ---------------------------------------------------------------------------


@inner
def folio_referenced_one(st: State, mm: int, pfn: int, va: int, vm_end: int) -> None:
    """Classic LRU aging of one folio in one VMA."""
    head = folio_head(st, pfn)
    nr_folio = folio_nr_pages(st, pfn)
    end = min(va + ((nr_folio - (pfn - head)) << st.s[PAGE_SHIFT]), vm_end)
    walk_start(st, mm, va, end, head, nr_folio, 0, 0)
    seen = 0
    while page_vma_mapped_walk(st):
        i, at = st.s[PVMW_PTE], st.s[PVMW_ADDR]
        if i < 0:
            pmdp_clear_flush_young(st, table_of(st, mm, at))
            walk_done(st)
            break
        nr = 1
        if st.s[F_AGING] and nr_folio > 1:
            pte = ptep_get(st, i)
            limit = (pmd_addr_end(st, at, end) - at) >> st.s[PAGE_SHIFT]
            nr = folio_pte_batch(st, i, pte, limit, 0)
        test_and_clear_young_ptes(st, i, at, nr, 1)
        if nr > 1:
            # The walk goes on behind the run.
            st.s[PVMW_PTE] += nr - 1
            st.s[PVMW_ADDR] += (nr - 1) << st.s[PAGE_SHIFT]
        seen += nr
        if seen == nr_folio and st.s[F_AGING]:
            walk_done(st)
            break
