# SPDX-License-Identifier: GPL-2.0-or-later
"""What a replay did, in the words of the cost tables: counters, and events derived from them.

The engine counts primitives; the kernel code between them is counted here, from
the same counters, as runs, steps, faults and calls. Nothing in this file knows
a price or a machine's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from replay import counters
from replay.cost.schema import EVENTS, PRIMITIVES
from replay.result import Replay

Float64 = npt.NDArray[np.float64]
Row = Mapping[str, Any]

NAMES: Final = (*(name for name, _, _ in PRIMITIVES), *EVENTS)
INDEX: Final = {name: i for i, name in enumerate(NAMES)}
STRUCT_PAGE: Final = 64  # bytes, one line
MIB: Final = 1 << 20
_PLAIN: Final = ("ld", "xchg", "cas", "st", "rmw_ref", "aex", "mb", "ubc", "mmc", "swp_lock",
                 "ptl", "gpage")  # fmt: skip
_MAPS: Final = ("do_anonymous_page", "set_pte_range", "do_swap_page")
_UNMAPS_NOSYNC: Final = ("try_to_unmap_one", "folio_referenced_one", "try_to_migrate_one")
# Read in mm/vmscan.c, mm/swap_state.c and mm/swapfile.c of 7.3, not in the replay: locks and
# flags of one folio on its way through shrink_folio_list(); swap cgroup and zeromap of one
# page, set and cleared.
RECLAIM_ATOMICS: Final = 30
SWAP_ATOMICS: Final = 4
# Orders that page_alloc.c keeps in per-CPU lists: up to PAGE_ALLOC_COSTLY_ORDER, and the PMD's.
_PCP_ORDERS: Final = (0, 1, 2, 3, 9)


@dataclass(frozen=True)
class Setting:
    """Where and among how many the work is done.

    :ivar cpus: CPUs that do the same at the same time
    :ivar sharers: of them, how many work on the same folios
    :ivar kernel_6_8: rmap counters of 6.8: no _large_mapcount, _nr_pages_mapped per page
    :ivar freed: pages that are unmapped go back to the page allocator
    """

    cpus: int = 1
    sharers: int = 1
    kernel_6_8: bool = False
    freed: bool = True


@dataclass(frozen=True)
class Work:
    """Everything that is priced.

    :ivar labels: operation of every row
    :ivar counts: float64[rows, len(NAMES)]; flush columns hold counts too
    :ivar waits: float64[rows], DSB ISHST that find TLBI outstanding
    :ivar pages: pages worked on in the timed phases, for ns per page
    """

    labels: tuple[str, ...]
    counts: Float64
    waits: Float64
    cpus: int
    pages: int

    def total(self, name: str) -> float:
        """:return: count of one primitive or event."""
        return float(self.counts[:, INDEX[name]].sum())


def order_shares(rows: pl.DataFrame) -> dict[int, float]:
    """Share of the mapped pages by folio order, from the operations that mapped them.

    :param rows: :attr:`replay.result.Replay.rows`, untimed ones too
    :return: order to share; order 0 alone when nothing was mapped in sight
    """
    mapped = rows.filter(pl.col("op").is_in(_MAPS)).group_by("order").agg(pl.col("nr_pages").sum())
    total = mapped["nr_pages"].sum()
    if not total:
        return {0: 1.0}
    return {int(o): int(n) / int(total) for o, n in sorted(mapped.iter_rows())}


def timed_rows(rows: pl.DataFrame, phases: list[str] | None) -> pl.DataFrame:
    """The rows that are priced: those of the phases, or all of a capture's."""
    if phases is None or "phase" not in rows.columns:
        return rows
    return rows.filter(pl.col("phase").is_in(phases))


