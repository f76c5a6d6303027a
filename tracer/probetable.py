# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe table: where each event of the vocabulary is recorded, kernel by kernel.

A field is written as kprobe events write it with BTF names, ``mm=vma->vm_mm``. A kernel
without CONFIG_PROBE_EVENTS_BTF_ARGS (before 6.6) gets the same field as register and
offset, ``mm=+16(%x1):x64``, computed from its BTF. ``name=+PARAMETER->MEMBER`` asks for the
raw word at a member's place in either case: the member is a bit-field, changed its type
between releases, or holds more than its type says.

Syntax: Documentation/trace/kprobetrace.rst. Functions and arguments: mm/*.c and
arch/arm64/mm/contpte.c of 6.1, 6.12, 6.18 and 7.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

GROUP: Final = "mmtrace"
CONTPTE: Final = "contpte"

_MM = "mm=vma->vm_mm"
_SPAN = f"{_MM} vm_start=vma->vm_start vm_end=vma->vm_end vm_flags=vma->vm_flags"
_VMA = f"{_SPAN} vm_pgoff=vma->vm_pgoff"
_FAULT = (
    "mm=vmf->vma->vm_mm vm_start=vmf->vma->vm_start vm_end=vmf->vma->vm_end "
    "vm_flags=vmf->vma->vm_flags"
)
# Since 6.6 the order is the low byte of _flags_1; before, a member of its own.
_HEAD = "page_flags=+folio->flags:x64 order_byte=+folio->_folio_order|_flags_1:u8"
_PAGE_HEAD = "page_flags=+page->flags:x64 order_byte=+page->_folio_order|_flags_1:u8"
_PTE = "mm=mm addr=addr ptep=ptep pte=pte"


class Form(NamedTuple):
    """A probed function in some releases, and the fields taken there.

    :ivar event: event name, one of the vocabulary's; "" for the function's own
    :ivar note: what is different from the newest form
    """

    function: str
    fields: str
    event: str = ""
    note: str = ""


@dataclass(frozen=True)
class Spec:
    """One row of the table: an event and where it was found in each release.

    :ivar forms: in release order; the newest that a kernel has is taken
    :ivar group: tracefs group
    :ivar returns: a return probe, that many calls at once
    :ivar arch: the only architecture with it, "" for all
    :ivar stand_in: what tells the same when the function is inlined away
    """

    forms: tuple[Form, ...]
    group: str = GROUP
    returns: int = 0
    arch: str = ""
    stand_in: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Event names in release order."""
        return tuple(dict.fromkeys(form.event or form.function for form in self.forms))


def _spec(function: str, fields: str = "", *, event: str = "", stand_in: str = "") -> Spec:
    return Spec((Form(function, fields, event),), stand_in=stand_in)


def _contpte(function: str, fields: str) -> Spec:
    return Spec((Form(function, fields),), CONTPTE, arch="arm64")


_RMAP_WALK = f"folio=folio vma=vma address=address arg=arg {_VMA} index=folio->index {_HEAD}"

SPECS: Final[tuple[Spec, ...]] = (
    Spec((
        # 6.1 calls it with the head page, which is the folio.
        Form("page_add_new_anon_rmap",
             f"folio=page vma=vma address=address {_VMA} index=page->index {_PAGE_HEAD}",
             "folio_add_new_anon_rmap", "without rmap flags"),
        Form("folio_add_new_anon_rmap",
             "folio=folio vma=vma address=address flags=flags "
             f"{_VMA} index=folio->index {_HEAD}"),
    )),
    Spec((
        Form("page_add_anon_rmap",
             f"folio=page page=page nr_pages=\\1 vma=vma address=address flags=flags {_VMA} "
             f"{_PAGE_HEAD}", "folio_add_anon_rmap_ptes", "page by page"),
        Form("folio_add_anon_rmap_ptes",
             "folio=folio page=page nr_pages=nr_pages vma=vma address=address flags=flags "
             f"{_VMA} {_HEAD}"),
    )),
    Spec((
        Form("do_set_pte",
             f"folio=page page=page nr=\\1 addr=addr vma=vmf->vma {_FAULT} flags=vmf->flags "
             f"{_PAGE_HEAD}", "set_pte_range", "page by page"),
        Form("set_pte_range",
             f"folio=folio page=page nr=nr addr=addr vma=vmf->vma {_FAULT} flags=vmf->flags "
             f"{_HEAD}"),
    )),
    Spec((Form("contpte_set_ptes", f"{_PTE} nr=nr"),), arch="arm64"),
    _spec("try_to_unmap_one", _RMAP_WALK),
    Spec((Form("try_to_unmap_one", "ret=$retval", "try_to_unmap_one_ret"),), returns=10),
    _spec("try_to_migrate_one", _RMAP_WALK),
    _spec("remove_migration_pte", f"folio=folio vma=vma addr=addr arg=arg {_VMA} {_HEAD}"),
    Spec((
        Form("page_remove_rmap", f"folio=page page=page nr_pages=\\1 vma=vma {_MM} {_PAGE_HEAD}",
             "folio_remove_rmap_ptes", "page by page"),
        Form("folio_remove_rmap_ptes",
             f"folio=folio page=page nr_pages=nr_pages vma=vma {_MM} {_HEAD}"),
    )),
    _spec("folio_remove_rmap_pmd", f"folio=folio page=page vma=vma {_MM}"),
    # Renamed in 7.1.
    Spec((
        Form("unmap_page_range", f"addr=addr end=end {_VMA}"),
        Form("__zap_vma_range", f"start=start end=end {_VMA}"),
    ), stand_in="folio_remove_rmap_ptes shows the pages, not the ranges"),
    _spec("copy_page_range",
          "src_mm=src_vma->vm_mm dst_mm=dst_vma->vm_mm vm_start=src_vma->vm_start "
          "vm_end=src_vma->vm_end vm_flags=src_vma->vm_flags vm_pgoff=src_vma->vm_pgoff"),
    _spec("change_protection",
          "start=start end=end cp_flags=cp_flags "
          f"{_VMA} page_prot=vma->vm_page_prot.pgprot:x64"),
    # The arguments moved into a structure in 6.16.
    Spec((
        Form("move_page_tables", f"{_MM} old_addr=old_addr new_addr=new_addr len=len"),
        Form("move_page_tables",
             "mm=pmc->old->vm_mm old_addr=pmc->old_addr new_addr=pmc->new_addr "
             "old_end=pmc->old_end len=pmc->len_in"),
    )),
    _spec("madvise_cold_or_pageout_pte_range", "addr=addr end=end mm=walk->mm vma=walk->vma"),
    _spec("madvise_free_pte_range", "addr=addr end=end mm=walk->mm vma=walk->vma"),
    _spec("folio_referenced_one", f"folio=folio vma=vma address=address {_MM} {_HEAD}"),
    _spec("do_wp_page",
          "vma=vmf->vma mm=vmf->vma->vm_mm address=vmf->address "
          "real_address=vmf->real_address flags=vmf->flags vm_start=vmf->vma->vm_start "
          "vm_end=vmf->vma->vm_end vm_flags=vmf->vma->vm_flags"),
    _spec("do_swap_page",
          "vma=vmf->vma mm=vmf->vma->vm_mm address=vmf->address flags=vmf->flags"),
    _spec("exit_mmap", "mm=mm",
          stand_in="the last unmap of an address space tells roughly where it ends"),
    _spec("__split_huge_pmd", f"address=address {_MM}", event="split_huge_pmd"),
    _spec("tlb_finish_mmu", "mm=tlb->mm start=tlb->start end=tlb->end fullmm=+tlb->fullmm:x32"),
    _spec("try_to_unmap_flush"),
    _spec("try_to_unmap_flush_dirty"),
    *(_contpte(name, _PTE)
      for name in ("contpte_convert", "__contpte_try_unfold", "__contpte_try_fold")),
    _contpte("contpte_ptep_get", "ptep=ptep"),
    _contpte("contpte_wrprotect_ptes", "mm=mm addr=addr nr=nr"),
    _contpte("contpte_clear_full_ptes", "mm=mm addr=addr nr=nr full=full"),
    _contpte("contpte_get_and_clear_full_ptes", "mm=mm addr=addr nr=nr full=full"),
    _contpte("contpte_clear_young_dirty_ptes", f"{_MM} addr=addr nr=nr flags=flags"),
    _contpte("contpte_ptep_set_access_flags", f"{_MM} addr=addr dirty=dirty"),
    Spec((Form("set_tlb_ubc_flush_pending", "mm=mm"),), CONTPTE,
         stand_in="try_to_unmap_one marks each folio whose flush reclaim defers"),
)  # fmt: skip

# What the set above hides. Nothing replays these yet: ingest keeps them as plain events.
MORE: Final[tuple[Spec, ...]] = (
    # Fork, zap, mprotect and MADV_COLD ask for the page of the PTE they are about to change,
    # so its accessed and dirty bits are an argument, once for each batch.
    _spec("vm_normal_page", f"{_MM} addr=addr pte=pte", event="pte_seen"),
    _spec("vm_normal_folio", f"{_MM} addr=addr pte=pte", event="pte_seen_folio"),
    Spec((Form("set_tlb_ubc_flush_pending", "mm=mm pte=pteval", "pte_deferred"),), CONTPTE),
)  # fmt: skip

# Tracepoints that every kernel has: operation boundaries, and the life of address spaces.
SYSCALLS: Final = (
    "madvise", "process_madvise", "mmap", "munmap", "mprotect", "pkey_mprotect", "mremap", "brk",
    "clone", "clone3", "ioctl",
)  # fmt: skip
STATIC: Final = (
    *(f"syscalls:sys_{side}_{call}" for call in SYSCALLS for side in ("enter", "exit")),
    "sched:sched_process_fork",
    "sched:sched_process_exec",
    "sched:sched_process_exit",
)


class Loop(NamedTuple):
    """A function that compilers inline, and what the set records instead."""

    function: str
    stand_in: str


LOOPS: Final = (
    Loop("zap_pte_range", "unmap_page_range or __zap_vma_range, and folio_remove_rmap_ptes"),
    Loop("copy_pte_range", "copy_page_range"),
    Loop("change_pte_range", "change_protection"),
    Loop("move_ptes", "move_page_tables"),
    Loop("wp_page_copy", "do_wp_page followed by folio_add_new_anon_rmap"),
    Loop("do_fault_around", "set_pte_range"),
)


class Blind(NamedTuple):
    """What no probe of the set shows.

    :ivar what: the hidden state
    :ivar cost: what the replay loses by it
    :ivar more: events of :data:`MORE` that show it
    """

    what: str
    cost: str
    more: tuple[str, ...] = ()


BLIND: Final = (
    Blind("Accessed and dirty bits that hardware set",
          "taken as set by the access that faulted the page in; they decide whether "
          "MADV_COLD flushes and how fork's batches run",
          ("pte_seen", "pte_seen_folio", "pte_deferred")),
    # tlb_flush() is inline and thereby notrace: the kernel refuses probes on its copies.
    Blind("The range of a gathered flush",
          "rebuilt from the pages unmapped; tlb_finish_mmu is entered after its reset"),
    Blind("Executed TLBI, DSB and atomics",
          "counted by the model; only an emulator counts them on a booted kernel"),
)  # fmt: skip
