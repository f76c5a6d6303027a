# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypothesis strategies for op streams that a kernel could have recorded.

A stream is built op by op. The oracle replays it as it grows, so that each new
op finds its entries in a state that fits: only none entries are faulted on,
only mapped folios are reclaimed, only migration entries are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from hypothesis import strategies as st

from replay import state, stream
from replay.arm64.geometry import GRANULES, Granule
from replay.cpu import CPUS, FEATURES, Cpu
from replay.policies import FEATURES as POLICY_FEATURES
from replay.policies import LINUX_7_3, POLICIES, Policy
from replay.stream import (
    VMF_ANON,
    VMF_EXEC,
    VMF_KNOWN,
    VMF_LOCKED,
    VMF_PROT_NONE,
    VMF_READ,
    VMF_SHARED,
    VMF_UFFD_WP,
    VMF_WRITE,
)
from tests.oracle.entries import NonPresent, Pte, is_migration, is_swap
from tests.oracle.interpreter import Oracle
from tests.oracle.machine import Folio

ACCESS_MASK = VMF_READ | VMF_WRITE | VMF_EXEC | VMF_PROT_NONE
MAX_MMS = 4
CONTEXTS = 2
MAX_ORDER = 8  # below the PMD's order: the oracle has no PMD mappings

integers = cache(st.integers)


# --- machines -------------------------------------------------------------------------------


@st.composite
def policies(draw: Callable[..., Any]) -> Policy:
    """A listed policy, or one with every feature drawn."""
    name = draw(st.sampled_from([*POLICIES, "random"]))
    if name != "random":
        return POLICIES[name]
    values = {f.name: draw(st.integers(0, 1)) for f in POLICY_FEATURES}
    values["finish_fault_folio"] = draw(st.integers(0, 2))
    return LINUX_7_3.with_features("random", "", "", **values)


@st.composite
def cpus(draw: Callable[..., Any]) -> Cpu:
    """A profile, or any mix of CPU features."""
    name = draw(st.sampled_from([*CPUS, "random"]))
    if name != "random":
        return CPUS[name]
    return Cpu("random", "", **{f: draw(st.integers(0, 1)) for f in FEATURES})


def granules() -> st.SearchStrategy[Granule]:
    return st.sampled_from([GRANULES["4K"], GRANULES["4K"], GRANULES["16K"], GRANULES["64K"]])


# --- address spaces ------------------------------------------------------------------------


@dataclass(frozen=True)
class Vma:
    """:ivar flags: VMF_*"""

    mm: int
    start: int
    end: int
    flags: int

    @property
    def shared(self) -> bool:
        return bool(self.flags & VMF_SHARED)

    @property
    def accessible(self) -> bool:
        return not self.flags & VMF_PROT_NONE


@dataclass
class Case:
    """A stream, what runs it, and what the oracle counted for each op."""

    policy: Policy
    cpu: Cpu
    granule: Granule
    ops: list[list[int]] = field(default_factory=list)
    expected: list[list[int]] = field(default_factory=list)
    oracle: Oracle | None = None
    pages: int = 2

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    def __repr__(self) -> str:
        names = {code: name for name, code in stream.CODES.items()}
        lines = [f"{self.policy.name} {self.cpu.features()} {self.granule.name}"]
        if self.policy.name == "random":
            lines.append(str(dict(self.policy.features)))
        for i, op in enumerate(self.ops):
            shown = " ".join(f"{v:#x}" if v > 4096 else str(v) for v in op[2:])
            lines.append(f"{i:3} {names[op[0]]:24} {shown}")
        return "\n".join(lines)


def is_mapped(entry: Any) -> bool:
    """The entry maps a page of a folio, not the shared zero page."""
    return isinstance(entry, Pte) and not entry.special


