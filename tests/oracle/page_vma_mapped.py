# SPDX-License-Identifier: GPL-2.0-or-later
"""page_vma_mapped_walk(): an iterator over the entries that map a folio."""

from __future__ import annotations

from tests.oracle.contpte import ptep_get
from tests.oracle.entries import Entry, NonPresent, Pte, is_migration, present
from tests.oracle.machine import Machine, Ptep


class Walk:
    """Each step is one page_vma_mapped_walk() call; leaving early is its _done().

    :param pfn: first frame looked for, ``nr`` of them
    :param sync: PVMW_SYNC
    :param migration: PVMW_MIGRATION
    """

    def __init__(
        self, m: Machine, mm: int, start: int, end: int, pfn: int, nr: int,
        *, sync: bool = False, migration: bool = False,
    ) -> None:  # fmt: skip
        self.m, self.mm, self.va, self.end = m, mm, start, end
        self.frames = range(pfn, pfn + nr)
        self.sync, self.migration = sync, migration
        self.ptep: Ptep | None = None
        self.locked = False

    def __iter__(self) -> Walk:
        return self

    def skip(self, nr: int) -> None:
        """The caller has dealt with the next entries too."""
        assert self.ptep is not None
        self.ptep = self.ptep.plus(nr)
        self.va += nr * self.m.page

    def __next__(self) -> tuple[Ptep, int]:
        self.m.count("walk")
        fresh = self.ptep is None
        while True:
            if fresh:
                self._restart()
                if self._map_pte() and self._check_pte():
                    break
            fresh = not self._next_pte()
            if not fresh and self._check_pte():
                break
        assert self.ptep is not None
        return self.ptep, self.va

    def _restart(self) -> None:
        self.locked = False
        for start, _, table in self.m.tables_of(self.mm, self.va, self.end):
            if table is not None:
                self.va, self.ptep = start, self.m.ptep(table, start)
                return
        raise StopIteration

    def _lock(self) -> None:
        if not self.locked:
            self.m.count("ptl")
        self.locked = True

    def _read(self) -> Entry:
        assert self.ptep is not None
        lockless = bool(self.m.f.pvmw_lockless) and not self.locked
        return ptep_get(self.m, self.ptep, lockless=lockless)

    def _map_pte(self) -> bool:
        """With PVMW_SYNC the lock comes first, else a look at the first entry."""
        if not self.sync:
            entry = self._read()
            wanted = isinstance(entry, NonPresent) if self.migration else present(entry)
            if not wanted:
                return False
        self._lock()
        return True

    def _check_pte(self) -> bool:
        self.m.count("check_pte")
        entry = ptep_get(self.m, self.ptep)
        mapped = isinstance(entry, Pte) and not entry.special
        right = is_migration(entry) if self.migration else mapped
        return right and entry.pfn in self.frames

    def _next_pte(self) -> bool:
        """To the next entry that is not none; False where a new table begins."""
        while True:
            self.va += self.m.page
            if self.va >= self.end:
                raise StopIteration
            if self.va % self.m.pmd == 0:
                return False
            self.ptep = self.ptep.plus(1)
            if self._read() is not None:
                self._lock()
                return True
