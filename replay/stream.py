# SPDX-License-Identifier: GPL-2.0-or-later
"""The flat op stream: operation codes, record fields and VMA flags of the engine."""

from __future__ import annotations

from typing import Final

# Operation name to code, the names of tracer.vocabulary.OPERATIONS and of scenarios.
CODES: Final[dict[str, int]] = {
    name: code
    for code, name in enumerate(
        (
            "do_anonymous_page",
            "set_pte_range",
            "folio_add_new_anon_rmap",
            "wp_page_copy",
            "wp_page_reuse",
            "do_swap_page",
            "try_to_unmap_one",
            "try_to_unmap_flush",
            "try_to_unmap_flush_dirty",
            "folio_referenced_one",
            "zap_page_range",
            "tlb_finish_mmu",
            "copy_page_range",
            "dup_mmap_end",
            "change_protection",
            "move_page_tables",
            "move_page_tables_end",
            "madvise_cold",
            "madvise_pageout",
            "madvise_free",
            "try_to_migrate_one",
            "remove_migration_pte",
            "folio_split",
            "split_huge_pmd",
            "exit_mmap",
            "access",
            "infer_map",
            "infer_access",
            "do_wp_page",
            "infer_access",
        )
    )
}

# Fields of one record of the stream, int64 each.
F_CODE = 0
F_GROUP = 1  # row of the result
F_CTX = 2  # row of State.ga
F_MM = 3
F_VA = 4
F_END = 5
F_PFN = 6  # first frame
F_NR = 7  # pages
F_ORDER = 8
F_FLAGS = 9  # the operation's own flags
F_ARG = 10  # second address or second mm
F_VMF = 11  # VMF_* below
F_VMSTART = 12
F_VMEND = 13
F_INFO = 14  # INFO_* flags of the folio, from its page flags
F_LIMIT = 15  # recorded outcome, -1 when unknown
NR_FIELDS = 16

# VMA flags the model asks for.
VMF_READ = 1
VMF_WRITE = 2
VMF_EXEC = 4
VMF_SHARED = 8
VMF_LOCKED = 16
VMF_UFFD_WP = 32
VMF_ANON = 64  # vma_is_anonymous()
VMF_PROT_NONE = 128  # vm_page_prot gives no access
VMF_KNOWN = 256
VMF_PFNMAP = 512  # or VM_MIXEDMAP
