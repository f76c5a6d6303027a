# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines: CPU features and the cost of every primitive, read from TOML.

A table says where each number comes from and how far off it may be. Entries of
kind ``fitted`` hold what was believed before the calibration; what the
calibration made of them is in ``fitted.toml``, which :mod:`replay.cost.fit`
writes and nobody edits.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from replay.cost.schema import COSTS, EVENTS, KINDS
from replay.cpu import FEATURES as CPU_FEATURES
from replay.cpu import Cpu
from tracer.errors import UsageError

FOLDER: Final = Path(__file__).parents[1] / "machines"
SOFTWARE_FILE: Final = "software.toml"
FITTED_FILE: Final = "fitted.toml"
NAMES: Final = (
    "apple-m2-vm", "apple-m3-vm", "ampere-altra", "neoverse-v2", "kunpeng-920", "cortex-a76",
    "xeon-4210r", "generic-arm64",
)  # fmt: skip
ARCHES: Final = ("arm64", "x86")
_FIELDS: Final = {
    "name": str, "title": str, "arch": str, "virtual": bool, "cpus": int, "llc_mib": float,
    "leaves_out": str, "dsb_waits": int, "dsb_waits_source": str,
}  # fmt: skip
_COST_FIELDS: Final = ("value", "low", "high", "kind", "source")


@dataclass(frozen=True)
class Cost:
    """One number.

    :ivar value: median, ns (``sw``: a factor)
    :ivar low: 5th percentile; ``high``: 95th
    :ivar kind: one of :data:`replay.cost.schema.KINDS`
    """

    value: float
    low: float
    high: float
    kind: str
    source: str


@dataclass(frozen=True)
class Machine:
    """One machine.

    :ivar llc_mib: last level cache
    :ivar dsb_waits: 1 where every DSB, ISHST too, waits for outstanding TLBI
    :ivar leaves_out: what the model does not see on this architecture, "" for arm64
    :ivar costs: one for each of :data:`replay.cost.schema.COSTS`
    :ivar software: one for each of :data:`replay.cost.schema.EVENTS`
    """

    name: str
    title: str
    arch: str
    virtual: bool
    cpus: int
    llc_mib: float
    leaves_out: str
    dsb_waits: int
    dsb_waits_source: str
    cpu: Cpu
    costs: Mapping[str, Cost]
    software: Mapping[str, Cost]
    path: str

    @property
    def is_x86(self) -> bool:
        return self.arch == "x86"


def parse(path: Path) -> dict[str, Any]:
    """A TOML file.

    :raises UsageError: when it cannot be read
    """
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"Machine file {path} cannot be read: {error}.") from None


def _refuse_unknown(where: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}.", f"Known: {', '.join(known)}.")


def cost_of(where: str, given: Any) -> Cost:
    """One entry of a table, checked.

    :raises UsageError: for missing or unknown fields, an unknown kind, an empty source, or
        numbers that are not 0 <= low <= value <= high
    """
    if not isinstance(given, dict):
        raise UsageError(f"{where}: not a table of {', '.join(_COST_FIELDS)}.")
    _refuse_unknown(where, given, _COST_FIELDS)
    missing = [f for f in _COST_FIELDS if f not in given]
    if missing:
        raise UsageError(f"{where}: {', '.join(missing)} missing.")
    numbers = [given[f] for f in ("low", "value", "high")]
    if not all(type(n) in (int, float) for n in numbers):
        raise UsageError(f"{where}: value, low and high are numbers.")
    low, value, high = (float(n) for n in numbers)
    if not 0 <= low <= value <= high < float("inf") or (value > 0 and low == 0):
        raise UsageError(f"{where}: 0 < low <= value <= high does not hold, nor are all 0.")
    if given["kind"] not in KINDS:
        raise UsageError(f"{where}: unknown kind {given['kind']!r}.", f"Known: {', '.join(KINDS)}.")
    if not isinstance(given["source"], str) or not given["source"].strip():
        raise UsageError(f"{where}: every number needs a source.")
    return Cost(value, low, high, given["kind"], given["source"])


