# SPDX-License-Identifier: GPL-2.0-or-later
"""The published rows that the costs are fitted on, and nothing else.

Every row is a time or a share that somebody published, the work that it timed,
and how closely it was given. Workloads are replayed at a fraction of the
published size, which is exact: they repeat per page table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from replay.cost.price import Draws, price, queued
from replay.cost.run import work
from replay.cost.tables import prior
from replay.cost.work import INDEX, NAMES, Work

G: Final = 1 << 30
PART: Final = 16  # of the published size is replayed
PAGES_1G: Final = G >> 12
ISB: Final = 8.0  # ns, 28 cycles on Firestorm, dougallj/applecpu
# Fork and zap rows are of 6.8-rc1 and of series on it.
_UNBATCHED: Final = "linux-6.12,fork=unbatched,zap=unbatched"
_BATCHED: Final = "linux-6.12"


@dataclass(frozen=True)
class Row:
    """One published figure.

    :ivar id: of the row in the list of published measurements, section 1
    :ivar published: ns, or a share
    :ivar spread: relative, one sigma: the published deviation, or how many digits were given
    :ivar predict: figure for a machine's costs
    :ivar workload: key of the null model's groups, "" for rows without pages
    :ivar pages: of the work; ``folios``: the same in folios
    """

    id: str
    machine: str
    title: str
    published: float
    spread: float
    predict: Callable[[Draws], float]
    unit: str = "ns"
    workload: str = ""
    pages: int = 0
    folios: float = 0


def by_hand(**counts: float) -> Work:
    """Work of a few primitives, where no scenario stands behind a row."""
    row = np.zeros((1, len(NAMES)))
    for name, count in counts.items():
        row[0, INDEX[name]] = count
    return Work(("by hand",), row, np.zeros(1), 1, 0)


def _timed(made: Work, scale: float, extra: float = 0.0) -> Callable[[Draws], float]:
    return lambda draws: float(price(draws, made).total[0]) * scale + extra


@cache
def _work(machine: str, scenario: str, policy: str, **params: Any) -> Work:
    return work(prior()[machine], scenario, policy, **params)


def _flush_rows() -> list[Row]:
    """One TLBI with its barriers; the fixmap's unmap also has an ISB and two stores."""
    one = by_hand(dsb=1, tlbi_issue=1, tlbi_sync=1)
    barrier = by_hand(dsb=1)
    return [
        Row("boot-map", "apple-m2-vm", "TLBI + DSB ISH + ISB of a fixmap unmap", 343.0, 0.03,
            _timed(one, 1, ISB + 2)),
        Row("boot-map", "apple-m2-vm", "DSB ISHST + ISB of one PTE", 16.0, 0.1,
            _timed(barrier, 1, ISB)),
        Row("boot-map", "ampere-altra", "TLBI + DSB ISH + ISB, mean of three", 1653.0, 0.02,
            _timed(one, 1, ISB + 2)),
        # Its machine is not stated; the figure agrees with the M2's.
        Row("none-to-rw", "apple-m2-vm", "TLBI + DSB that was elided", 350.0, 0.1, _timed(one, 1)),
    ]  # fmt: skip


def _fork_rows() -> list[Row]:
    base = _work(
        "apple-m2-vm", "fork", _UNBATCHED, size=G // PART, folio_size=4096, kernel_6_8=True
    )
    rows = [
        Row("fork-base", "apple-m2-vm", "fork of 1 GiB, order 0", 2.5e6, 0.1, _timed(base, PART),
            workload="fork/before", pages=PAGES_1G, folios=PAGES_1G),
    ]  # fmt: skip
    published = {
        "fork": ((0, 14.328e6, 14.035e6), (2, 14.263e6, 11.96e6), (9, 14.305e6, 10.076e6)),
        "munmap": ((0, 58.110e6, 57.715e6), (2, 44.198e6, 35.469e6), (9, 23.785e6, 9.910e6)),
    }
    for scenario, figures in published.items():
        for order, *times in figures:
            for policy, side, ns in zip(
                (_UNBATCHED, _BATCHED), ("before", "after"), times, strict=True
            ):
                made = _work("xeon-4210r", scenario, policy, size=G // PART, pte_mapped=True,
                             folio_size=4096 << order, kernel_6_8=True)  # fmt: skip
                rows.append(
                    Row("fork-x86" if scenario == "fork" else "zap-x86", "xeon-4210r",
                        f"{scenario} of 1 GiB, order {order}, {side}", ns, 0.02, _timed(made, PART),
                        workload=f"{scenario}/{side}", pages=PAGES_1G, folios=PAGES_1G >> order)
                )  # fmt: skip
    return rows


