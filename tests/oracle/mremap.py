# SPDX-License-Identifier: GPL-2.0-or-later
"""mm/mremap.c: move_page_tables()."""

from __future__ import annotations

from dataclasses import replace

from tests.oracle.contpte import batch_hint, get_and_clear_ptes, ptep_get, set_ptes
from tests.oracle.entries import Pte
from tests.oracle.internal import folio_pte_batch
from tests.oracle.machine import Machine, Ptep, Table
from tests.oracle.rmap import flush_tlb_batched_pending
from tests.oracle.tlbflush import flush_tlb_range


class Move:
    """One mremap(); ``due``: a flush is left for the end."""

    def __init__(self, m: Machine, mm: int) -> None:
        self.m, self.mm, self.due = m, mm, False

    def flush(self, start: int, end: int) -> None:
        if self.m.f.mremap_flush:
            self.due = True
        else:
            flush_tlb_range(self.m, start, end)

    def extent(self, old: int, end: int, new: int, size: int) -> int:
        """Up to the next boundary of either address."""
        return min(size - old % size, size - new % size, end - old)

    def run(self, old: int, end: int, new: int) -> None:
        first, m = old, self.m
        while old < end:
            extent = self.extent(old, end, new, m.pud)
            if extent < m.pud or not self.move_tables(old, new, m.pud):
                extent = self.extent(old, end, new, m.pmd)
                table = m.table(self.mm, old)
                if table is not None and not (
                    extent == m.pmd and self.move_tables(old, new, m.pmd)
                ):
                    self.move_ptes(table, old, old + extent, new)
            old += extent
            new += extent
        if self.due:
            flush_tlb_range(m, first, end)

    def move_tables(self, old: int, new: int, size: int) -> bool:
        """move_normal_pmd() and _pud(): nothing may be mapped at the new place."""
        m, tables = self.m, self.m.mm(self.mm).tables
        sources = [old // m.pmd + k for k in range(size // m.pmd)]
        targets = [new // m.pmd + k for k in range(size // m.pmd)]
        if size == m.pmd and targets[0] in tables and not tables[targets[0]].entries:
            del tables[targets[0]]  # freed by the kernel, which no event tells
        if any(target in tables for target in targets):
            return False
        if any(source in tables for source in sources):
            # One lock for all PUDs of an mm; PMD locks are per PMD table.
            different = size == m.pmd and old // m.pud != new // m.pud
            m.count("ptl", 2 if different else 1)
            for source, target in zip(sources, targets, strict=True):
                if source in tables:
                    tables[target] = tables.pop(source)
            m.populated()
            self.flush(old, old + size)
        return True

    def move_ptes(self, table: Table, old: int, end: int, new: int) -> None:
        m = self.m
        target = m.pte_alloc(self.mm, new)
        m.count("ptl", 1 if target is table else 2)
        flush_tlb_batched_pending(m, self.mm)
        start, present = old, False
        while old < end:
            ptep, nr = m.ptep(table, old), 1
            entry = ptep_get(m, ptep)
            if isinstance(entry, Pte):
                present = True
                nr = self.batch(ptep, entry, m.pages(old, end))
            if entry is not None:
                moved = get_and_clear_ptes(m, ptep, old, nr)
                set_ptes(m, m.ptep(target, new), new, replace(moved), nr)
            old += nr * m.page
            new += nr * m.page
        if present:
            self.flush(start, end)

    def batch(self, ptep: Ptep, pte: Pte, room: int) -> int:
        """Only where the entry itself promises more than one."""
        m = self.m
        if not m.f.mremap_batch or room == 1 or batch_hint(m, ptep, pte) == 1:
            return 1
        return folio_pte_batch(m, ptep, pte, room, write=True)


def move_page_tables(m: Machine, mm: int, old: int, end: int, new: int) -> None:
    Move(m, mm).run(old, end, new)
