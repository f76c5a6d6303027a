# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine table may hold: every cost by name, with its unit and meaning."""

from __future__ import annotations

from typing import Final

KINDS: Final = ("measured", "derived", "fitted", "assumed")

# Name, report group, meaning. Nanoseconds each, unless said.
PRIMITIVES: Final[tuple[tuple[str, str, str], ...]] = (
    ("ld", "PTE loads", "load of a PTE that is in L1"),
    ("xchg", "PTE atomics", "atomic exchange of a PTE"),
    ("cas", "PTE atomics", "cmpxchg of a PTE"),
    ("st", "PTE stores", "store of a PTE"),
    ("rmw_map", "rmap and ref atomics", "atomic on a page's own _mapcount, line local"),
    ("rmw_shared", "rmap and ref atomics", "atomic on a folio's shared counter, line local"),
    ("rmw_ref", "rmap and ref atomics", "atomic on a refcount, line local"),
    ("rmw_remote", "rmap and ref atomics", "what a line costs more when another CPU has it"),
    ("aex", "rmap and ref atomics", "atomic change of PG_anon_exclusive"),
    ("mb", "barriers", "full barrier of the share and lazyfree paths, mean of the pair"),
    ("ubc", "locks and counters", "atomic on mm->tlb_flush_batched"),
    ("mmc", "locks and counters", "add_mm_counter(), a per-CPU counter"),
    ("swp_lock", "locks and counters", "swap cluster lock pair"),
    ("ptl", "locks and counters", "PTE or PMD lock pair, uncontended"),
    ("gpage", "page allocation", "mmu_gather batch page allocated and freed"),
    ("page_line", "struct page lines", "first touch of a struct page in a sequential sweep"),
    ("page_line_cold", "struct page lines", "the same from DRAM, not prefetched"),
    ("user_line", "user memory", "user store to a data line that is in DRAM"),
    ("dsb", "TLBI and DSB", "DSB with nothing outstanding"),
    ("tlbi_issue", "TLBI and DSB", "issue of one broadcast TLBI"),
    ("tlbi_sync", "TLBI and DSB", "wait of a DSB ISH for outstanding TLBI, nobody else broadcasts"),
    ("dvm_sync", "TLBI and DSB", "what each further broadcasting CPU adds to a sync"),
    ("dvm_tlbi", "TLBI and DSB", "what each further broadcasting CPU adds to a TLBI"),
    ("flush_local", "TLBI and DSB", "TLBI of this CPU only with DSB NSH"),
    ("flush_ipi", "TLBI and DSB", "one flush on x86, one CPU running the mm"),
    ("zero_scan", "data", "is_folio_zero_filled() over one 4K page at swap-out"),
    ("clear_page", "data", "zeroing one 4K page"),
)  # fmt: skip

# Kernel code between the primitives. Nanoseconds on xeon-4210r; ``sw`` scales them.
SOFTWARE: Final[tuple[tuple[str, str], ...]] = (
    ("step_fork", "one run of copy_pte_range()"),
    ("step_zap", "one run of zap_pte_range()"),
    ("run_free", "one run through the mmu_gather and release_pages()"),
    ("step_mprotect", "one run of change_pte_range()"),
    ("entry_mprotect", "one entry inside a run of change_pte_range()"),
    ("step_mremap", "one run of move_ptes()"),
    ("step_ttu", "one step of try_to_unmap_one(): walk, check, rmap, swap count"),
    ("step_aging", "one step of folio_referenced_one()"),
    ("age_folio", "folio_referenced() of one folio, without its entries"),
    ("step_madvise", "one folio of madvise's scan"),
    ("pte_loop", "one entry inside a run"),
    ("batch", "folio_pte_batch() of a large folio, entered"),
    ("scan", "one entry that folio_pte_batch() compares"),
    ("free_order0", "one base page back to the page allocator"),
    ("free_large", "one large folio back to the page allocator"),
    ("free_buddy", "what orders outside the per-CPU lists add"),
    ("reclaim_folio", "shrink_folio_list() for one folio, without unmap and free"),
    ("reclaim_swap", "swap space, swap cache and writeout of one folio"),
    ("reclaim_page", "swap cache, memcg and zeromap work for one page"),
    ("fault_anon", "one anonymous fault, without the page"),
    ("fault_swap", "one swap-in fault"),
    ("fault_file", "one write fault on a shared file mapping, page_mkwrite included"),
    ("fault_file_large", "what a large folio adds to it: buffers walked, folio looked up"),
    ("order0", "what mprotect's batching adds to a base page"),
    ("convert", "contpte_convert() apart from its primitives"),
    ("pmd_move", "one move of a page table by mremap"),
    ("op_zap", "one call of munmap or MADV_DONTNEED"),
    ("op_mprotect", "one call of mprotect"),
    ("op_mremap", "one call of mremap"),
    ("op_fork", "one VMA of fork"),
)  # fmt: skip

SCALE: Final = "sw"
COSTS: Final = (*(name for name, _, _ in PRIMITIVES), SCALE)
EVENTS: Final = tuple(name for name, _ in SOFTWARE)
CODE_GROUP: Final = "kernel code"
WAIT_GROUP: Final = "TLBI and DSB"
GROUP: Final[dict[str, str]] = {
    **{name: group for name, group, _ in PRIMITIVES},
    **dict.fromkeys(EVENTS, CODE_GROUP),
}
GROUPS: Final = tuple(dict.fromkeys(GROUP.values()))
