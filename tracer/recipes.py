# SPDX-License-Identifier: GPL-2.0-or-later
"""How each probe of the vocabulary is recorded: lines for tracefs' kprobe_events.

They need a kernel with BTF and CONFIG_PROBE_EVENTS_BTF_ARGS (Linux 6.4 and later), and
name x0 and x1, arm64's first two arguments, where BTF arguments do not reach. fprobe and
kprobe take the same line; see Documentation/trace/kprobetrace.rst.
"""

from __future__ import annotations

from typing import Final

KPROBE_EVENTS: Final = "/sys/kernel/tracing/kprobe_events"

# Event name to (kernels it is for, line). The first kernel of Debian each was tried on is named.
LINES: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "folio_add_new_anon_rmap": (
        (
            "",
            "p:mmtrace/folio_add_new_anon_rmap folio_add_new_anon_rmap folio=folio "
            "vma=vma address=address flags=flags mm=vma->vm_mm "
            "vm_start=vma->vm_start vm_end=vma->vm_end vm_flags=vma->vm_flags "
            "vm_pgoff=vma->vm_pgoff index=folio->index page_flags=+0(%x0):x64 "
            "order_byte=+64(%x0):u8",
        ),
    ),
    "folio_add_anon_rmap_ptes": (
        (
            "",
            "p:mmtrace/folio_add_anon_rmap_ptes folio_add_anon_rmap_ptes "
            "folio=folio page=page nr_pages=nr_pages vma=vma address=address "
            "flags=flags mm=vma->vm_mm vm_start=vma->vm_start vm_end=vma->vm_end "
            "vm_flags=vma->vm_flags vm_pgoff=vma->vm_pgoff page_flags=+0(%x0):x64 "
            "order_byte=+64(%x0):u8",
        ),
    ),
    "set_pte_range": (
        (
            "",
            "p:mmtrace/set_pte_range set_pte_range folio=folio page=page nr=nr "
            "addr=addr vma=vmf->vma mm=vmf->vma->vm_mm vm_start=vmf->vma->vm_start "
            "vm_end=vmf->vma->vm_end vm_flags=vmf->vma->vm_flags flags=vmf->flags "
            "page_flags=+0(%x1):x64 order_byte=+64(%x1):u8",
        ),
    ),
    "contpte_set_ptes": (
        (
            "",
            "p:mmtrace/contpte_set_ptes contpte_set_ptes mm=mm addr=addr ptep=ptep pte=pte nr=nr",
        ),
    ),
    "try_to_unmap_one": (
        (
            "",
            "p:mmtrace/try_to_unmap_one try_to_unmap_one folio=folio vma=vma "
            "address=address arg=arg mm=vma->vm_mm vm_start=vma->vm_start "
            "vm_end=vma->vm_end vm_flags=vma->vm_flags vm_pgoff=vma->vm_pgoff "
            "index=folio->index page_flags=+0(%x0):x64 order_byte=+64(%x0):u8",
        ),
    ),
    "try_to_unmap_one_ret": (
        (
            "",
            "r10:mmtrace/try_to_unmap_one_ret try_to_unmap_one ret=$retval",
        ),
    ),
    "try_to_migrate_one": (
        (
            "",
            "p:mmtrace/try_to_migrate_one try_to_migrate_one folio=folio vma=vma "
            "address=address arg=arg mm=vma->vm_mm vm_start=vma->vm_start "
            "vm_end=vma->vm_end vm_flags=vma->vm_flags vm_pgoff=vma->vm_pgoff "
            "index=folio->index page_flags=+0(%x0):x64 order_byte=+64(%x0):u8",
        ),
    ),
    "remove_migration_pte": (
        (
            "",
            "p:mmtrace/remove_migration_pte remove_migration_pte folio=folio "
            "vma=vma addr=addr arg=arg mm=vma->vm_mm vm_start=vma->vm_start "
            "vm_end=vma->vm_end vm_flags=vma->vm_flags vm_pgoff=vma->vm_pgoff "
            "page_flags=+0(%x0):x64 order_byte=+64(%x0):u8",
        ),
    ),
    "folio_remove_rmap_ptes": (
        (
            "",
            "p:mmtrace/folio_remove_rmap_ptes folio_remove_rmap_ptes folio=folio "
            "page=page nr_pages=nr_pages vma=vma mm=vma->vm_mm "
            "page_flags=+0(%x0):x64 order_byte=+64(%x0):u8",
        ),
    ),
    "folio_remove_rmap_pmd": (
        (
            "",
            "p:mmtrace/folio_remove_rmap_pmd folio_remove_rmap_pmd folio=folio "
            "page=page vma=vma mm=vma->vm_mm",
        ),
    ),
    "unmap_page_range": (
        (
            "until 7.0",
            "p:mmtrace/unmap_page_range unmap_page_range addr=addr end=end "
            "mm=vma->vm_mm vm_start=vma->vm_start vm_end=vma->vm_end "
            "vm_flags=vma->vm_flags vm_pgoff=vma->vm_pgoff",
        ),
    ),
    "copy_page_range": (
        (
            "",
            "p:mmtrace/copy_page_range copy_page_range src_mm=src_vma->vm_mm "
            "dst_mm=dst_vma->vm_mm vm_start=src_vma->vm_start "
            "vm_end=src_vma->vm_end vm_flags=src_vma->vm_flags "
            "vm_pgoff=src_vma->vm_pgoff",
        ),
    ),
    "change_protection": (
        (
            "",
            "p:mmtrace/change_protection change_protection start=start end=end "
            "cp_flags=cp_flags mm=vma->vm_mm vm_start=vma->vm_start "
            "vm_end=vma->vm_end vm_flags=vma->vm_flags vm_pgoff=vma->vm_pgoff "
            "page_prot=vma->vm_page_prot.pgprot:x64",
        ),
    ),
    "move_page_tables": (
        (
            "until 6.15",
            "p:mmtrace/move_page_tables move_page_tables mm=vma->vm_mm "
            "old_addr=old_addr new_addr=new_addr len=len",
        ),
        (
            "since 6.16",
            "p:mmtrace/move_page_tables move_page_tables mm=pmc->old->vm_mm "
            "old_addr=pmc->old_addr new_addr=pmc->new_addr old_end=pmc->old_end "
            "len=pmc->len_in",
        ),
    ),
    "madvise_cold_or_pageout_pte_range": (
        (
            "",
            "p:mmtrace/madvise_cold_or_pageout_pte_range "
            "madvise_cold_or_pageout_pte_range addr=addr end=end mm=walk->mm "
            "vma=walk->vma",
        ),
    ),
    "madvise_free_pte_range": (
        (
            "",
            "p:mmtrace/madvise_free_pte_range madvise_free_pte_range addr=addr "
            "end=end mm=walk->mm vma=walk->vma",
        ),
    ),
    "folio_referenced_one": (
        (
            "",
            "p:mmtrace/folio_referenced_one folio_referenced_one folio=folio "
            "vma=vma address=address mm=vma->vm_mm page_flags=+0(%x0):x64 "
            "order_byte=+64(%x0):u8",
        ),
    ),
    "do_wp_page": (
        (
            "",
            "p:mmtrace/do_wp_page do_wp_page vma=vmf->vma mm=vmf->vma->vm_mm "
            "address=vmf->address real_address=vmf->real_address flags=vmf->flags "
            "vm_start=vmf->vma->vm_start vm_end=vmf->vma->vm_end "
            "vm_flags=vmf->vma->vm_flags",
        ),
    ),
    "do_swap_page": (
        (
            "",
            "p:mmtrace/do_swap_page do_swap_page vma=vmf->vma mm=vmf->vma->vm_mm "
            "address=vmf->address flags=vmf->flags",
        ),
    ),
    "exit_mmap": (
        (
            "",
            "p:mmtrace/exit_mmap exit_mmap mm=mm",
        ),
    ),
    "split_huge_pmd": (
        (
            "",
            "p:mmtrace/split_huge_pmd __split_huge_pmd address=address mm=vma->vm_mm",
        ),
    ),
    "tlb_finish_mmu": (
        (
            "",
            "p:mmtrace/tlb_finish_mmu tlb_finish_mmu mm=tlb->mm start=tlb->start "
            "end=tlb->end fullmm=+32(%x0):x32",
        ),
    ),
    "try_to_unmap_flush": (
        (
            "",
            "p:mmtrace/try_to_unmap_flush try_to_unmap_flush",
        ),
    ),
    "try_to_unmap_flush_dirty": (
        (
            "",
            "p:mmtrace/try_to_unmap_flush_dirty try_to_unmap_flush_dirty",
        ),
    ),
    "contpte_convert": (
        (
            "",
            "p:contpte/contpte_convert contpte_convert mm=mm addr=addr ptep=ptep pte=pte",
        ),
    ),
    "__contpte_try_unfold": (
        (
            "",
            "p:contpte/__contpte_try_unfold __contpte_try_unfold mm=mm addr=addr ptep=ptep pte=pte",
        ),
    ),
    "__contpte_try_fold": (
        (
            "",
            "p:contpte/__contpte_try_fold __contpte_try_fold mm=mm addr=addr ptep=ptep pte=pte",
        ),
    ),
    "contpte_ptep_get": (
        (
            "",
            "p:contpte/contpte_ptep_get contpte_ptep_get ptep=ptep",
        ),
    ),
    "contpte_wrprotect_ptes": (
        (
            "",
            "p:contpte/contpte_wrprotect_ptes contpte_wrprotect_ptes mm=mm addr=addr nr=nr",
        ),
    ),
    "contpte_clear_full_ptes": (
        (
            "",
            "p:contpte/contpte_clear_full_ptes contpte_clear_full_ptes mm=mm "
            "addr=addr nr=nr full=full",
        ),
    ),
    "contpte_get_and_clear_full_ptes": (
        (
            "",
            "p:contpte/contpte_get_and_clear_full_ptes "
            "contpte_get_and_clear_full_ptes mm=mm addr=addr nr=nr full=full",
        ),
    ),
    "contpte_clear_young_dirty_ptes": (
        (
            "",
            "p:contpte/contpte_clear_young_dirty_ptes "
            "contpte_clear_young_dirty_ptes mm=vma->vm_mm addr=addr nr=nr "
            "flags=flags",
        ),
    ),
    "contpte_ptep_set_access_flags": (
        (
            "",
            "p:contpte/contpte_ptep_set_access_flags contpte_ptep_set_access_flags "
            "mm=vma->vm_mm addr=addr dirty=dirty",
        ),
    ),
    "set_tlb_ubc_flush_pending": (
        (
            "",
            "p:contpte/set_tlb_ubc_flush_pending set_tlb_ubc_flush_pending mm=mm",
        ),
    ),
    "__zap_vma_range": (
        (
            "since 7.1",
            "p:mmtrace/__zap_vma_range __zap_vma_range start=start end=end "
            "mm=vma->vm_mm vm_start=vma->vm_start vm_end=vma->vm_end "
            "vm_flags=vma->vm_flags vm_pgoff=vma->vm_pgoff",
        ),
    ),
}
