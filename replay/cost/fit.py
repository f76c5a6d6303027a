# SPDX-License-Identifier: GPL-2.0-or-later
"""Fit the costs of kind ``fitted`` on the calibration rows: ``python -m replay.cost.fit``.

One least-squares problem over all machines: every row pulls by its published
spread, every cost is held by what was believed of it. Writes
``replay/machines/fitted.toml`` and the residuals in ``docs/cost-model.md``, the
same bytes each time. Needs scipy, which is not installed with mmtrace:
``pip install mmtrace[fit]``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from replay.cost import null
from replay.cost.price import Z90, Draws, medians
from replay.cost.rows import Row, rows
from replay.cost.tables import FITTED_FILE, FOLDER, Cost, Machine, prior
from replay.cost.work import Float64
from tracer.errors import MmtraceError

DOC: Final = Path(__file__).parents[2] / "docs" / "cost-model.md"
BEGIN: Final = "<!-- written by python -m replay.cost.fit: begin -->"
END: Final = "<!-- end -->"
SHARED: Final = "software"
DIGITS: Final = 3  # significant ones; more would not be the same on every machine

TOLERANCE: Final = 1e-12  # converged further than the digits that are kept

Key = tuple[str, str]  # machine or SHARED, cost


@dataclass(frozen=True)
class Fitted:
    """Result of a fit.

    :ivar costs: posterior of every free cost
    :ivar pull: how far each moved from what was believed, in its own sigmas
    """

    costs: dict[Key, Cost]
    pull: dict[Key, float]


def sigma(cost: Cost) -> float:
    """Log-normal sigma of an interval."""
    return float(np.log(cost.high / cost.low) / (2 * Z90))


def free_costs(machines: Mapping[str, Machine], used: Sequence[Row]) -> dict[Key, Cost]:
    """Costs of kind ``fitted`` of the machines that have rows, and the shared ones."""
    names = {r.machine for r in used}
    found: dict[Key, Cost] = {}
    for name in machines:
        if name in names:
            costs = machines[name].costs
            found |= {(name, k): c for k, c in costs.items() if c.kind == "fitted"}
    software = next(iter(machines.values())).software
    return found | {(SHARED, k): c for k, c in software.items() if c.kind == "fitted"}


def with_costs(machine: Machine, values: Mapping[Key, float]) -> Machine:
    """A machine with other medians."""
    costs, events = dict(machine.costs), dict(machine.software)
    for (owner, name), value in values.items():
        if owner == machine.name:
            costs[name] = replace(costs[name], value=value)
        elif owner == SHARED:
            events[name] = replace(events[name], value=value)
    return replace(machine, costs=costs, software=events)


def _draws(machines: Mapping[str, Machine], values: Mapping[Key, float]) -> dict[str, Draws]:
    return {name: medians(with_costs(m, values)) for name, m in machines.items()}


def residuals(
    logs: Float64, free: Mapping[Key, Cost], machines: Mapping[str, Machine], used: Sequence[Row]
) -> Float64:
    """Rows first, then what holds the costs; all in sigmas.

    :param logs: float64[len(free)], log of every free cost
    """
    values = dict(zip(free, np.exp(logs).tolist(), strict=True))
    draws = _draws(machines, values)
    measured = [np.log(r.predict(draws[r.machine]) / r.published) / r.spread for r in used]
    held = [(x - np.log(c.value)) / sigma(c) for x, c in zip(logs, free.values(), strict=True)]
    return np.array(measured + held)


def fit(machines: Mapping[str, Machine], used: Sequence[Row]) -> Fitted:
    """Fit.

    :raises MmtraceError: when scipy is not installed
    """
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise MmtraceError("Fitting needs scipy.", "pip install 'mmtrace[fit]'.") from None
    involved = {r.machine for r in used}
    machines = {n: m for n, m in machines.items() if n in involved}
    free = free_costs(machines, used)
    start = np.array([np.log(c.value) for c in free.values()])
    found = least_squares(
        residuals, start, args=(free, machines, used), xtol=TOLERANCE, ftol=TOLERANCE
    )
    spread = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
    costs, pull = {}, {}
    for (key, cost), x, sd in zip(free.items(), found.x, spread, strict=True):
        low, value, high = (_round(float(np.exp(x + k * sd))) for k in (-Z90, 0.0, Z90))
        costs[key] = replace(cost, value=value, low=low, high=high)
        pull[key] = float((x - np.log(cost.value)) / sigma(cost))
    return Fitted(costs, pull)


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def to_toml(fitted: Fitted) -> str:
    """The calibrated costs as a file."""
    lines = [
        "# SPDX-License-Identifier: GPL-2.0-or-later",
        "# Written by python -m replay.cost.fit; edit the machines' own files instead.",
    ]
    owner = ""
    for (name, key), cost in sorted(fitted.costs.items()):
        if name != owner:
            owner = name
            lines += ["", f"[{name}]"]
        lines.append(
            f"{key} = {{ value = {cost.value}, low = {cost.low}, high = {cost.high}, "
            f'kind = "fitted", source = "calibration rows; before: {cost.source}" }}'
        )
    return "\n".join(lines) + "\n"


def _figure(row: Row, value: float) -> str:
    return (
        f"{value:.3f}"
        if row.unit == "share"
        else f"{value:,.0f} ns"
        if value >= 100
        else f"{value:.1f} ns"
    )


def residual_table(machines: Mapping[str, Machine], fitted: Fitted, used: Sequence[Row]) -> str:
    """Every calibration row: published, fitted, and the null model beside it."""
    draws = _draws(machines, {k: c.value for k, c in fitted.costs.items()})
    simple = null.fit(used)
    lines = [
        "| row | machine | what | published | model | error | null model error |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    ours, theirs, both = [], [], []
    for row in used:
        value = row.predict(draws[row.machine])
        error = value / row.published - 1
        guess = simple.row(row)
        beside = "-" if guess is None else f"{guess / row.published - 1:+.1%}"
        ours.append(abs(error))
        if guess is not None:
            theirs.append(abs(guess / row.published - 1))
            both.append(abs(error))
        figures = f"{_figure(row, row.published)} | {_figure(row, value)}"
        lines.append(
            f"| {row.id} | {row.machine} | {row.title} | {figures} | {error:+.1%} | {beside} |"
        )
    lines += [
        "",
        f"Mean absolute error: {np.mean(ours):.1%} over all {len(ours)} rows. Where the null model "
        f"applies ({len(both)} rows): {np.mean(both):.1%}, the null model {np.mean(theirs):.1%}.",
    ]
    return "\n".join(lines)


def cost_table(fitted: Fitted) -> str:
    """What the fit made of every free cost."""
    lines = ["| owner | cost | fitted | 90 % interval | moved by |", "|---|---|---:|---:|---:|"]
    for (owner, name), c in sorted(fitted.costs.items()):
        interval = f"{c.low:g} to {c.high:g}"
        pull = f"{fitted.pull[owner, name]:+.1f} sigma"
        lines.append(f"| {owner} | {name} | {c.value:g} | {interval} | {pull} |")
    return "\n".join(lines)


def into_doc(text: str, block: str) -> str:
    """The document with the generated block replaced."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise MmtraceError(
            f"{DOC.name} has no place for the residuals.", f"Put {BEGIN} and {END} in."
        )
    return f"{head}{BEGIN}\n\n{block}\n\n{END}{tail}"


def main() -> None:
    """Fit, write the costs and the residuals."""
    used = rows()
    fitted = fit(prior(), used)
    (FOLDER / FITTED_FILE).write_text(to_toml(fitted))
    block = f"{residual_table(prior(), fitted, used)}\n\n{cost_table(fitted)}"
    if DOC.exists():
        DOC.write_text(into_doc(DOC.read_text(), block))
    else:
        print(block)
    print(f"Wrote {FITTED_FILE}", file=sys.stderr)


if __name__ == "__main__":
    main()
