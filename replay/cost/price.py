# SPDX-License-Identifier: GPL-2.0-or-later
"""The price of work on a machine: samples of its time, by primitive.

Costs are drawn from their intervals once for a machine; every piece of work
that is compared is priced with the same draws, so that what two policies have
in common cancels. Draws are a function of the seed and the cost's name only.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from replay.cost.schema import EVENTS, GROUP, GROUPS, PRIMITIVES, SCALE, WAIT_GROUP
from replay.cost.tables import Cost, Machine
from replay.cost.work import INDEX, NAMES, Float64, Work

SAMPLES: Final = 2000
SEED: Final = 20261121
Z90: Final = 1.6448536269514722  # 95th percentile of the normal distribution
# Code size and inlining move a path that is not told apart by its counts; order-0 rows of
# fork-x86 and zap-x86, where nothing is batched, moved by 2.0 % and 0.7 %.
MODEL_ERROR: Final = 0.015
_FLUSH: Final = ("dsb", "tlbi_issue", "tlbi_sync")
# Done for a folio before or after its unmap, so no TLBI is under way meanwhile.
_OUTSIDE: Final = ("reclaim_folio", "reclaim_swap", "reclaim_page", "zero_scan", "free_order0",
                   "free_large", "free_buddy")  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """Cost of every primitive and event, in ns.

    :ivar costs: float64[samples, len(NAMES)]; row 0 is the median of every cost
    """

    machine: Machine
    costs: Float64

    def cost(self, name: str) -> Float64:
        """:return: float64[samples]"""
        column: Float64 = self.costs[:, INDEX[name]]
        return column


def draw_one(name: str, cost: Cost, samples: int, seed: int = SEED) -> Float64:
    """Samples of one cost: log-normal on either side of the value, never negative.

    :return: float64[samples]; half lie below ``value``, 5 % below ``low``, 5 % above ``high``
    """
    if cost.value == 0:
        return np.zeros(samples)
    # A stream for each name: adding a cost does not change the draws of another.
    z = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(samples)
    z[0] = 0.0
    below = np.log(cost.value / cost.low) / Z90
    above = np.log(cost.high / cost.value) / Z90
    out: Float64 = cost.value * np.exp(np.where(z < 0, below, above) * z)
    return out


def draw(machine: Machine, samples: int = SAMPLES, seed: int = SEED) -> Draws:
    """Draw all costs of a machine."""
    scale = draw_one(SCALE, machine.costs[SCALE], samples, seed)
    columns = [draw_one(n, machine.costs[n], samples, seed) for n, _, _ in PRIMITIVES]
    columns += [scale * draw_one(n, machine.software[n], samples, seed) for n in EVENTS]
    return Draws(machine, np.stack(columns, axis=1))


def medians(machine: Machine) -> Draws:
    """One draw: the median of every cost."""
    return draw(machine, 1)


def queued(base: Float64, service: Float64, other: Float64, cpus: int) -> Float64:
    """Time of flushes when ``cpus`` CPUs do the same work and broadcasts are served in turn.

    A CPU meets as many others in the queue as are flushing: ``(cpus - 1) * t / (t + other)``
    of them, each adding ``service``. That is a quadratic for t.

    :param base: float64[n], flush time alone; ``service``: what another broadcaster adds;
        ``other``: the rest of the work
    :return: float64[n], ``base`` for one CPU, growing with ``cpus``
    """
    if cpus <= 1:
        return base
    half = (base + service * (cpus - 1) - other) / 2
    root = np.sqrt(half * half + base * other)
    # A short queue is a difference of nearly equal numbers; its other root is not.
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Float64 = np.where(half >= 0, half + root, base * other / (root - half))
    return np.maximum(base, out)


def waiting(draws: Draws, work: Work) -> Float64:
    """DSB ISHST that wait for the previous entry's TLBI, where the CPU's DSB do that.

    The TLBI has been under way for as long as the code between two flushes ran.

    :return: float64[samples]
    """
    out = np.zeros(draws.costs.shape[0])
    if not draws.machine.dsb_waits:
        return out
    sync, aside = draws.cost("tlbi_sync"), [INDEX[n] for n in (*_FLUSH, *_OUTSIDE)]
    for row in np.flatnonzero(work.waits):
        counts = work.counts[row].copy()
        flushes = max(counts[INDEX["dsb"]], 1.0)
        counts[aside] = 0
        gap = draws.costs @ counts / flushes
        out += work.waits[row] * np.maximum(0.0, sync - gap)
    return out


@dataclass(frozen=True)
class Priced:
    """Time of one piece of work.

    :ivar parts: group to float64[samples], ns; index 0 is the median of every cost
    """

    draws: Draws
    work: Work
    parts: dict[str, Float64]
    primitives: dict[str, Float64]

    @property
    def total(self) -> Float64:
        """:return: float64[samples], ns"""
        out: Float64 = np.sum(list(self.parts.values()), axis=0)
        return out


def price(draws: Draws, work: Work) -> Priced:
    """Price work with a machine's draws."""
    counts = work.counts.sum(axis=0)
    by_name = {name: draws.costs[:, i] * counts[i] for name, i in INDEX.items()}
    flush: Float64 = np.sum([by_name[n] for n in _FLUSH], axis=0) + waiting(draws, work)
    service = (
        draws.cost("dvm_sync") * counts[INDEX["tlbi_sync"]]
        + draws.cost("dvm_tlbi") * counts[INDEX["tlbi_issue"]]
    )
    other: Float64 = np.sum([v for n, v in by_name.items() if n not in _FLUSH], axis=0)
    queue = queued(flush, service, other, work.cpus)
    parts = {group: np.zeros(draws.costs.shape[0]) for group in GROUPS}
    for name in NAMES:
        if name not in _FLUSH:
            parts[GROUP[name]] = parts[GROUP[name]] + by_name[name]
    parts[WAIT_GROUP] = parts[WAIT_GROUP] + queue
    by_name["tlbi_sync"] = (
        by_name["tlbi_sync"] + queue - np.sum([by_name[n] for n in _FLUSH], axis=0)
    )
    return Priced(draws, work, parts, by_name)


@dataclass(frozen=True)
class Estimate:
    """A time or a ratio with its 90 % interval."""

    median: float
    low: float
    high: float

    def overlaps(self, value: float) -> bool:
        return self.low <= value <= self.high


def estimate(samples: Float64) -> Estimate:
    """Median and 90 % interval; the median is that of the samples, not sample 0."""
    low, median, high = np.percentile(samples, (5, 50, 95))
    return Estimate(float(median), float(low), float(high))


def model_error(label: str, samples: int, seed: int = SEED) -> Float64:
    """What the model does not see, one factor for each policy.

    :return: float64[samples] around 1
    """
    z = np.random.default_rng([seed, zlib.crc32(b"model " + label.encode())])
    out: Float64 = np.exp(MODEL_ERROR * z.standard_normal(samples))
    return out


def speedup(base: Priced, new: Priced, base_label: str = "A", new_label: str = "B") -> Estimate:
    """How many times faster ``new`` is, with paired samples: common costs cancel.

    Equal work is equal: no interval is made up for it.
    """
    if np.array_equal(base.work.counts, new.work.counts) and base.work.cpus == new.work.cpus:
        return Estimate(1.0, 1.0, 1.0)
    n = base.total.shape[0]
    error = model_error(base_label, n) / model_error(new_label + "'", n)
    return estimate(base.total / np.maximum(new.total, 1e-9) * error)


def distinguishable(ratio: Estimate) -> bool:
    """Whether the model can tell the two policies apart."""
    return not ratio.overlaps(1.0)
