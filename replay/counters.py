# SPDX-License-Identifier: GPL-2.0-or-later
"""The counters: one row each, in the order of every counter vector.

A row is (name, group, meaning). ``group`` is ``primitive`` (an instruction or
atomic that the page-table work executes), ``call`` (entries into the kernel
function of that name, out of line on arm64, so that a probe can count it) or
``sum`` (derived from others, see :data:`SUMS`).
"""

from __future__ import annotations

from typing import Final

COUNTERS: Final[tuple[tuple[str, str, str], ...]] = (
    # Page-table entry accesses.
    ("ld", "primitive", "64-bit PTE loads without write intent"),
    ("xchg", "primitive", "atomic exchange of a PTE with 0"),
    ("cas", "primitive", "successful cmpxchg on a PTE"),
    ("st", "primitive", "plain PTE stores"),
    ("ptep_get", "call", "calls of ptep_get(), ptep_get_lockless() included"),
    ("cp_get", "call", "ptep_get() calls that reached contpte_ptep_get()"),
    ("cp_get_ll", "call", "calls that reached contpte_ptep_get_lockless()"),
    # contpte repaints.
    ("unfold", "primitive", "contpte blocks repainted without CONT"),
    ("fold", "primitive", "contpte blocks repainted with CONT"),
    ("fold_try", "call", "calls that reached __contpte_try_fold()"),
    # TLB maintenance.
    ("tlbi_va", "primitive", "TLBI by address, one page or one entry"),
    ("tlbi_range", "primitive", "TLBI in the range form"),
    ("tlbi_asid", "primitive", "TLBI by ASID"),
    ("tlbi_local", "primitive", "TLBI that is not broadcast"),
    ("dsb_ishst", "primitive", "DSB ISHST"),
    ("dsb_ish", "primitive", "DSB ISH"),
    ("dsb_nshst", "primitive", "DSB NSHST"),
    ("dsb_nsh", "primitive", "DSB NSH"),
    ("flush_ipi", "primitive", "flush requests under x86 rules, at most one IPI round each"),
    # rmap, refcounts, rss.
    ("rmw_map", "primitive", "atomic read-modify-write of an rmap counter"),
    ("rmap_call", "call", "rmap add and remove calls and inline dups"),
    ("rmw_ref", "primitive", "refcount read-modify-write"),
    ("aex", "primitive", "atomic set or clear of PG_anon_exclusive"),
    ("mb", "primitive", "full barriers of the share and lazyfree paths"),
    ("mmc", "primitive", "add_mm_counter() calls, the kmem:rss_stat events"),
    # Swap.
    ("swp_op", "call", "swap count operations"),
    ("swp_lock", "primitive", "swap cluster lock pairs"),
    # Locks and walks.
    ("ptl", "primitive", "PTE or PMD lock acquisitions"),
    ("walk", "call", "page_vma_mapped_walk() calls"),
    ("check_pte", "call", "check_pte() calls"),
    # Deferred flush and mmu_gather.
    ("ubc", "primitive", "set_tlb_ubc_flush_pending() calls for an accessible PTE"),
    ("gslot", "primitive", "mmu_gather slots used"),
    ("gpage", "primitive", "mmu_gather batch pages allocated"),
    ("gforce", "primitive", "forced mmu_gather flushes"),
    ("dsplit", "call", "deferred_split_folio() calls"),
    ("page_line", "primitive", "struct page cache lines first touched by an operation"),
    # Entries into functions that a probe can count, under the kernel's names.
    ("folio_remove_rmap_ptes", "call", "batches of PTEs removed from the rmap"),
    ("folio_add_new_anon_rmap", "call", "new anon folios mapped"),
    ("folio_add_anon_rmap_ptes", "call", "existing anon folios mapped"),
    ("folio_add_file_rmap_ptes", "call", "file folios mapped"),
    ("__contpte_try_unfold", "call", "unfolds by single-entry callers"),
    ("contpte_try_unfold_partial", "call", "partial-batch tests"),
    ("contpte_set_ptes", "call", "multi-entry sets"),
    ("contpte_clear_full_ptes", "call", "multi-entry clears"),
    ("contpte_get_and_clear_full_ptes", "call", "multi-entry get-and-clears"),
    ("contpte_wrprotect_ptes", "call", "multi-entry write protects"),
    ("contpte_clear_young_dirty_ptes", "call", "multi-entry clears of young and dirty"),
    ("contpte_test_and_clear_young_ptes", "call", "clears of young on a contpte block"),
    ("contpte_clear_flush_young_ptes", "call", "the same with a flush"),
    ("contpte_ptep_set_access_flags", "call", "access-flag updates on a contpte block"),
    ("set_tlb_ubc_flush_pending", "call", "deferred flushes, accessible or not"),
    ("try_to_unmap_flush", "call", "completions of the deferred flush"),
    ("flush_tlb_batched_pending", "call", "checks for pending deferred flushes"),
    ("__tlb_remove_folio_pages", "call", "runs of pages handed to the mmu_gather"),
    ("tlb_next_batch", "call", "mmu_gather batch changes attempted"),
    ("folio_dup_swap", "call", "swap counts taken, swap_duplicate() before 7.0"),
    ("folio_put_swap", "call", "swap counts dropped by swap-in, swap_free_nr() before 7.0"),
)

NAMES: Final[tuple[str, ...]] = tuple(name for name, _, _ in COUNTERS)
INDEX: Final[dict[str, int]] = {name: i for i, name in enumerate(NAMES)}

# Shown beside the counters, never stored in a counter vector.
SUMS: Final[dict[str, tuple[str, ...]]] = {
    "convert": ("unfold", "fold"),
    "tlbi": ("tlbi_va", "tlbi_range", "tlbi_asid", "tlbi_local"),
    "dsb": ("dsb_ishst", "dsb_ish", "dsb_nshst", "dsb_nsh"),
}