def _mprotect_rows() -> list[Row]:
    rows = []
    for order, seconds in ((0, 1.0), (4, 2.0)):
        made = _work("apple-m3-vm", "mprotect", "linux-6.12", size=G // PART,
                     folio_size=4096 << order)  # fmt: skip
        rows.append(
            Row("mprotect-base", "apple-m3-vm", f"40 times RO and RW over 1 GiB, order {order}",
                seconds * 1e9, 0.05, _timed(made, PART * 40), workload="mprotect/before",
                pages=PAGES_1G * 80, folios=(PAGES_1G * 80) >> order)
        )  # fmt: skip
    return rows


def _issue_share(draws: Draws) -> float:
    issue, sync = draws.cost("tlbi_issue")[0], draws.cost("tlbi_sync")[0]
    return float(issue / (issue + sync))


def _move_rows() -> list[Row]:
    # PMD locks of both sides, the flush of one ASID, repeated for the erratum.
    made = by_hand(pmd_move=1, ptl=2, dsb=1, tlbi_issue=2, tlbi_sync=2)
    return [
        Row("pud-move", "cortex-a76", "one PMD move with its flush", 2215.0, 0.05,
            _timed(made, 1)),
        Row("defer-dsb", "cortex-a76", "share of a flush before its final DSB", 0.05, 0.4,
            _issue_share, unit="share"),
    ]  # fmt: skip


def _contended_rows() -> list[Row]:
    # 203 us an iteration with broadcasts, 13 us without; two flushes each.
    one = by_hand(dsb=1, tlbi_issue=1, tlbi_sync=1)
    other = 203.0e3 / 2 * 0.13941 / 2.1696

    def contended(draws: Draws) -> float:
        base = price(draws, one).total
        service = draws.cost("dvm_sync") + draws.cost("dvm_tlbi")
        return float(queued(base, service, np.full_like(base, other), 32)[0]) + other

    return [
        Row(
            "bcast-slope",
            "generic-arm64",
            "half an iteration, 32 CPUs broadcast",
            101.5e3,
            0.1,
            contended,
        )
    ]


def _fault_rows() -> list[Row]:
    rows = []
    pages, policy = 128 << 8, "linux-6.12"
    for id_, how, total, used in (
        ("fault-1", "C1", 92_378_735, policy),
        ("fault-3", "C3", 80_364_074, f"{policy},contpte=0,fold=0"),
    ):
        made = _work(
            "kunpeng-920", "page_fault3", used, how=how, size=128 << 20, tasks=128, cpus=128
        )
        folios = pages >> (0 if how == "C1" else 4)
        rows.append(
            Row(id_, "kunpeng-920", f"page_fault3, configuration {how[1]}, per page",
                128 / total * 1e9, 0.03, _timed(made, 1 / pages), workload="page_fault3/before",
                pages=1, folios=folios / pages)
        )  # fmt: skip
    return rows


@cache
def rows() -> tuple[Row, ...]:
    """All calibration rows."""
    return (
        *_flush_rows(), *_fork_rows(), *_mprotect_rows(), *_move_rows(), *_contended_rows(),
        *_fault_rows(),
    )  # fmt: skip
