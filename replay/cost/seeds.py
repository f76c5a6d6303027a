# SPDX-License-Identifier: GPL-2.0-or-later
"""The five threads everybody knows: what was published beside what is predicted.

Their figures are printed, never fitted on. They were known when the assumed
costs were written down, so that agreement here is weaker evidence than a hit
of a frozen prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from replay.cost.cases import CASES
from replay.cost.predict import predict, priced
from replay.cost.price import Draws, Estimate, Priced, draw, estimate, price, speedup
from replay.cost.run import work
from replay.cost.schema import WAIT_GROUP
from replay.cost.tables import get
from replay.cost.work import INDEX, Float64

MIB: Final = 1 << 20
SEEDS: Final = ("000", "001", "002", "003", "004")


@dataclass(frozen=True)
class Line:
    """One figure.

    :ivar unit: ``ms``, ``us``, ``x`` (times faster), ``M/s`` or ``%``
    :ivar published: as it was given, "" where the thread gives none
    """

    what: str
    machine: str
    predicted: Estimate
    unit: str
    published: str
    note: str = ""


def _scaled(e: Estimate, by: float) -> Estimate:
    return Estimate(e.median * by, e.low * by, e.high * by)


def _unmap_lines() -> list[Line]:
    lines = []
    told = {
        ("A1", "apple-m3-vm"): ("37.402 ms, 12 %", "17.420 ms, 11 %", "2.15; 1.94..2.15"),
        ("A4", "apple-m3-vm"): ("", "", "no regression"),
        ("A1", "xeon-4210r"): ("54.986 ms, 1.5 %", "51.931 ms, 3 %", "1.06"),
        ("A4", "xeon-4210r"): ("", "", "no regression"),
    }
    for (case, machine), (before, after, ratio) in told.items():
        first, second = predict(get(machine), CASES[case])
        size = "64K" if case == "A1" else "4K"
        lines += [
            Line(f"{size} vanilla", machine, _scaled(first.time, 1e-6), "ms", before),
            Line(f"{size} patched", machine, _scaled(second.time, 1e-6), "ms", after),
        ]
        assert second.ratio is not None
        lines.append(Line(f"{size} faster", machine, second.ratio, "x", ratio, first.leaves_out))
    return lines


def _us(samples: Float64) -> Estimate:
    return _scaled(estimate(samples), 1e-3)


def _pair(machine: str, scenario: str, policy: str, **params: Any) -> Priced:
    return price(_drawn(machine), work(get(machine), scenario, policy, **params))


@cache
def _drawn(machine: str) -> Draws:
    return draw(get(machine))


def _gather_lines() -> list[Line]:
    """v3 asked for a whole batch whenever it cleared: a page for a zap of one page."""
    lines = []
    for machine in ("ampere-altra", "apple-m2-vm"):
        done = _pair(machine, "munmap", "linux-6.12", size=4096, folio_size=4096)
        forced = done.total + _drawn(machine).cost("gpage")
        lines += [
            Line("one page, fixed", machine, _us(done.total), "us", ""),
            Line("one page, forced", machine, _us(forced), "us", ""),
            Line("fix is faster", machine, estimate(forced / done.total), "x",
                 "regression"),
        ]  # fmt: skip
    return lines


def _flush_lines() -> list[Line]:
    lines = []
    told = {"cortex-a76": "'quite slow'", "ampere-altra": "", "xeon-4210r": "'no perf issues'"}
    for machine, said in told.items():
        per_pmd, once, _ = predict(get(machine), CASES["M6"])
        assert once.ratio is not None
        lines += [
            Line("flush per PMD", machine, _scaled(per_pmd.time, 1e-3), "us", ""),
            Line("one flush", machine, _scaled(once.time, 1e-3), "us", ""),
            Line("one is faster", machine, once.ratio, "x", said, once.leaves_out),
        ]
    return lines


def _fork_lines() -> list[Line]:
    """Batched fork; folios that a block does not cover; a folio mapped in part."""
    machine, size = "ampere-altra", 64 * MIB
    one, many = "linux-6.12,fork=unbatched", "linux-6.12"
    shapes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("fork, 64K", "fork", {}),
        ("fork, 64K, misaligned", "fork", {"alignment": 20 << 10}),
        ("fork, 4K", "fork", {"folio_size": 4096}),
        ("5 of 16 pages dropped", "partial", {}),
    )
    lines = []
    for title, scenario, params in shapes:
        policies = (one, many) if scenario == "fork" else (f"{many},zap=unbatched", many)
        base, new = (
            _pair(machine, scenario, p, **{"size": size, "folio_size": 64 << 10, **params})
            for p in policies
        )
        lines.append(Line(f"{title}: batching", machine, speedup(base, new), "x", ""))
    return lines


def _converts(found: Priced) -> float:
    """Share of the flushes that contpte_convert() makes: those of the faults, not munmap's."""
    sync = found.work.counts[:, INDEX["tlbi_sync"]]
    faults = [label == "set_pte_range" for label in found.work.labels]
    return float(sync[faults].sum() / sync.sum())


def _fault_lines() -> list[Line]:
    machine = get("kunpeng-920")
    told = {"C1": "92.38, fitted", "C2": "16.16", "C3": "80.36, fitted", "C4": "299.66"}
    lines = []
    for side, found in zip(CASES["K"].sides, priced(machine, CASES["K"]), strict=True):
        pages = 128 * MIB / 4096
        rate = estimate(machine.cpus * pages * 1e3 / found.total)
        lines.append(
            Line(f"configuration {side.label[1]}", machine.name, rate, "M/s", told[side.label])
        )
        if side.label == "C2":
            share = estimate(100 * _converts(found) * found.parts[WAIT_GROUP] / found.total)
            lines.append(Line("contpte_convert()", machine.name, share, "%", "76"))
    return lines


TITLES: Final = {
    "000": "Optimize anonymous large folio unmapping: 256 MiB swapped out",
    "001": "munmap of one page: clear_ptes() reserves a mmu_gather page",
    "002": "mremap of 1 GiB by PMD: a flush for each, or one at the end",
    "003": "Batch-copy PTE ranges during fork()",
    "004": "page_fault3 in four configurations, 128 tasks",
}
LEFT_OUT: Final = {
    "003": "A pinned folio is copied page by page; pins are not in the model.",
    "004": "Configurations 1 and 3 are calibration rows, 2 and 4 are predictions.",
}


def lines(seed: str) -> list[Line]:
    """The figures of one seed."""
    return {
        "000": _unmap_lines, "001": _gather_lines, "002": _flush_lines, "003": _fork_lines,
        "004": _fault_lines,
    }[seed]()  # fmt: skip
