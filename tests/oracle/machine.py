# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulated machine: address spaces, page tables, folios and counters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

from replay.arm64.geometry import Granule
from replay.cpu import Cpu
from replay.policies import Policy
from tests.oracle.entries import Entry


@dataclass(eq=False)
class Folio:
    """A naturally aligned power of two of page frames.

    :ivar mapcount: mappings of each page
    :ivar exclusive: pages with PG_anon_exclusive
    """

    head: int
    order: int
    anon: bool = False
    swapbacked: bool = False
    swapcache: bool = False
    shmem: bool = False
    partially_mapped: bool = False
    dirty: bool = False
    mapcount: Counter[int] = field(default_factory=Counter)
    exclusive: set[int] = field(default_factory=set)
    swap: int | None = None

    @property
    def nr_pages(self) -> int:
        return 1 << self.order

    @property
    def large(self) -> bool:
        return self.order > 0

    @property
    def nr_mapped(self) -> int:
        return sum(1 for count in self.mapcount.values() if count > 0)

    def covers(self, first: int, last: int) -> bool:
        return self.head <= first and last < self.head + self.nr_pages


@dataclass(eq=False)
class Table:
    """The last level of a page table: entries by index."""

    entries: dict[int, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Ptep:
    """A pointer to one entry."""

    table: Table
    index: int

    def at(self, index: int) -> Ptep:
        return Ptep(self.table, index)

    def plus(self, nr: int) -> Ptep:
        return Ptep(self.table, self.index + nr)

    def load(self) -> Entry:
        return self.table.entries.get(self.index)

    def store(self, entry: Entry) -> None:
        if entry is None:
            self.table.entries.pop(self.index, None)
        else:
            self.table.entries[self.index] = entry


@dataclass
class Mm:
    """:ivar pending: and ``flushed``: the halves of tlb_flush_batched"""

    tables: dict[int, Table] = field(default_factory=dict)
    pending: int = 0
    flushed: int = 0


@dataclass
class Gather:
    """struct mmu_gather of one tear-down."""

    mm: int
    fullmm: bool = False
    start: int | None = None
    end: int = 0
    freed_tables: bool = False
    cleared_ptes: bool = False
    cleared_pmds: bool = False
    cleared_puds: bool = False
    delayed_rmap: bool = False
    used: int = 0
    batch: int = 0
    page_batches: int = 0
    runs: int = 0


@dataclass
class Context:
    """A task: its mmu_gather, and its tlb_ubc."""

    gather: Gather | None = None
    flush_required: bool = False
    writable: bool = False


class Machine:
    """State and counters of one replay."""

    def __init__(self, policy: Policy, cpu: Cpu, granule: Granule) -> None:
        self.f = SimpleNamespace(**policy.features)
        self.cpu = cpu
        self.page_shift = granule.page_shift
        self.page = granule.page_size
        self.ptrs = granule.ptrs_per_pte
        self.pmd_shift = granule.pmd_shift
        self.pmd = 1 << granule.pmd_shift
        self.pud = 1 << granule.pud_shift
        self.cont = granule.cont_ptes
        self.c: Counter[str] = Counter()
        self.mms: dict[int, Mm] = {}
        self.folios: dict[int, Folio] = {}
        self.contexts: dict[int, Context] = {}
        self.next_swap = 0

    def count(self, name: str, nr: int = 1) -> None:
        self.c[name] += nr

    def mm(self, mm: int) -> Mm:
        return self.mms.setdefault(mm, Mm())

    def context(self, ctx: int) -> Context:
        return self.contexts.setdefault(ctx, Context())

    # --- page tables ---

    def pages(self, start: int, end: int) -> int:
        return (end - start) // self.page

    def table(self, mm: int, va: int) -> Table | None:
        return self.mm(mm).tables.get(va // self.pmd)

    def pte_alloc(self, mm: int, va: int) -> Table:
        if self.table(mm, va) is None:
            self.populated()
        return self.mm(mm).tables.setdefault(va // self.pmd, Table())

    def populated(self) -> None:
        """A PMD or PUD points to a table now; arm64 waits for its walkers to see it."""
        if self.f.broadcast_tlbi:
            self.count("dsb_ishst")

    def ptep(self, table: Table, va: int) -> Ptep:
        return Ptep(table, va // self.page % self.ptrs)

    def lookup(self, mm: int, va: int) -> Entry:
        table = self.table(mm, va)
        return self.ptep(table, va).load() if table else None

    def pmd_addr_end(self, va: int, end: int) -> int:
        return min((va // self.pmd + 1) * self.pmd, end)

    def tables_of(self, mm: int, va: int, end: int) -> list[tuple[int, int, Table | None]]:
        """(start, end, table) of every PMD of a range."""
        parts = []
        while va < end:
            stop = self.pmd_addr_end(va, end)
            parts.append((va, stop, self.table(mm, va)))
            va = stop
        return parts

    # --- folios ---

    def folio(self, pfn: int) -> Folio:
        """The folio of a frame; a frame nobody named is an order-0 page."""
        if pfn not in self.folios:
            self.folios[pfn] = Folio(pfn, 0)
        return self.folios[pfn]

    def is_folio(self, head: int, order: int) -> bool:
        folio = self.folios.get(head)
        return folio is not None and (folio.head, folio.order) == (head, order)

    def new_folio(self, head: int, order: int, **flags: bool) -> Folio:
        folio = Folio(head, order, **flags)
        for pfn in range(head, head + folio.nr_pages):
            self.folios[pfn] = folio
        return folio
