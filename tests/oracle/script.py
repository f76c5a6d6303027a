# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams written by hand, run on the engine: what closed forms are tested with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import polars as pl

from replay import counters, state, stream
from replay.arm64.geometry import GRANULES
from replay.cpu import Cpu
from replay.engine import execute, machine
from replay.lower import Stream
from replay.policies import POLICIES, Policy
from replay.stream import VMF_ANON, VMF_KNOWN, VMF_READ, VMF_SHARED, VMF_WRITE

RANGE = Cpu("range", "", tlbi_range=1)  # FEAT_TLBIRANGE and nothing else
PLAIN = Cpu("plain", "")
ANON = VMF_ANON | VMF_KNOWN | VMF_READ | VMF_WRITE
SHARED = VMF_SHARED | VMF_KNOWN | VMF_READ | VMF_WRITE
MAPPED_ANON = state.INFO_ANON | state.INFO_SWAPBACKED | state.INFO_SWAPCACHE
SHMEM = state.INFO_SHMEM | state.INFO_SWAPBACKED
BASE = 1 << 40
TTU_SYNC, TTU_BATCH_FLUSH = 0x10, 0x40


class Counts(Counter[str]):
    """Counters of some ops, by name; ``tlbi``, ``dsb`` and ``convert`` are sums."""

    def __missing__(self, name: str) -> int:
        return sum(self[part] for part in counters.SUMS.get(name, ()))

    def pick(self, *names: str) -> dict[str, int]:
        return {name: self[name] for name in names}


class Script:
    """Ops of one address space; each step is a result row, and later ones may be asked for.

    :ivar vmf: flags of the VMA that the next ops are in
    """

    def __init__(
        self, policy: str | Policy, cpu: Cpu = RANGE, granule: str = "4K", vmf: int = ANON
    ) -> None:
        self.policy = POLICIES[policy] if isinstance(policy, str) else policy
        self.cpu, self.granule, self.vmf = cpu, GRANULES[granule], vmf
        self.page = self.granule.page_size
        self.pmd = 1 << self.granule.pmd_shift
        self.cont = self.granule.cont_ptes
        self.vm_end = 1 << 46
        self.records: list[list[int]] = []
        self.steps: list[str] = []
        self.frames = 0

    # --- writing ---

    def step(self, name: str) -> Script:
        """What follows is counted under this name."""
        if name not in self.steps:
            self.steps.append(name)
        self.current = self.steps.index(name)
        return self

    def op(self, code: str, **fields: int) -> Script:
        record = [0] * stream.NR_FIELDS
        record[stream.F_CODE] = stream.CODES[code]
        record[stream.F_GROUP] = self.current
        values = {"mm": 1, "vmf": self.vmf, "vmend": self.vm_end, "limit": -1, "info": -1}
        for key, value in {**values, **fields}.items():
            record[getattr(stream, f"F_{key.upper()}")] = value
        self.records.append(record)
        return self

    def frame(self, order: int) -> int:
        first = -(-self.frames >> order) << order
        self.frames = first + (1 << order)
        return first

    def at(self, page: int) -> int:
        return BASE + page * self.page

    # --- the usual operations, in pages from the base ---

    def anon(self, page: int, order: int, count: int = 1) -> Script:
        """Written for the first time: young, dirty, exclusive."""
        for k in range(count):
            at = self.at(page + (k << order))
            self.op("do_anonymous_page", va=at, pfn=self.frame(order), order=order,
                    nr=1 << order, flags=1)  # fmt: skip
        return self

    def mapped(self, page: int, order: int) -> Script:
        """An anon folio mapped by PTEs whatever its size."""
        self.op("infer_map", va=self.at(page), end=self.at(page + (1 << order)),
                pfn=self.frame(order), order=order, info=MAPPED_ANON)  # fmt: skip
        return self

    def file(self, page: int, order: int, *, write: int, nr: int = 0, info: int = SHMEM) -> Script:
        """A file folio by faults of ``nr`` pages each, 0 for all at once."""
        head, step = self.frame(order), nr or 1 << order
        for k in range(0, 1 << order, step):
            self.op("set_pte_range", va=self.at(page + k), pfn=head + k, nr=step, order=order,
                    flags=write, info=info)  # fmt: skip
        return self

    def access(self, page: int, nr: int = 1, *, write: int) -> Script:
        return self.op("access", va=self.at(page), nr=nr, flags=write)

    def unmap(
        self, page: int, pfn: int, order: int,
        *, info: int = MAPPED_ANON, flags: int = TTU_BATCH_FLUSH,
    ) -> Script:  # fmt: skip
        sync = TTU_SYNC if order else 0
        return self.op("try_to_unmap_one", va=self.at(page), pfn=pfn, order=order,
                       nr=1 << order, flags=flags | sync, info=info)  # fmt: skip

    def ranged(
        self, code: str, page: int, pages: int, *, more: bool = False, **fields: int
    ) -> Script:
        """:param more: a scan of madvise that goes on in the next PMD"""
        end = self.at(page + pages)
        return self.op(code, va=self.at(page), end=end, nr=int(more), **fields)

    # --- running ---

    def run(self) -> Mapping[str, Counts]:
        """:return: counts of every step"""
        records = np.array(self.records, np.int64)
        groups = pl.DataFrame({"group": range(len(self.steps))})
        pages = (self.frames // 512 + 2) * 512
        flat = Stream(records, groups, pl.DataFrame(), pages, 4, 2, 16)
        out, self.state = execute(flat, machine(flat, self.policy, self.cpu, self.granule))
        return {
            name: Counts(dict(zip(counters.NAMES, out[row].tolist(), strict=True)))
            for row, name in enumerate(self.steps)
        }
