# SPDX-License-Identifier: GPL-2.0-or-later
"""mm/rmap.c: try_to_unmap_one(), folio_referenced_one() and the deferred flush."""

from __future__ import annotations

from replay.stream import VMF_LOCKED, VMF_UFFD_WP
from tests.oracle.access import clear_flush_young_ptes
from tests.oracle.contpte import (
    accessible,
    get_and_clear_ptes,
    ptep_clear_flush,
    ptep_get,
    raw_get,
    set_pte_at,
    set_ptes,
)
from tests.oracle.entries import HWPOISON, MARKER_UFFD, SWAP, NonPresent, Pte
from tests.oracle.folio import (
    exclusive_runs,
    folio_remove_rmap_ptes,
    folio_try_share_anon_rmap,
    swap_offset,
)
from tests.oracle.internal import folio_pte_batch
from tests.oracle.machine import Folio, Machine, Ptep
from tests.oracle.mmu_gather import gather_pending
from tests.oracle.page_vma_mapped import Walk
from tests.oracle.tlbflush import flush_tlb_mm, flush_tlb_range, sync

TTU_IGNORE_MLOCK, TTU_SYNC, TTU_HWPOISON, TTU_BATCH_FLUSH = 0x8, 0x10, 0x20, 0x40
PENDING_RESET = 16383


def set_tlb_ubc_flush_pending(m: Machine, ctx: int, mm: int, pte: Pte, start: int, nr: int) -> None:
    """The TLBI at once, the DSB later."""
    m.count("set_tlb_ubc_flush_pending")
    if not accessible(pte, pending=gather_pending(m, mm)):
        return
    m.count("ubc")
    flush_tlb_range(m, start, start + nr * m.page, wait=False)
    state, context = m.mm(mm), m.context(ctx)
    context.flush_required = True
    context.writable |= pte.dirty
    if state.pending > PENDING_RESET:
        state.pending, state.flushed = 1, 0
    else:
        state.pending += 1


def complete_deferred(m: Machine, ctx: int) -> None:
    context = m.context(ctx)
    if context.flush_required:
        sync(m)
        context.flush_required = context.writable = False


def try_to_unmap_flush(m: Machine, ctx: int) -> None:
    m.count("try_to_unmap_flush")
    complete_deferred(m, ctx)


def try_to_unmap_flush_dirty(m: Machine, ctx: int) -> None:
    if m.context(ctx).writable:
        complete_deferred(m, ctx)


def flush_tlb_batched_pending(m: Machine, mm: int) -> None:
    m.count("flush_tlb_batched_pending")
    state = m.mm(mm)
    if state.pending != state.flushed:
        flush_tlb_mm(m)
        state.flushed = state.pending


def folio_range(m: Machine, pfn: int, va: int, vm_end: int) -> tuple[Folio, int]:
    """The folio mapped from ``pfn`` at ``va``, and where its mapping ends in the VMA."""
    folio = m.folio(pfn)
    return folio, min(va + (folio.head + folio.nr_pages - pfn) * m.page, vm_end)


# --- unmap ------------------------------------------------------------------------------


def batches(m: Machine, folio: Folio, vm_flags: int) -> bool:
    """folio_unmap_pte_batch(): whether this kernel takes such folios in runs."""
    if not folio.large or (vm_flags & VMF_UFFD_WP and not m.f.ttu_uffd_batch):
        return False
    if not folio.anon:
        return bool(m.f.ttu_file_batch)
    return bool(m.f.ttu_anon_batch if folio.swapbacked else m.f.ttu_lazyfree_batch)


def _clear(m: Machine, ctx: int, mm: int, ptep: Ptep, va: int, nr: int, flags: int) -> Pte:
    """Clear and flush: deferred, or waiting; ranges came with batching."""
    if flags & TTU_BATCH_FLUSH and m.f.deferred_flush:
        pte = get_and_clear_ptes(m, ptep, va, nr)
        set_tlb_ubc_flush_pending(m, ctx, mm, pte, va, nr)
        return pte
    if nr == 1:
        return ptep_clear_flush(m, ptep, va, pending=gather_pending(m, mm))
    pte = get_and_clear_ptes(m, ptep, va, nr)
    flush_tlb_range(m, va, va + nr * m.page)
    return pte