def _all_costs(where: str, given: Any, names: tuple[str, ...]) -> dict[str, Cost]:
    if not isinstance(given, dict):
        raise UsageError(f"{where}: no table of costs.")
    _refuse_unknown(where, given, names)
    missing = [n for n in names if n not in given]
    if missing:
        raise UsageError(f"{where}: {', '.join(missing)} missing.")
    return {n: cost_of(f"{where}.{n}", given[n]) for n in names}


def software() -> dict[str, Cost]:
    """Kernel code, the same for all machines, as believed before the calibration."""
    data = parse(FOLDER / SOFTWARE_FILE)
    _refuse_unknown(SOFTWARE_FILE, data, ("cost",))
    return _all_costs(SOFTWARE_FILE, data.get("cost"), EVENTS)


def from_toml(path: Path, fixed: Mapping[str, Cost] | None = None) -> Machine:
    """A machine file. A user's file may name a listed machine as ``base`` and only differ.

    :raises UsageError: for anything the schema does not know or misses
    """
    data = parse(path)
    base: Machine | None = None
    if "base" in data:
        base = get(str(data.pop("base")))
    _refuse_unknown(path.name, data, (*_FIELDS, "cpu", "cost", "software"))
    head: dict[str, Any] = {}
    for field, kind in _FIELDS.items():
        if field not in data and base is not None:
            head[field] = getattr(base, field)
        elif type(data.get(field)) is not kind and not (
            kind is float and type(data.get(field)) is int
        ):
            raise UsageError(f"{path.name}: {field} has to be a {kind.__name__}.")
        else:
            head[field] = data[field]
    if head["arch"] not in ARCHES:
        raise UsageError(f"{path.name}: unknown arch.", f"Known: {', '.join(ARCHES)}.")
    flags = data.get("cpu", {})
    _refuse_unknown(f"{path.name}: cpu", flags, CPU_FEATURES)
    if any(v not in (0, 1) for v in flags.values()):
        raise UsageError(f"{path.name}: CPU features are 0 or 1.")
    if base is None:
        costs = _all_costs(path.name, data.get("cost"), COSTS)
        cpu = Cpu(head["name"], head["title"], **{k: int(v) for k, v in flags.items()})
        weights = dict(fixed or software())
    else:
        costs = {**base.costs, **_some(path.name, data.get("cost", {}), COSTS)}
        known = {k: getattr(base.cpu, k) for k in CPU_FEATURES}
        cpu = Cpu(head["name"], head["title"], **{**known, **flags})
        weights = dict(base.software)
    weights |= _some(path.name, data.get("software", {}), EVENTS)
    return Machine(**head, cpu=cpu, costs=costs, software=weights, path=path.name)


def _some(where: str, given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Cost]:
    _refuse_unknown(where, given, names)
    return {name: cost_of(f"{where}.{name}", given[name]) for name in given}


@cache
def prior() -> dict[str, Machine]:
    """The listed machines as believed before the calibration."""
    fixed = software()
    return {name: from_toml(FOLDER / f"{name}.toml", fixed) for name in NAMES}


@cache
def machines() -> dict[str, Machine]:
    """The listed machines, calibrated."""
    path = FOLDER / FITTED_FILE
    if not path.exists():
        return prior()
    data = parse(path)
    _refuse_unknown(path.name, data, ("software", *NAMES))
    events = {**software(), **_some(path.name, data.get("software", {}), EVENTS)}
    return {
        name: replace(
            machine,
            costs={**machine.costs, **_some(path.name, data.get(name, {}), COSTS)},
            software=events,
        )
        for name, machine in prior().items()
    }


def get(name: str) -> Machine:
    """A listed machine, or a user's from ``FILE.toml``.

    :raises UsageError: for an unknown name, with the known ones
    """
    if name.endswith(".toml"):
        return from_toml(Path(name), next(iter(machines().values())).software)
    found = machines().get(name)
    if found is None:
        raise UsageError(f"No machine {name!r}.", f"Known: {', '.join(NAMES)}, FILE.toml.")
    return found
