# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine from the user's own timings, and how well they determine each cost."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from replay.cost.fit import Fitted, fit, free_costs, sigma, with_costs
from replay.cost.price import Draws, medians, price
from replay.cost.rows import Row
from replay.cost.run import work
from replay.cost.tables import Cost, Machine
from replay.cost.work import Work
from replay.scenarios.params import parse_size
from tracer.errors import UsageError

COLUMNS: Final = ("workload", "size", "folio_order", "time_ns")
OPTIONAL: Final = ("policy", "cpus", "spread")
DEFAULT_POLICY: Final = "linux-7.3"
SPREAD: Final = 0.05
# A cost whose interval shrinks to less than this share is what the timings say, not the table.
WELL: Final = 0.5


@dataclass(frozen=True)
class Calibration:
    """A fitted machine.

    :ivar determined: cost to posterior over prior sigma: 0 set by the timings, 1 not touched
    :ivar errors: relative error of every timing after the fit
    """

    machine: Machine
    fitted: Fitted
    determined: dict[str, float]
    errors: list[tuple[str, float]]


def read_timings(path: Path) -> list[dict[str, str]]:
    """Rows of a timings file.

    :raises UsageError: for a file without :data:`COLUMNS`, unknown columns, or no rows
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None
    if not rows or any(c not in rows[0] for c in COLUMNS):
        raise UsageError(
            f"{path} needs the columns {', '.join(COLUMNS)}; {', '.join(OPTIONAL)} are optional."
        )
    unknown = [c for c in rows[0] if c not in (*COLUMNS, *OPTIONAL)]
    if unknown:
        raise UsageError(f"{path}: unknown columns {', '.join(map(str, unknown))}.")
    return rows


def _number(given: dict[str, str], name: str, default: float, where: str) -> float:
    text = given.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0 if name != "folio_order" else -1.0
    if value < 0 or (value == 0 and name != "folio_order"):
        raise UsageError(f"{where}: {name} {text!r} is not a positive number.")
    return value


def _time_of(made: Work) -> Callable[[Draws], float]:
    return lambda draws: float(price(draws, made).total[0])


def timing_rows(machine: Machine, timings: Sequence[dict[str, str]], name: str) -> list[Row]:
    """Timings as rows of a fit.

    :param name: of the file, for messages
    """
    rows = []
    for number, given in enumerate(timings, 2):
        where = f"{name}, line {number}"
        order = int(_number(given, "folio_order", 0, where))
        params: dict[str, Any] = {
            "size": parse_size(given["size"]), "folio_size": 4096 << order,
            "cpus": int(_number(given, "cpus", 1, where)), "pte_mapped": order >= 9,
        }  # fmt: skip
        made = work(machine, given["workload"], given.get("policy") or DEFAULT_POLICY, **params)
        rows.append(
            Row(
                "timing", machine.name, f"{given['workload']} {given['size']} order {order}",
                _number(given, "time_ns", 0, where), _number(given, "spread", SPREAD, where),
                _time_of(made),
            )
        )  # fmt: skip
    return rows


def _all_free(machine: Machine) -> Machine:
    """Every cost of the machine may move; kernel code moves with ``sw`` only."""
    costs = {n: replace(c, kind="fitted") if c.value else replace(c, kind="assumed")
             for n, c in machine.costs.items()}  # fmt: skip
    events = {n: replace(c, kind="derived") for n, c in machine.software.items()}
    return replace(machine, costs=costs, software=events)


def calibrate(machine: Machine, path: Path, name: str) -> Calibration:
    """Fit a machine to timings.

    :param machine: what is believed before
    :param name: of the new machine
    """
    start = _all_free(replace(machine, name=name))
    used = timing_rows(start, read_timings(path), path.name)
    fitted = fit({name: start}, used)
    before = free_costs({name: start}, used)
    determined = {
        cost: sigma(after) / sigma(before[owner, cost])
        for (owner, cost), after in fitted.costs.items()
    }
    found = with_costs(start, {k: c.value for k, c in fitted.costs.items()})
    costs: dict[str, Cost] = {**machine.costs}
    for (_, cost), after in fitted.costs.items():
        if determined[cost] < 1:
            costs[cost] = replace(after, source=f"{path.name}; before: {after.source}")
    errors = [(r.title, r.predict(medians(found)) / r.published - 1) for r in used]
    made = replace(
        machine, name=name, title=f"{machine.title}, calibrated on {path.name}", costs=costs
    )
    return Calibration(made, fitted, determined, errors)


def to_toml(found: Calibration, base: str) -> str:
    """The machine as a file that ``--machine`` reads."""
    lines = [
        "# SPDX-License-Identifier: GPL-2.0-or-later",
        f'base = "{base}"', f'name = "{found.machine.name}"', f'title = "{found.machine.title}"',
        "", "[cost]",
    ]  # fmt: skip
    for name, share in found.determined.items():
        c = found.machine.costs[name]
        if share < WELL:
            lines.append(
                f"{name} = {{ value = {c.value}, low = {c.low}, high = {c.high}, "
                f'kind = "fitted", source = "{c.source}" }}'
            )
    return "\n".join(lines) + "\n"