def _markers(m: Machine, folio: Folio, ptep: Ptep, va: int, pte: Pte, nr: int) -> None:
    """The cleared entry is read again in any case; file entries of uffd-wp leave markers."""
    if not m.f.marker_check:
        return
    raw_get(m, ptep)
    if pte.uffd and not folio.anon:
        for k in range(nr):
            set_pte_at(m, ptep.plus(k), va + k * m.page, NonPresent(MARKER_UFFD))


def _swap_out(m: Machine, ptep: Ptep, va: int, pte: Pte, nr: int) -> None:
    """Runs of equal exclusive: count, share, counters, entries, rmap, reference."""
    for first, run, exclusive in exclusive_runs(m, pte.pfn, nr):
        at = first - pte.pfn
        m.count("swp_op")
        m.count("folio_dup_swap")
        m.count("swp_lock")
        if exclusive:
            folio_try_share_anon_rmap(m, first, run)
        m.count("mmc", 2)
        entry = NonPresent(SWAP, swap_offset(m, first), exclusive=exclusive, uffd=pte.uffd)
        if m.f.swp_store:
            set_ptes(m, ptep.plus(at), va + at * m.page, entry, run)
        else:
            for k in range(run):
                here = at + k
                set_pte_at(m, ptep.plus(here), va + here * m.page, entry.advance(k))
        folio_remove_rmap_ptes(m, first, run)
        m.count("rmw_ref")


def try_to_unmap_one(
    m: Machine, ctx: int, mm: int, pfn: int, va: int, vm_end: int, vm_flags: int,
    flags: int, limit: int,
) -> None:  # fmt: skip
    """:param limit: pages after which the kernel gave up, -1 when it did not"""
    folio, end = folio_range(m, pfn, va, vm_end)
    sync_walk = bool(flags & TTU_SYNC and m.f.pvmw_sync)
    done = 0
    walk = Walk(m, mm, va, end, folio.head, folio.nr_pages, sync=sync_walk)
    for ptep, at in walk:
        if vm_flags & VMF_LOCKED and not flags & TTU_IGNORE_MLOCK:
            break
        pte, nr = ptep_get(m, ptep), 1
        if batches(m, folio, vm_flags) and not flags & TTU_HWPOISON:
            room = m.pages(at, m.pmd_addr_end(at, vm_end))
            nr = folio_pte_batch(m, ptep, pte, room, write=True)
        pte = _clear(m, ctx, mm, ptep, at, nr, flags)
        _markers(m, folio, ptep, at, pte, nr)
        lazyfree = folio.anon and not folio.swapbacked and not flags & TTU_HWPOISON
        if lazyfree:
            m.count("mb")
        if 0 <= limit <= done:
            set_ptes(m, ptep, at, pte, nr)
            break
        if folio.anon and not lazyfree and not flags & TTU_HWPOISON:
            _swap_out(m, ptep, at, pte, nr)
        else:
            m.count("mmc")
            if flags & TTU_HWPOISON:
                set_pte_at(m, ptep, at, NonPresent(HWPOISON, pte.pfn))
            folio_remove_rmap_ptes(m, pte.pfn, nr)
            m.count("rmw_ref")
        done += nr
        if nr == folio.nr_pages and m.f.swap_table:
            break
    if done and flags & TTU_BATCH_FLUSH and folio.shmem:
        _write_shmem(m, folio)


def _write_shmem(m: Machine, folio: Folio) -> None:
    """Once nobody maps it, shmem_writeout() takes the swap counts of a folio."""
    if m.f.swap_table and not folio.nr_mapped:
        for name in ("swp_op", "folio_dup_swap", "swp_lock"):
            m.count(name)


# --- aging ---------------------------------------------------------------------------------


def folio_referenced_one(m: Machine, mm: int, pfn: int, va: int, vm_end: int) -> None:
    """Classic LRU: young of every entry, in runs since 7.0."""
    folio, end = folio_range(m, pfn, va, vm_end)
    walk = Walk(m, mm, va, end, folio.head, folio.nr_pages)
    seen = 0
    for ptep, at in walk:
        nr = 1
        if m.f.aging_batch and folio.large:
            room = m.pages(at, m.pmd_addr_end(at, end))
            nr = folio_pte_batch(m, ptep, ptep_get(m, ptep), room)
        clear_flush_young_ptes(m, ptep, at, nr)
        seen += nr
        if m.f.aging_batch and seen == folio.nr_pages:
            break
        walk.skip(nr - 1)