class _Events:
    """Fills one row of counts from one result row."""

    def __init__(
        self, row: Row, features: Mapping[str, int], shares: Mapping[int, float], setting: Setting
    ) -> None:
        self.row = row
        self.features = features
        self.shares = shares
        self.setting = setting
        self.out = np.zeros(len(NAMES))
        self.op = str(row["op"])

    def add(self, name: str, count: float) -> None:
        self.out[INDEX[name]] += count

    def __getitem__(self, counter: str) -> int:
        return int(self.row[counter])

    def fill(self) -> Float64:
        """:return: float64[len(NAMES)]"""
        for name in _PLAIN:
            self.add(name, self[name])
        self._rmap()
        self._flushes()
        self.add("convert", self["fold"] + self["unfold"])
        self.add("pte_loop", max(self["xchg"] + self["cas"], self["st"]))
        special = getattr(self, f"_{self.op}", None)
        if special:
            special()
        return self.out

    def _rmap(self) -> None:
        """Counters on the page's own line, and those that its folio's pages share."""
        own = min(self["rmw_map"], self["page_line"])
        shared = self["rmw_map"] - own
        if self.setting.kernel_6_8 and self.op == "copy_page_range":
            shared = 0
        elif self.setting.kernel_6_8 and self.op == "zap_page_range":
            shared = round(own * (1 - self.shares.get(0, 0.0)))
        self.add("rmw_map", own)
        self.add("rmw_shared", shared)
        self.add("page_line", self["page_line"])
        if self.setting.sharers > 1:
            self.add("rmw_remote", shared + self["rmw_ref"])

    def _flushes(self) -> None:
        self.add("dsb", self["dsb_ishst"] + self["dsb_nshst"])
        self.add("tlbi_issue", self["tlbi_va"] + self["tlbi_range"] + self["tlbi_asid"])
        self.add("tlbi_sync", self["dsb_ish"])
        self.add("flush_local", self["dsb_nsh"])
        self.add("flush_ipi", self["flush_ipi"])

    def waits(self) -> float:
        """DSB ISHST behind TLBI that nobody has waited for.

        Within one folio where reclaim works on it before the next; aging goes on to the
        next folio at once.
        """
        if self.op not in _UNMAPS_NOSYNC:
            return 0.0
        nosync = self["dsb_ishst"] - self["dsb_ish"]
        first = 0 if self.op == "folio_referenced_one" else self["nr_ops"]
        return float(max(0, nosync - first))

    # --- events by operation ---

    def _large(self) -> float:
        return 1 - self.shares.get(0, 0.0)

    def _folios(self, pages: float) -> float:
        """Folios that so many pages make."""
        return sum(share * pages / (1 << order) for order, share in self.shares.items())

    def _steps(self, batched: bool, pages: float, least_order: int = 0) -> float:
        """Runs that a loop over entries takes: folios where it batches them, else entries."""
        if not batched:
            return self["ptep_get"]
        runs = sum(
            share * pages / (1 << order if order >= least_order else 1)
            for order, share in self.shares.items()
        )
        return max(runs, min(self["nr_ops"], pages))

    def _changed(self) -> int:
        """Entries that were rewritten, repaints apart; contpte blocks are 16 entries at 4K."""
        converts = self["fold"] + self["unfold"]
        block = 16 if converts * 16 <= self["xchg"] else 0
        return max(0, min(self["xchg"], self["st"]) - block * converts)

    def pages(self) -> int:
        """Pages whose entries the operation worked on."""
        return max(self["page_line"], self._changed(), self["cas"])

    def _free(self, pages: float) -> None:
        if not self.setting.freed:
            return
        for order, share in self.shares.items():
            self._free_folios(order, share * pages / (1 << order))

    def _free_folios(self, order: int, count: float) -> None:
        self.add("free_large" if order else "free_order0", count)
        if order not in _PCP_ORDERS:
            self.add("free_buddy", count)

    def _scan(self, others: float) -> None:
        """ptep_get() calls but those of ``others`` are comparisons inside folio_pte_batch()."""
        self.add("scan", max(0.0, self["ptep_get"] - others))

    def _copy_page_range(self) -> None:
        self.add("op_fork", self["nr_ops"])
        self.add("step_fork", self["rmap_call"] + self["swp_op"])
        if self.features["fork_batch"]:
            self.add("batch", max(0, self["rmw_map"] - self["page_line"]))
            self._scan(self["rmap_call"] + self["swp_op"])

    def _zap_page_range(self) -> None:
        self.add("op_zap", self["nr_ops"])
        self.add("step_zap", self["rmap_call"] + self["swp_op"])
        self.add("run_free", self["rmap_call"])
        self.add("batch", max(0, self["gslot"] - self["rmap_call"]))
        if self.features["zap_batch"] and self["gslot"] > self["rmap_call"]:
            self._scan(self["rmap_call"] + self["swp_op"])
        self._free(self["page_line"])

    def _change_protection(self) -> None:
        pages = self._changed()
        batched = bool(self.features["mprotect_batch"])
        self.add("op_mprotect", self["nr_ops"])
        steps = self._steps(batched, pages)
        self.add("entry_mprotect", pages)
        self.add("step_mprotect", steps)
        if batched:
            self.add("order0", pages * self.shares.get(0, 0.0))
            self._scan(steps)
            self.add("batch", max(0.0, steps - pages * self.shares.get(0, 0.0)) * self._large())
        # Only making entries writable looks at PG_anon_exclusive of every page.
        if "WRITE" in str(self.row["args"] or ""):
            self.add("page_line", pages)

    def _move_page_tables(self) -> None:
        self.add("op_mremap", self["nr_ops"])
        if not self["st"]:
            self.add("pmd_move", self["ptl"] / 2)
            return
        batched = bool(self.features["mremap_batch"] and self.features["contpte"])
        self.add("step_mremap", self._steps(batched, self._changed(), least_order=4))

    def _try_to_unmap_one(self) -> None:
        folios, order = self["nr_ops"], int(self.row["order"])
        pages = self["page_line"]
        self.add("rmw_ref", RECLAIM_ATOMICS * folios)
        self.add("step_ttu", self["check_pte"])
        self.add("reclaim_folio", folios)
        if self["swp_op"]:
            self.add("reclaim_swap", folios)
            self.add("reclaim_page", pages)
            self.add("zero_scan", pages)
            self.add("rmw_shared", SWAP_ATOMICS * pages)
        if order and self["check_pte"] < pages:
            self.add("batch", self["rmap_call"])
            self._scan(2 * self["check_pte"])
        # File folios are freed by reclaim as well, clean ones at once.
        self._free_folios(order, folios)

    def _folio_referenced_one(self) -> None:
        self.add("age_folio", self["nr_ops"])
        self.add("step_aging", self["check_pte"])
        if self.features["aging_batch"] and int(self.row["order"]):
            self.add("batch", self["check_pte"])
            self._scan(3 * self["check_pte"])

    def _madvise(self) -> None:
        # Every folio that MADV_PAGEOUT takes is isolated with a reference.
        entries = self["ptep_get"]
        folios: float = self["rmw_ref"] or entries
        if not self["rmw_ref"] and self.features["madvise_batch"] and not self["cp_get"]:
            folios = max(1.0, self._folios(entries))
        self.add("step_madvise", folios)
        self._scan(folios)

    _madvise_pageout = _madvise_cold = _madvise_free = _madvise

    def _do_anonymous_page(self) -> None:
        self.add("fault_anon", self["nr_ops"])
        self.add("clear_page", int(self.row["nr_pages"]))

    def _wp_page_copy(self) -> None:
        self.add("fault_anon", self["nr_ops"])
        self.add("clear_page", self["nr_ops"])

    def _wp_page_reuse(self) -> None:
        self.add("fault_anon", self["nr_ops"])

    def _do_swap_page(self) -> None:
        self.add("fault_swap", self["ptl"])

    def _set_pte_range(self) -> None:
        self.add("fault_file", self["ptl"])
        if int(self.row["order"]):
            self.add("fault_file_large", self["ptl"])
        self.add("user_line", self["page_line"])


