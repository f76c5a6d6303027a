# SPDX-License-Identifier: GPL-2.0-or-later
"""The system of an event whose text has its name only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tracer.eventformat import EventFormat

# Static tracepoints of memory management, include/trace/events/*.h; the rest is told by formats.
SYSTEMS: Final[dict[str, tuple[str, ...]]] = {
    "kmem": (
        "rss_stat", "mm_page_alloc", "mm_page_free", "mm_page_free_batched", "mm_page_pcpu_drain",
        "mm_page_alloc_zone_locked", "mm_page_alloc_extfrag", "kmalloc", "kfree",
        "kmem_cache_alloc", "kmem_cache_free", "mm_calculate_totalreserve_pages",
        "mm_setup_per_zone_wmarks", "mm_setup_per_zone_lowmem_reserve",
    ),
    "sched": (
        "sched_switch", "sched_wakeup", "sched_wakeup_new", "sched_waking", "sched_migrate_task",
        "sched_process_exit", "sched_process_fork", "sched_process_exec", "sched_process_free",
        "sched_stat_runtime", "sched_stick_numa", "sched_swap_numa", "sched_move_numa",
    ),
    "migrate": (
        "mm_migrate_pages", "mm_migrate_pages_start", "set_migration_pte", "remove_migration_pte",
    ),
    "huge_memory": (
        "mm_khugepaged_scan_pmd", "mm_collapse_huge_page", "mm_collapse_huge_page_isolate",
        "mm_collapse_huge_page_swapin", "mm_khugepaged_scan_file", "mm_khugepaged_collapse_file",
    ),
    "thp": ("hugepage_set", "hugepage_set_pmd", "hugepage_set_pud", "hugepage_update",
            "hugepage_update_pmd", "hugepage_update_pud", "set_migration_pmd",
            "remove_migration_pmd"),
    "tlb": ("tlb_flush",),
    "mmap": ("vm_unmapped_area", "vma_mas_szero", "vma_store", "exit_mmap"),
    "mmap_lock": ("mmap_lock_start_locking", "mmap_lock_acquire_returned", "mmap_lock_released"),
    "filemap": ("mm_filemap_add_to_page_cache", "mm_filemap_delete_from_page_cache",
                "mm_filemap_fault", "mm_filemap_map_pages", "mm_filemap_get_pages"),
    "exceptions": ("page_fault_user", "page_fault_kernel"),
    "raw_syscalls": ("sys_enter", "sys_exit"),
}  # fmt: skip
PREFIXES: Final = {
    "mm_vmscan_": "vmscan",
    "mm_compaction_": "compaction",
    "mm_lru_": "pagemap",
    "sys_enter_": "syscalls",
    "sys_exit_": "syscalls",
}
FTRACE: Final = ("function", "funcgraph_entry", "funcgraph_exit", "kernel_stack", "user_stack")
MARKS: Final = ("tracing_mark_write", "print")  # what userspace wrote to trace_marker
UNKNOWN: Final = "unknown"
DYNAMIC: Final = "kprobes"  # group of probes that were made without one, trace_probe.h

_BY_NAME: Final = {name: system for system, names in SYSTEMS.items() for name in names}
_SAFE = re.compile(r"[\w.:,+@=-]{1,255}\Z", re.A)
# A probe prints where it hit: "(func+0x0/0x20)", "(ret <- func)" or, by perf, its address.
_PROBE_BODY = re.compile(
    rb"\((?:[\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+|[0-9a-f]{8,16})(?: <- [^)]{1,99})?\)"
)


def key_of(name: str, body: bytes, formats: Mapping[str, str]) -> str | None:
    """Find the ``system:name`` of an event.

    :param name: as printed
    :param body: the text behind it on one of its lines
    :param formats: event name to key, of the formats that are known
    :return: the key, None when the name cannot be one
    """
    system, _, event = name.rpartition(":")
    if not _SAFE.match(name) or ":" in system or name.startswith(":"):
        return None
    if system:
        return name
    if event in MARKS:
        return "ftrace:print"
    if event in formats:
        return formats[event]
    if _PROBE_BODY.match(body):
        return f"{DYNAMIC}:{event}"
    if event in FTRACE:
        return f"ftrace:{event}"
    system = _BY_NAME.get(event, "")
    system = system or next((s for p, s in PREFIXES.items() if event.startswith(p)), UNKNOWN)
    return f"{system}:{event}"


def by_name(formats: Mapping[str, EventFormat]) -> dict[str, str]:
    """:return: event name to key; a name that two systems have is left out."""
    found: dict[str, str] = {}
    twice = set()
    for key, fmt in formats.items():
        if fmt.name in found:
            twice.add(fmt.name)
        found[fmt.name] = key
    return {name: key for name, key in found.items() if name not in twice}
