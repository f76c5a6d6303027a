# SPDX-License-Identifier: GPL-2.0-or-later
"""Predictions of cases: time of every side, how many times faster, by which primitive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from replay.cost import null
from replay.cost.cases import CASES, Case, Side
from replay.cost.price import (
    Draws,
    Estimate,
    Priced,
    distinguishable,
    draw,
    estimate,
    price,
    speedup,
)
from replay.cost.run import policy_for, setting_of
from replay.cost.tables import Machine, get, machines
from replay.cost.work import Work, work_of
from replay.engine import replay_stream
from replay.result import Replay
from replay.scenarios import Scenario, build
from tracer.errors import UsageError


@dataclass(frozen=True)
class Outcome:
    """One side on one machine.

    :ivar time: ns, with its 90 % interval
    :ivar ratio: times faster than the first side; None for the first
    :ivar null_ns: the null model's time; None where it has no rows
    """

    case: str
    machine: str
    label: str
    policy: str
    time: Estimate
    ratio: Estimate | None
    null_ns: float | None
    pages: float
    leaves_out: str

    @property
    def told_apart(self) -> bool:
        return self.ratio is None or distinguishable(self.ratio)


@cache
def _scenario(preset: str, params: tuple[tuple[str, Any], ...]) -> Scenario:
    return build(preset, **dict(params))


@cache
def _replay(
    preset: str, params: tuple[tuple[str, Any], ...], policy: str, like: str
) -> tuple[Replay, Mapping[str, int]]:
    """A replay, kept: machines with equal CPU features share it.

    :param like: a machine with those features
    """
    scenario, machine = _scenario(preset, params), get(like)
    chosen = policy_for(machine, policy)
    found = replay_stream(scenario.stream, chosen, machine.cpu, scenario.geometry)
    return found, chosen.features


def _like(machine: Machine) -> str:
    """The first listed machine that replays the same."""
    key = (machine.arch, machine.cpu.features())
    for name, other in machines().items():
        if (other.arch, other.cpu.features()) == key:
            return name
    return machine.name


def side_work(machine: Machine, case: Case, side: Side) -> Work:
    """What a side does, on this machine's CPU and cache."""
    params = tuple(sorted(side.params.items()))
    scenario = _scenario(side.preset, params)
    found, features = _replay(side.preset, params, side.policy, _like(machine))
    setting = setting_of(scenario, kernel_6_8=case.kernel_6_8)
    return work_of(found, features, setting, scenario.timed, machine.llc_mib)


@cache
def null_model() -> null.NullModel:
    """The null model, fitted on the calibration rows."""
    from replay.cost.rows import rows

    return null.fit(rows())


def _null_time(machine: Machine, side: Side) -> float | None:
    p = _scenario(side.preset, tuple(sorted(side.params.items()))).params
    pages = p.size // p.geometry().page_size * side.scale
    # page_fault3's times are those of an iteration; mprotect's rows count both directions.
    folios = pages / (1 << (0 if p.how == "C1" else p.order))
    both = 2 if side.null.startswith("mprotect") else 1
    return null_model().time((machine.name, side.null), both * pages, both * folios)


def priced(machine: Machine, case: Case, draws: Draws | None = None) -> list[Priced]:
    """Every side, with the same draws."""
    draws = draws or draw(machine)
    return [price(draws, side_work(machine, case, side)) for side in case.sides]


def predict(machine: Machine, case: Case, draws: Draws | None = None) -> list[Outcome]:
    """Predict a case on a machine."""
    sides = priced(machine, case, draws)
    out = []
    for i, (side, found) in enumerate(zip(case.sides, sides, strict=True)):
        ratio = None
        if i:
            scale = case.sides[0].scale / side.scale
            made = speedup(sides[0], found, case.sides[0].label, side.label)
            ratio = Estimate(made.median * scale, made.low * scale, made.high * scale)
        out.append(
            Outcome(
                case.name, machine.name, side.label, side.policy,
                estimate(found.total * side.scale), ratio, _null_time(machine, side),
                found.work.pages * side.scale, machine.leaves_out,
            )
        )  # fmt: skip
    return out


def predict_all(names: Iterable[str] | None = None) -> list[Outcome]:
    """Every case on every machine it concerns."""
    draws = {name: draw(machine) for name, machine in machines().items()}
    out = []
    for name in names or CASES:
        case = CASES[name]
        for machine in case.machines:
            out += predict(get(machine), case, draws[machine])
    return out


def find_cases(names: Iterable[str] | None) -> list[Case]:
    """Cases by name, all of them for None.

    :raises UsageError: for an unknown name
    """
    for name in names or ():
        if name not in CASES:
            raise UsageError(f"No case {name!r}.", f"Known: {', '.join(CASES)}.")
    return [CASES[name] for name in names or CASES]


def predict_on(case: Case, names: Iterable[str] | None) -> list[Outcome]:
    """A case on the named machines of its kind, on all of them for None.

    A user's machine takes part where machines of its architecture do.
    """
    arches = {get(name).arch for name in case.machines}
    chosen = [get(name) for name in names or case.machines]
    out = []
    for machine in chosen:
        if machine.arch in arches:
            out += predict(machine, case)
    return out