def work_of(
    replay: Replay,
    features: Mapping[str, int],
    setting: Setting,
    phases: list[str] | None = None,
    llc_mib: float = 0.0,
) -> Work:
    """Turn a replay into work.

    :param features: of the policy that was replayed
    :param phases: timed phases of a scenario; None prices everything
    :param llc_mib: last level cache, 0 for one that holds everything
    """
    shares = order_shares(replay.rows)
    rows = timed_rows(replay.rows, phases)
    filled, waits, labels, pages = [], [], [], 0
    for row in rows.iter_rows(named=True):
        events = _Events(row, features, shares, setting)
        filled.append(events.fill())
        waits.append(events.waits())
        pages += events.pages()
        labels.append(events.op)
    counts = np.array(filled) if filled else np.zeros((0, len(NAMES)))
    _make_cold(counts, setting, llc_mib)
    return Work(tuple(labels), counts, np.array(waits, dtype=np.float64), setting.cpus, pages)


def _make_cold(counts: Float64, setting: Setting, llc_mib: float) -> None:
    """Lines that do not fit the last level cache come from DRAM.

    One task sweeps its lines in order and the prefetcher keeps up; where every
    CPU does so, memory does not.
    """
    lines, user = INDEX["page_line"], INDEX["user_line"]
    footprint = setting.cpus * STRUCT_PAGE * (counts[:, user].sum() + counts[:, lines].sum())
    cold = 0.0
    if setting.cpus > 1 and llc_mib and footprint > llc_mib * MIB:
        cold = 1 - llc_mib * MIB / footprint
    counts[:, INDEX["page_line_cold"]] += cold * counts[:, lines]
    counts[:, lines] *= 1 - cold
    counts[:, user] *= cold


def zero() -> Work:
    """Work that is none: for tests and for sums."""
    return Work((), np.zeros((0, len(NAMES))), np.zeros(0), 1, 0)


assert set(_PLAIN) <= set(counters.NAMES)
