# SPDX-License-Identifier: GPL-2.0-or-later
"""Which event means which mm operation, and which of its fields is what.

The one table behind ingest, recording and documentation. An event is
recognised by its name and by the fields it has, never by a kernel version;
the group a probe was put in does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

# Operations of the ops table, in the kernel's words.
OPERATIONS: Final[dict[str, str]] = {
    "do_anonymous_page": "fault maps a new anon folio",
    "set_pte_range": "fault or fault-around maps pages of a file folio",
    "folio_add_new_anon_rmap": "rmap of a new anon folio whose PTE set_pte_range() writes",
    "wp_page_copy": "write fault copies a page",
    "wp_page_reuse": "write fault makes a page writable in place",
    "do_swap_page": "fault maps pages from swap",
    "try_to_unmap_one": "reclaim unmaps a folio from one VMA",
    "try_to_unmap_flush": "reclaim waits for its deferred flush",
    "try_to_unmap_flush_dirty": "the same before a dirty folio is written",
    "folio_referenced_one": "reclaim tests and clears young in one VMA",
    "zap_page_range": "munmap, exit, MADV_DONTNEED, truncate clear a range of one VMA",
    "tlb_finish_mmu": "the end of an mmu_gather",
    "copy_page_range": "fork copies one VMA",
    "dup_mmap_end": "fork's closing flush of the parent",
    "change_protection": "mprotect, NUMA hinting or uffd-wp change a range of one VMA",
    "move_page_tables": "mremap moves a range",
    "madvise_cold": "MADV_COLD scans one PMD",
    "madvise_pageout": "MADV_PAGEOUT scans one PMD",
    "madvise_free": "MADV_FREE scans one PMD",
    "try_to_migrate_one": "migration or split takes a folio out of one VMA",
    "remove_migration_pte": "migration or split maps a folio again",
    "split_huge_pmd": "a PMD mapping is split into PTEs",
    "exit_mmap": "an address space is torn down",
    "infer_map": "pages that were mapped before the capture began, inferred from their unmap",
    "infer_access": "an access by the CPU, which leaves no event, inferred from a scan that saw it",
}

# Columns that an event field of the same name fills.
SAME_NAME: Final = (
    "mm", "vma", "vm_start", "vm_end", "vm_flags", "vm_pgoff", "folio", "page", "page_flags",
    "order_byte", "flags",
)  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """One event of the vocabulary.

    :ivar names: event names it goes by: the probed function in each release
    :ivar op: operation it stands for; "" when :mod:`tracer.normalize` decides
    :ivar role: ``op`` drives the replay, ``lead`` announces the next op of the
        task, ``witness`` is a consequence that the replay is checked against
    :ivar columns: ops column to the event's field names, the first present wins
    :ivar requires: columns without which the event cannot be used
    """

    names: tuple[str, ...]
    op: str
    role: str = "op"
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    requires: tuple[str, ...] = ("mm", "va")
    source: str = ""


PROBES: Final[tuple[Probe, ...]] = (
    Probe(
        ("folio_add_new_anon_rmap",), "do_anonymous_page",
        columns={"va": ("address", "va"), "flags": ("flags", "rf")},
        requires=("mm", "va", "folio"), source="mm/rmap.c",
    ),
    Probe(
        ("folio_add_anon_rmap_ptes",), "do_swap_page",
        columns={"va": ("address", "va"), "nr_pages": ("nr_pages", "nr"), "flags": ("flags", "rf")},
        requires=("mm", "va", "folio"), source="mm/rmap.c",
    ),
    Probe(
        ("set_pte_range",), "set_pte_range",
        columns={"va": ("addr", "va"), "nr_pages": ("nr", "nr_pages")},
        requires=("mm", "va", "folio"), source="mm/memory.c",
    ),
    Probe(
        ("try_to_unmap_one",), "try_to_unmap_one",
        columns={"va": ("address", "va"), "flags": ("arg", "flags"), "index": ("index", "ix")},
        requires=("mm", "va", "folio"), source="mm/rmap.c",
    ),
    Probe(
        ("try_to_migrate_one",), "try_to_migrate_one",
        columns={"va": ("address", "va"), "flags": ("arg", "flags"), "index": ("index", "ix")},
        requires=("mm", "va", "folio"), source="mm/rmap.c",
    ),
    Probe(
        ("remove_migration_pte",), "remove_migration_pte",
        columns={"va": ("addr", "va"), "flags": ()},
        requires=("mm", "va", "folio"), source="mm/migrate.c",
    ),
    Probe(
        ("folio_referenced_one",), "folio_referenced_one",
        columns={"va": ("address", "va")}, requires=("mm", "va", "folio"), source="mm/rmap.c",
    ),
    # unmap_page_range() until 7.0, __zap_vma_range() since 7.1.
    Probe(
        ("unmap_page_range", "__zap_vma_range"), "zap_page_range",
        columns={"va": ("addr", "start", "s"), "end": ("end", "e")},
        requires=("mm", "va", "end"), source="mm/memory.c",
    ),
    Probe(
        ("copy_page_range",), "copy_page_range",
        columns={"mm": ("src_mm", "smm"), "arg": ("dst_mm", "dmm"), "va": ("vm_start", "s"),
                 "end": ("vm_end", "e")},
        requires=("mm", "arg", "va", "end"), source="mm/memory.c",
    ),
    Probe(
        ("change_protection",), "change_protection",
        columns={"va": ("start", "s"), "end": ("end", "e"), "flags": ("cp_flags", "cp")},
        requires=("mm", "va", "end"), source="mm/mprotect.c",
    ),
    # The arguments moved into a struct pagetable_move_control in 6.16.
    Probe(
        ("move_page_tables",), "move_page_tables",
        columns={"va": ("old_addr", "s"), "arg": ("new_addr", "d"), "nr_bytes": ("len", "len_in")},
        requires=("mm", "va", "arg", "nr_bytes"), source="mm/mremap.c",
    ),
    Probe(
        ("madvise_cold_or_pageout_pte_range",), "madvise_pageout",
        columns={"va": ("addr", "s"), "end": ("end", "e")}, requires=("mm", "va", "end"),
        source="mm/madvise.c",
    ),
    Probe(
        ("madvise_free_pte_range",), "madvise_free",
        columns={"va": ("addr", "s"), "end": ("end", "e")}, requires=("mm", "va", "end"),
        source="mm/madvise.c",
    ),
    Probe(
        ("tlb_finish_mmu",), "tlb_finish_mmu",
        columns={"va": ("start",), "end": ("end",), "flags": ("fullmm", "bits")},
        requires=("mm", "flags"), source="mm/mmu_gather.c",
    ),
    Probe(("exit_mmap",), "exit_mmap", requires=("mm",), source="mm/mmap.c"),
    Probe(
        ("split_huge_pmd", "__split_huge_pmd"), "split_huge_pmd",
        columns={"va": ("address", "va")}, source="mm/huge_memory.c",
    ),
    Probe(("try_to_unmap_flush",), "try_to_unmap_flush", requires=(), source="mm/rmap.c"),
    Probe(
        ("try_to_unmap_flush_dirty",), "try_to_unmap_flush_dirty", requires=(), source="mm/rmap.c"
    ),
    # Announce what the task does next.
    Probe(
        ("do_wp_page",), "wp_page_reuse", role="lead",
        columns={"va": ("address", "va")}, source="mm/memory.c",
    ),
    Probe(
        ("do_swap_page",), "do_swap_page", role="lead",
        columns={"va": ("address", "va")}, source="mm/memory.c",
    ),
    # Consequences of the operations above.
    Probe(("folio_remove_rmap_ptes",), "", role="witness", source="mm/rmap.c",
          columns={"nr_pages": ("nr_pages", "nr")}, requires=("mm",)),
    Probe(("folio_remove_rmap_pmd",), "", role="witness", source="mm/rmap.c", requires=()),
    Probe(("try_to_unmap_one_ret",), "", role="witness", source="mm/rmap.c", requires=()),
    Probe(("contpte_set_ptes",), "", role="witness", source="arch/arm64/mm/contpte.c", requires=()),
    *(
        Probe((name,), "", role="witness", source="arch/arm64/mm/contpte.c", requires=())
        for name in (
            "contpte_convert", "__contpte_try_unfold", "__contpte_try_fold", "contpte_ptep_get",
            "contpte_wrprotect_ptes", "contpte_clear_full_ptes",
            "contpte_get_and_clear_full_ptes", "contpte_clear_young_dirty_ptes",
            "contpte_ptep_set_access_flags",
        )
    ),
    Probe(("set_tlb_ubc_flush_pending",), "", role="witness", source="mm/rmap.c", requires=()),
)  # fmt: skip

BY_NAME: Final[dict[str, Probe]] = {name: probe for probe in PROBES for name in probe.names}

# Events of other systems that give context.
SYSCALL_SYSTEM: Final = "syscalls"
SYSCALL_ENTER: Final = "sys_enter_"
SYSCALL_EXIT: Final = "sys_exit_"

# Systems whose events are static tracepoints, never probes of these names.
STATIC_SYSTEMS: Final = frozenset({"syscalls", "sched", "kmem", "ftrace", "raw_syscalls"})

# madvise(2) advice that decides what a page table scan does, uapi/asm-generic/mman-common.h.
MADV_DONTNEED: Final = 4
MADV_FREE: Final = 8
MADV_COLD: Final = 20
MADV_PAGEOUT: Final = 21