class Builder:
    """Grows a stream; every ``add_*`` method appends zero or more ops."""

    def __init__(
        self, draw: Callable[..., Any], policy: Policy, cpu: Cpu, granule: Granule
    ) -> None:
        self.draw = draw
        self.case = Case(policy, cpu, granule)
        self.m = self.case.oracle = Oracle(policy, cpu, granule)
        self.page = granule.page_size
        self.vmas: list[Vma] = []
        self.next_frame = 0
        self.next_region = 1
        self.next_mm = 1
        self.gathers: dict[int, int] = {}  # context to mm

    # --- drawing ---

    def number(self, low: int, high: int) -> int:
        return int(self.draw(integers(low, max(low, high))))

    def chance(self, one_in: int) -> bool:
        return self.number(1, one_in) == one_in

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.number(0, len(items) - 1)]

    # --- plumbing ---

    def op(self, name: str, **fields: int) -> None:
        """Append one record, a result row of its own, and let the oracle replay it."""
        record = [0] * stream.NR_FIELDS
        record[stream.F_CODE] = stream.CODES[name]
        record[stream.F_GROUP] = len(self.case.ops)
        record[stream.F_LIMIT] = -1
        for key, value in fields.items():
            record[getattr(stream, f"F_{key.upper()}")] = int(value)
        self.case.ops.append(record)
        self.case.expected.append(self.m.step(record))

    def vma_fields(self, vma: Vma) -> dict[str, int]:
        return {"mm": vma.mm, "vmf": vma.flags, "vmstart": vma.start, "vmend": vma.end}

    def frames(self, order: int) -> int:
        """Fresh, naturally aligned frames; sometimes with a hole before them."""
        size = 1 << order
        first = -(-self.next_frame // size) * size
        self.next_frame = first + size
        return first

    def region(self, offset: int) -> int:
        """An address far from all others, ``offset`` pages behind a PMD boundary."""
        self.next_region += 1
        return (self.next_region << 44) + self.m.pmd + offset * self.page

    def gather_context(self, mm: int) -> int:
        """The context that gathers on this mm: one a mm, and one mm a context."""
        for ctx, owner in self.gathers.items():
            if owner == mm:
                return ctx
        ctx = self.number(0, CONTEXTS - 1)
        if ctx in self.gathers:
            self.op("tlb_finish_mmu", ctx=ctx, mm=self.gathers[ctx])
        self.gathers[ctx] = mm
        return ctx

    # --- looking around ---

    def entry(self, mm: int, va: int) -> Any:
        return self.m.lookup(mm, va)

    def is_free(self, vma: Vma, va: int, nr: int) -> bool:
        end = va + nr * self.page
        if va < vma.start or end > vma.end or end > self.m.pmd_addr_end(va, end):
            return False
        return all(self.entry(vma.mm, a) is None for a in range(va, end, self.page))

    def slots(self, vma: Vma) -> list[tuple[int, Any]]:
        """(address, entry) of the VMA's entries that are not none."""
        found = []
        for start, stop, table in self.m.tables_of(vma.mm, vma.start, vma.end):
            if table is None:
                continue
            base = start // self.m.pmd * self.m.pmd
            for index in sorted(table.entries):
                va = base + index * self.page
                if start <= va < stop:
                    found.append((va, table.entries[index]))
        return found

    def mappings(self, folio: Folio, migrating: bool = False) -> list[tuple[Vma, int, int]]:
        """(VMA, address of the folio's first page in it, frame there) of every mapping."""
        result = []
        for vma in self.vmas:
            seen = set()
            for va, entry in self.slots(vma):
                fits = is_migration(entry) if migrating else is_mapped(entry)
                if not fits or not folio.covers(entry.pfn, entry.pfn):
                    continue
                first = va - (entry.pfn - folio.head) * self.page
                clamped = max(first, vma.start)
                if first not in seen:
                    seen.add(first)
                    pfn = folio.head + (clamped - first) // self.page
                    result.append((vma, clamped, pfn))
        return result

    def vma_with(self, fits: Callable[[Vma, Any], bool]) -> tuple[Vma, list[tuple[int, Any]]]:
        """A VMA that has entries of a kind, and those; any VMA when none has."""
        found = [
            (vma, [(va, entry) for va, entry in self.slots(vma) if fits(vma, entry)])
            for vma in self.vmas
        ]
        having = [pair for pair in found if pair[1]]
        return self.pick(having or found)

    def mapped_folio(self) -> tuple[Folio, Vma, int, int] | None:
        """Some folio that is mapped, with one of its mappings."""
        vma, ptes = self.vma_with(lambda _, entry: is_mapped(entry))
        if not ptes:
            return None
        folio = self.m.folio(self.pick(ptes)[1].pfn)
        where = [mapping for mapping in self.mappings(folio) if mapping[0] == vma]
        vma, va, pfn = self.pick(where)
        return folio, vma, va, pfn

    def sub_range(self, vma: Vma) -> tuple[int, int]:
        """The VMA, a stretch of blocks of it, or any pages around something mapped."""
        pages = (vma.end - vma.start) // self.page
        how = self.number(0, 3)
        if how == 0:
            return vma.start, vma.end
        used = [va for va, _ in self.slots(vma)]
        first = (self.pick(used) - vma.start) // self.page if used else 0
        if how == 1:
            first = max(0, first - self.number(0, 3))
            nr = self.number(1, min(pages - first, 2 * self.m.cont))
        elif how == 2:
            block = self.pick([4, self.m.cont])
            first = first // block * block
            nr = min(pages - first, block * self.number(1, 3))
        else:
            nr = self.number(1, min(8, pages - first))
        return vma.start + first * self.page, vma.start + (first + nr) * self.page

    # --- address spaces ---

    def add_vma(self, mm: int) -> None:
        pages = self.pick([3, 16, 40, 130, 300, 520])
        if self.case.granule.name == "4K" and self.chance(4):
            pages = 1100
        offset = self.pick([0, 0, 0, 1, self.m.cont, self.m.ptrs - 24, self.m.ptrs - self.m.cont])
        kind = self.pick([VMF_ANON, VMF_ANON, VMF_ANON, VMF_SHARED, VMF_SHARED])
        flags = kind | VMF_KNOWN | VMF_READ
        flags |= self.pick([VMF_WRITE, VMF_WRITE, VMF_WRITE, 0, VMF_WRITE | VMF_EXEC])
        flags |= self.pick([0, 0, 0, 0, VMF_LOCKED, VMF_UFFD_WP])
        start = self.region(offset)
        self.vmas.append(Vma(mm, start, start + pages * self.page, flags))

    def add_mm(self) -> None:
        mm = self.next_mm
        self.next_mm += 1
        for _ in range(self.number(1, 2)):
            self.add_vma(mm)

    def replace_vma(self, vma: Vma, start: int, end: int, flags: int) -> Vma:
        """Split a VMA so that [start, end) has its own flags."""
        self.vmas.remove(vma)
        parts = [replace(vma, end=start), replace(vma, start=end)]
        middle = replace(vma, start=start, end=end, flags=flags)
        self.vmas += [part for part in (*parts, middle) if part.start < part.end]
        return middle

    def add_fork(self) -> None:
        parent = self.pick(self.vmas).mm
        if self.next_mm > MAX_MMS:
            return
        child = self.next_mm
        self.next_mm += 1
        for vma in [v for v in self.vmas if v.mm == parent]:
            self.op("copy_page_range", **self.vma_fields(vma), va=vma.start, end=vma.end, arg=child)
            self.vmas.append(replace(vma, mm=child))
        self.op("dup_mmap_end", mm=parent)

    def add_exit(self) -> None:
        mm = self.pick(self.vmas).mm
        ctx = self.gather_context(mm)
        self.op("exit_mmap", mm=mm, ctx=ctx)
        for vma in [v for v in self.vmas if v.mm == mm]:
            self.op("zap_page_range", **self.vma_fields(vma), ctx=ctx, va=vma.start, end=vma.end,
                    flags=1)  # fmt: skip
        self.op("tlb_finish_mmu", mm=mm, ctx=ctx, flags=1 | 4 | 32, va=0, end=1 << 47)
        del self.gathers[ctx]
        self.vmas = [v for v in self.vmas if v.mm != mm]
        if not self.vmas:
            self.add_mm()

    # --- faults ---

    def place(self, vma: Vma, order: int) -> int | None:
        """An address for a folio: naturally aligned as faults are, or not as mremap leaves it."""
        size = self.page << order
        slack = (vma.end - vma.start) // self.page
        va = vma.start + self.number(0, min(slack - 1, 4 << max(order, 2))) * self.page
        if not self.chance(6):
            va = -(-va // size) * size
        return va if self.is_free(vma, va, 1 << order) else None

    def order(self) -> int:
        cont = self.m.cont.bit_length() - 1
        return int(self.pick([0, 0, 1, 2, 3, cont, cont, cont, cont + 1, MAX_ORDER, 4]))

    def add_fault(self) -> None:
        vma = self.pick(self.vmas)
        if not vma.accessible:
            return
        if vma.shared:
            self.file_fault(vma)
        elif self.chance(6):
            self.private_file_fault(vma)
        else:
            self.anon_fault(vma)

    def anon_fault(self, vma: Vma) -> None:
        """One folio, or a row of them, as a program that writes its memory makes them."""
        order = self.order()
        va = self.place(vma, order)
        for _ in range(self.pick([1, 1, 2, 5, 17]) if order < MAX_ORDER else 1):
            if va is None or not self.is_free(vma, va, 1 << order):
                return
            if 1 << order == self.m.ptrs and va % self.m.pmd == 0:
                return  # mapped by the PMD
            self.op(
                "do_anonymous_page", **self.vma_fields(vma), va=va, order=order,
                pfn=self.frames(order), nr=1 << order, flags=1,
            )  # fmt: skip
            va += self.page << order

    def private_file_fault(self, vma: Vma) -> None:
        va = self.place(vma, 0)
        if va is None:
            return
        write = bool(vma.flags & VMF_WRITE) and self.chance(2)
        pfn = self.frames(0)
        fields = {**self.vma_fields(vma), "va": va, "pfn": pfn, "order": 0}
        self.op("set_pte_range", **fields, nr=1, flags=int(write), info=0)
        if write:
            self.op("folio_add_new_anon_rmap", **fields, nr=1, flags=1)

    def file_fault(self, vma: Vma) -> None:
        """A run, or page after page, of a folio new to the page cache or known there."""
        files = {id(f): f for f in self.m.folios.values() if not f.anon and f.order}
        info = self.pick([0, state.INFO_SHMEM | state.INFO_SWAPBACKED])
        if files and self.chance(2):
            folio = self.pick(list(files.values()))
            head, order = folio.head, folio.order
        else:
            order = self.order()
            head = self.frames(order)
        va = self.place(vma, order)
        write = int(bool(vma.flags & VMF_WRITE) and self.chance(2))
        skip = self.number(0, (1 << order) - 1) if self.chance(4) else 0
        nr = (1 << order) - skip
        if va is None:
            return
        va += skip * self.page
        step = nr if self.chance(2) else 1
        for k in range(0, nr, step):
            self.op(
                "set_pte_range", **self.vma_fields(vma), va=va + k * self.page, flags=write,
                pfn=head + skip + k, nr=step, order=order, info=info,
            )  # fmt: skip
            if k > 40:
                return

    def add_access(self) -> None:
        vma, used = self.vma_with(lambda _, entry: isinstance(entry, Pte))
        if not used:
            return
        va = self.pick(used)[0]
        room = (self.m.pmd_addr_end(va, vma.end) - va) // self.page
        write = int(vma.flags & VMF_WRITE != 0 and self.chance(2))
        name = "access" if write or self.chance(2) else "infer_access"
        self.op(name, mm=vma.mm, va=va, nr=self.number(1, min(room, 40)), flags=write)

    def add_write_fault(self) -> None:
        """COW by copy, or reuse of an anon page that is ours."""

        def protected(vma: Vma, entry: Any) -> bool:
            if vma.flags & (VMF_SHARED | VMF_UFFD_WP | VMF_WRITE) != VMF_WRITE:
                return False
            return isinstance(entry, Pte) and entry.valid and not (entry.write or entry.uffd)

        vma, ptes = self.vma_with(protected)
        if not ptes:
            return
        va, pte = self.pick(ptes)
        folio = self.m.folio(pte.pfn)
        reuse = folio.anon and folio.mapcount[pte.pfn] == 1 and self.chance(2)
        fields = {**self.vma_fields(vma), "va": va, "nr": 1, "flags": 1}
        if pte.special or (folio.anon and self.chance(2)):
            self.op("do_wp_page", **fields, pfn=self.frames(0), order=0)
        elif reuse:
            self.op("wp_page_reuse", **fields, pfn=pte.pfn, order=folio.order)
        else:
            self.op("wp_page_copy", **fields, pfn=self.frames(0), order=0)

    def add_swapin(self) -> None:
        vma, swaps = self.vma_with(lambda vma, entry: vma.accessible and is_swap(entry))
        if not swaps:
            return
        va, entry = self.pick(swaps)
        known = {id(f): f for f in self.m.folios.values() if f.swap is not None}
        owner = next((f for f in known.values() if f.swap <= entry.pfn < f.swap + f.nr_pages), None)
        fields = self.vma_fields(vma)
        if owner is None or self.chance(3):
            new = self.number(0, 1)
            self.op("do_swap_page", **fields, va=va, pfn=self.frames(0), nr=1, order=0,
                    arg=new, flags=self.number(0, 1))  # fmt: skip
            return
        pfn, nr = owner.head + entry.pfn - owner.swap, 1
        room = min(
            self.m.pages(va, self.m.pmd_addr_end(va, vma.end)),
            owner.head + owner.nr_pages - pfn,
        )
        while nr < room and self.entry(vma.mm, va + nr * self.page) == entry.advance(nr):
            nr += 1
        nr = self.pick([1, nr, nr])
        mapped = any(owner.mapcount[page] for page in range(pfn, pfn + nr))
        self.op("do_swap_page", **fields, va=va, pfn=pfn, nr=nr, order=owner.order,
                flags=int(not mapped and self.chance(2)))  # fmt: skip

    # --- reclaim, aging, migration ---

    def info(self, folio: Folio) -> int:
        if not folio.anon:
            return (state.INFO_SHMEM | state.INFO_SWAPBACKED) if folio.shmem else 0
        backed = state.INFO_SWAPBACKED
        how = self.pick([backed | state.INFO_SWAPCACHE, backed | state.INFO_SWAPCACHE, 0, backed])
        return state.INFO_ANON | how

    def add_unmap(self) -> None:
        found = self.mapped_folio()
        if found is None:
            return
        folio, vma, va, pfn = found
        flags = self.pick([0x40, 0x40, 0x40, 0]) | (0x10 if folio.order else 0)
        flags |= self.pick([0, 0, 0, 0x8])
        if folio.order == 0 and self.chance(8):
            flags |= 0x20
        limit = self.number(0, folio.nr_pages) if self.chance(5) else -1
        self.op(
            "try_to_unmap_one", **self.vma_fields(vma), ctx=self.number(0, CONTEXTS - 1), va=va,
            pfn=pfn, nr=folio.nr_pages, order=folio.order, flags=flags, info=self.info(folio),
            limit=limit,
        )  # fmt: skip

    def add_unmap_unseen(self) -> None:
        """A folio that was mapped before the capture began."""
        vma = self.pick(self.vmas)
        order = self.order()
        va = self.place(vma, order)
        if va is None or not vma.accessible:
            return
        pfn = self.frames(order)
        kind = state.INFO_ANON | state.INFO_SWAPBACKED
        info = self.pick([0, state.INFO_SHMEM | state.INFO_SWAPBACKED]) if vma.shared else kind
        fields = {**self.vma_fields(vma), "va": va, "pfn": pfn, "order": order, "info": info,
                  "nr": 1 << order}  # fmt: skip
        name = self.pick(["infer_map", "try_to_unmap_one", "folio_referenced_one"])
        if name == "infer_map":
            fields["end"] = va + (self.page << order)
        self.op(name, **fields, flags=0x50 if name == "try_to_unmap_one" else 0)

    def add_flush(self) -> None:
        name = self.pick(["try_to_unmap_flush", "try_to_unmap_flush_dirty"])
        self.op(name, ctx=self.number(0, CONTEXTS - 1))

    def add_aging(self) -> None:
        found = self.mapped_folio()
        if found is not None:
            folio, vma, va, pfn = found
            self.op("folio_referenced_one", **self.vma_fields(vma), va=va, pfn=pfn,
                    order=folio.order, nr=folio.nr_pages, info=self.info(folio))  # fmt: skip

    def add_migrate_out(self) -> None:
        found = self.mapped_folio()
        if found is None:
            return
        folio = found[0]
        flags = self.pick([0, 0x40, 0x40, 0x50])
        for vma, va, pfn in self.mappings(folio):
            self.op(
                "try_to_migrate_one", **self.vma_fields(vma), ctx=self.number(0, CONTEXTS - 1),
                va=va, pfn=pfn, order=folio.order, nr=folio.nr_pages, flags=flags,
                info=self.info(folio),
            )  # fmt: skip

    def add_migrate_in(self) -> None:
        """Back to other frames, to the same ones, or split into pages."""
        entries = [e for vma in self.vmas for _, e in self.slots(vma) if is_migration(e)]
        if not entries:
            return
        folio = self.m.folio(self.pick(entries).pfn)
        info = self.info(folio) & ~state.INFO_SWAPCACHE
        if folio.order and self.chance(2):
            self.restore_pages(folio, info)
            return
        head = self.pick([folio.head, self.frames(folio.order)])
        for vma, va, pfn in self.mappings(folio, migrating=True):
            if pfn == folio.head:
                self.op("remove_migration_pte", **self.vma_fields(vma), va=va, pfn=head,
                        order=folio.order, info=info, nr=folio.nr_pages)  # fmt: skip

    def restore_pages(self, folio: Folio, info: int) -> None:
        slots = [
            (vma, va, entry)
            for vma in self.vmas
            for va, entry in self.slots(vma)
            if is_migration(entry) and folio.covers(entry.pfn, entry.pfn)
        ]
        for vma, va, entry in slots:
            assert isinstance(entry, NonPresent)
            zero = folio.anon and self.chance(8)
            self.op("remove_migration_pte", **self.vma_fields(vma), va=va, pfn=entry.pfn, order=0,
                    info=info, nr=1, limit=0 if zero else -1)  # fmt: skip

    # --- ranges ---

    def add_zap(self) -> None:
        vma = self.pick(self.vmas)
        ctx = self.gather_context(vma.mm)
        start, end = self.sub_range(vma)
        self.op("zap_page_range", **self.vma_fields(vma), ctx=ctx, va=start, end=end,
                flags=self.pick([1, 2, 0]))  # fmt: skip

    def add_finish(self) -> None:
        if not self.gathers:
            return
        ctx = self.pick(sorted(self.gathers))
        mm = self.gathers.pop(ctx)
        vmas = [v for v in self.vmas if v.mm == mm]
        if not vmas or self.chance(2):
            self.op("tlb_finish_mmu", ctx=ctx, mm=mm)
            return
        vma = self.pick(vmas)
        bits = self.pick([4 | 32, 4 | 16 | 32, 4 | 64, 1 << 40])
        tables = self.m.tables_of(mm, vma.start, vma.end)
        if bits == 1 << 40 and any(table.entries for *_, table in tables if table is not None):
            bits = 4 | 32
        self.op("tlb_finish_mmu", ctx=ctx, mm=mm, flags=bits, va=vma.start, end=vma.end)

    def add_mprotect(self) -> None:
        vma = self.pick(self.vmas)
        start, end = self.sub_range(vma)
        ctx = self.gather_context(vma.mm)
        if vma.flags & VMF_UFFD_WP and self.chance(2):
            flags, cp = vma.flags, self.pick([4, 8, 8 | 1])
        else:
            access = self.pick([VMF_READ, VMF_READ | VMF_WRITE, VMF_READ | VMF_WRITE,
                                VMF_READ | VMF_WRITE | VMF_EXEC, VMF_PROT_NONE])  # fmt: skip
            flags = (vma.flags & ~ACCESS_MASK) | access
            cp = int(bool(access & VMF_WRITE))
            vma = self.replace_vma(vma, start, end, flags)
        self.op("change_protection", **self.vma_fields(vma), ctx=ctx, va=start, end=end, flags=cp)

    def add_mremap(self) -> None:
        vma = self.pick(self.vmas)
        start, end = self.sub_range(vma)
        offset = start // self.page % self.m.ptrs
        offset = self.pick([offset, offset, offset % self.m.cont, offset + self.m.cont, offset + 3])
        target = self.region(offset)
        self.op("move_page_tables", **self.vma_fields(vma), va=start, end=end, arg=target)
        moved = self.replace_vma(vma, start, end, vma.flags)
        self.vmas.remove(moved)
        self.vmas.append(replace(moved, start=target, end=target + end - start))

    def add_madvise(self) -> None:
        vma = self.pick(self.vmas)
        if vma.flags & VMF_LOCKED or not vma.accessible:
            return
        name = self.pick(["madvise_cold", "madvise_pageout", "madvise_free"])
        if name == "madvise_free" and vma.shared:
            return
        ctx = self.gather_context(vma.mm)
        parts = self.m.tables_of(vma.mm, *self.sub_range(vma))
        for k, (start, stop, _) in enumerate(parts):
            split = self.pick([0, 0, start, start + self.page])
            self.op(name, **self.vma_fields(vma), ctx=ctx, va=start, end=stop,
                    nr=int(k + 1 < len(parts)), arg=split)  # fmt: skip

    def finish(self) -> Case:
        size = 1 << MAX_ORDER
        self.case.pages = (self.next_frame // size + 2) * size
        return self.case


# How often each step is tried, in about the proportion of its variants.
STEPS: tuple[str, ...] = (
    *["add_fault"] * 6, *["add_access"] * 3, *["add_write_fault"] * 3, *["add_swapin"] * 4,
    *["add_unmap"] * 4, *["add_unmap_unseen"] * 2, "add_flush", *["add_aging"] * 2,
    *["add_migrate_out"] * 2, *["add_migrate_in"] * 3, *["add_zap"] * 3, *["add_finish"] * 2,
    *["add_mprotect"] * 3, *["add_mremap"] * 2, *["add_madvise"] * 3, *["add_fork"] * 2,
    "add_exit",
)  # fmt: skip


@st.composite
def cases(draw: Callable[..., Any], steps: int = 20) -> Case:
    """A stream with what runs it.

    :param steps: at most this many steps after the first faults
    """
    builder = Builder(draw, draw(policies()), draw(cpus()), draw(granules()))
    builder.add_mm()
    for _ in range(builder.number(1, 6)):
        builder.add_fault()
    for _ in range(builder.pick([1, 2, 3, 5, 8, 13, steps])):
        getattr(builder, builder.pick(STEPS))()
    return builder.finish()
