# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays an op stream: one record, one method, one counter vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace

from replay import counters, state, stream
from replay.arm64.geometry import Granule
from replay.cpu import Cpu
from replay.policies import Policy
from tests.oracle import fault, fork, madvise, migrate, mprotect, mremap, rmap, zap
from tests.oracle.contpte import set_ptes
from tests.oracle.entries import is_migration, present
from tests.oracle.machine import Machine
from tests.oracle.mmu_gather import pte_free_tlb, tlb_end_vma, tlb_finish, tlb_gather_mmu
from tests.oracle.tlbflush import flush_tlb_mm

NAMES = {code: name for name, code in stream.CODES.items()}
FIELDS = {
    name.removeprefix("F_").lower(): index
    for name, index in vars(stream).items()
    if name.startswith("F_")
}
NEEDS_MAPPING = ("try_to_unmap_one", "try_to_migrate_one", "folio_referenced_one")
FULLMM, FREED_TABLES, CLEARED_PTES, CLEARED_PMDS, CLEARED_PUDS = 1, 4, 16, 32, 64
FREE_PGTABLES = 1 << 40  # of a generated stream: all tables of the range


class Oracle(Machine):
    """A machine that takes records of the stream."""

    def __init__(self, policy: Policy, cpu: Cpu, granule: Granule) -> None:
        super().__init__(policy, cpu, granule)
        self.inferred_pages = 0

    def step(self, record: Iterable[int]) -> list[int]:
        """:return: the counters of one record, in the order of counters.NAMES"""
        values = [int(value) for value in record]
        op = SimpleNamespace(**{name: values[index] for name, index in FIELDS.items()})
        name = NAMES[op.code]
        self.infer(name, op)
        self.c.clear()
        method: Callable[[SimpleNamespace], None] | None = getattr(self, f"op_{name}", None)
        if method is not None:
            method(op)
        unknown = set(self.c) - set(counters.NAMES)
        assert not unknown, unknown
        return [self.c[name] for name in counters.NAMES]

    # --- mappings from before the capture ---

    def infer(self, name: str, op: SimpleNamespace) -> None:
        """What an operation needs and nothing before has mapped; counts nothing."""
        end = op.end
        if name in NEEDS_MAPPING:
            left = (1 << op.order) - op.pfn % (1 << op.order)
            end = op.va + left * self.page
            if op.vmend > op.va:
                end = min(end, op.vmend)
        elif name != "infer_map":
            return
        mapped = (self.lookup(op.mm, va) for va in range(op.va, end, self.page))
        if not any(present(entry) or is_migration(entry) for entry in mapped):
            self.map_inferred(op, end)

    def map_inferred(self, op: SimpleNamespace, end: int) -> None:
        """Young, dirty and exclusive if anon, one batch a table."""
        head = op.pfn >> op.order << op.order
        if not self.is_folio(head, op.order):
            self.new_folio(head, op.order, **flags_of(op.info))
        anon = bool(op.info & state.INFO_ANON)
        pfn, folio = op.pfn, self.folio(op.pfn)
        for start, stop, _ in self.tables_of(op.mm, op.va, end):
            nr = self.pages(start, stop)
            pte = fault.mk_pte(pfn, op.vmf)
            if anon and op.vmf & stream.VMF_WRITE:
                pte = pte.mkdirty().mkwrite()
            set_ptes(self, self.ptep(self.pte_alloc(op.mm, start), start), start, pte, nr)
            for page in range(pfn, pfn + nr):
                folio.mapcount[page] += 1
                if anon:
                    folio.exclusive.add(page)
            self.inferred_pages += nr
            pfn += nr

    # --- faults ---

    def op_do_anonymous_page(self, op: SimpleNamespace) -> None:
        fault.do_anonymous_page(
            self, op.mm, op.va, op.pfn, op.order, op.vmf, exclusive=bool(op.flags & 1)
        )

    def op_folio_add_new_anon_rmap(self, op: SimpleNamespace) -> None:
        if not fault.add_new_anon_rmap_of(self, op.mm, op.va, op.pfn):
            self.op_do_anonymous_page(op)

    def op_set_pte_range(self, op: SimpleNamespace) -> None:
        fault.set_pte_range(
            self, op.mm, op.va, op.pfn, op.nr, op.order, op.flags, op.vmf,
            shmem=bool(op.info & state.INFO_SHMEM),
            swapbacked=bool(op.info & state.INFO_SWAPBACKED),
        )  # fmt: skip

    def op_wp_page_copy(self, op: SimpleNamespace) -> None:
        fault.wp_page_copy(self, op.mm, op.va, op.pfn, op.order, op.vmf)

    def op_wp_page_reuse(self, op: SimpleNamespace) -> None:
        fault.wp_page_reuse(self, op.mm, op.va)

    def op_do_swap_page(self, op: SimpleNamespace) -> None:
        fault.do_swap_page(
            self, op.mm, op.va, op.pfn, op.nr, op.order, op.vmf,
            exclusive=bool(op.flags & 1), new=bool(op.arg),
        )  # fmt: skip

    def op_do_wp_page(self, op: SimpleNamespace) -> None:
        fault.do_wp_page(self, op.mm, op.va, op.pfn, op.vmf)

    def op_infer_access(self, op: SimpleNamespace) -> None:
        fault.access(self, op.mm, op.va, op.nr, write=False)

    def op_access(self, op: SimpleNamespace) -> None:
        fault.access(self, op.mm, op.va, op.nr, write=bool(op.flags & 1))

    # --- rmap ---

    def op_try_to_unmap_one(self, op: SimpleNamespace) -> None:
        folio = self.folios.get(op.pfn)
        if folio is not None and folio.anon and op.info >= 0:
            folio.swapbacked = bool(op.info & state.INFO_SWAPBACKED)
            folio.swapcache = bool(op.info & state.INFO_SWAPCACHE)
        rmap.try_to_unmap_one(
            self, op.ctx, op.mm, op.pfn, op.va, op.vmend, op.vmf, op.flags, op.limit
        )

    def op_try_to_unmap_flush(self, op: SimpleNamespace) -> None:
        rmap.try_to_unmap_flush(self, op.ctx)

    def op_try_to_unmap_flush_dirty(self, op: SimpleNamespace) -> None:
        rmap.try_to_unmap_flush_dirty(self, op.ctx)

    def op_folio_referenced_one(self, op: SimpleNamespace) -> None:
        rmap.folio_referenced_one(self, op.mm, op.pfn, op.va, op.vmend)

    def op_try_to_migrate_one(self, op: SimpleNamespace) -> None:
        migrate.try_to_migrate_one(self, op.ctx, op.mm, op.pfn, op.va, op.vmend, op.flags)

    def op_remove_migration_pte(self, op: SimpleNamespace) -> None:
        migrate.remove_migration_pte(
            self, op.mm, op.pfn, op.order, op.va, op.vmend, op.vmf,
            flags=flags_of(op.info), zero=op.limit == 0,
        )  # fmt: skip

    # --- ranges ---

    def op_zap_page_range(self, op: SimpleNamespace) -> None:
        zap.zap_vma_range(self, op.ctx, op.mm, op.va, op.end, op.vmf, op.flags)

    def op_tlb_finish_mmu(self, op: SimpleNamespace) -> None:
        """Which tables were freed is known from the gather's bits alone."""
        bits, mm = op.flags, self.mm(op.mm)
        gather = tlb_gather_mmu(self, op.ctx, op.mm)
        if bits & FREE_PGTABLES:
            for start, _, table in self.tables_of(op.mm, op.va, op.end):
                if table is not None:
                    del mm.tables[start // self.pmd]
                    pte_free_tlb(self, gather, start)
        gather.fullmm = gather.fullmm or bool(bits & FULLMM)
        if bits & FREED_TABLES:
            gather.freed_tables = True
            gather.start = op.va if gather.start is None else min(gather.start, op.va)
            gather.end = max(gather.end, op.end)
            gather.cleared_ptes |= bool(bits & CLEARED_PTES)
            gather.cleared_pmds |= bool(bits & CLEARED_PMDS)
            gather.cleared_puds |= bool(bits & CLEARED_PUDS)
            whole = bits & FULLMM
            for start, _, table in [] if whole else self.tables_of(op.mm, op.va, op.end):
                if table is not None and not table.entries:
                    del mm.tables[start // self.pmd]
        tlb_finish(self, op.ctx)
        if bits & FULLMM:
            mm.tables.clear()
            mm.pending = mm.flushed = 0

    def op_exit_mmap(self, op: SimpleNamespace) -> None:
        self.context(op.ctx).gather = None
        tlb_gather_mmu(self, op.ctx, op.mm, fullmm=True)

    def op_copy_page_range(self, op: SimpleNamespace) -> None:
        fork.copy_page_range(self, op.mm, op.arg, op.va, op.end, op.vmf)

    def op_dup_mmap_end(self, op: SimpleNamespace) -> None:
        flush_tlb_mm(self)

    def op_change_protection(self, op: SimpleNamespace) -> None:
        mprotect.change_protection(self, op.ctx, op.mm, op.va, op.end, op.vmf, op.flags)

    def op_move_page_tables(self, op: SimpleNamespace) -> None:
        mremap.move_page_tables(self, op.mm, op.va, op.end, op.arg)

    def madvise(self, op: SimpleNamespace, what: str) -> None:
        gather = madvise.madvise_pte_range(self, op.ctx, op.mm, op.va, op.end, what, op.arg)
        if not op.nr:  # the VMA's last PMD
            tlb_end_vma(self, gather)

    def op_madvise_cold(self, op: SimpleNamespace) -> None:
        self.madvise(op, madvise.COLD)

    def op_madvise_pageout(self, op: SimpleNamespace) -> None:
        self.madvise(op, madvise.PAGEOUT)

    def op_madvise_free(self, op: SimpleNamespace) -> None:
        self.madvise(op, madvise.FREE)


def flags_of(info: int) -> dict[str, bool]:
    """Folio flags from the stream's INFO_* bits."""
    return {
        "anon": bool(info & state.INFO_ANON),
        "swapbacked": bool(info & state.INFO_SWAPBACKED),
        "swapcache": bool(info & state.INFO_SWAPCACHE),
        "shmem": bool(info & state.INFO_SHMEM),
    }
