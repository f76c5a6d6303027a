# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine tables: the schema, the listed machines, a user's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.cost import tables
from replay.cost.schema import COSTS, EVENTS, KINDS
from replay.cost.tables import NAMES, cost_of, from_toml, get, machines, prior
from tracer.errors import UsageError

GOOD = {"value": 2.0, "low": 1.0, "high": 4.0, "kind": "assumed", "source": "a test"}


@pytest.mark.parametrize("name", NAMES)
def test_every_machine_has_every_cost(name: str) -> None:
    for found in (prior()[name], machines()[name]):
        assert set(found.costs) == set(COSTS)
        assert set(found.software) == set(EVENTS)
        for cost in [*found.costs.values(), *found.software.values()]:
            assert cost.low <= cost.value <= cost.high
            assert cost.kind in KINDS
            assert cost.source


def test_x86_has_no_tlbi_and_says_what_it_leaves_out() -> None:
    xeon = get("xeon-4210r")
    assert all(xeon.costs[c].value == 0 for c in ("dsb", "tlbi_issue", "tlbi_sync", "dvm_sync"))
    assert xeon.costs["flush_ipi"].value > 0
    assert "PCID" in xeon.leaves_out


@pytest.mark.parametrize("name", [n for n in NAMES if n != "xeon-4210r"])
def test_arm64_has_no_ipi_flush(name: str) -> None:
    assert get(name).costs["flush_ipi"].value == 0
    assert get(name).leaves_out == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, "unknown key"),
        ({"kind": "guessed"}, "unknown kind"),
        ({"low": 3.0}, "does not hold"),
        ({"high": 1.0}, "does not hold"),
        ({"low": -1.0}, "does not hold"),
        ({"value": 2.0, "low": 0.0}, "does not hold"),
        ({"source": " "}, "needs a source"),
        ({"value": "2"}, "numbers"),
        ({"value": True}, "numbers"),
    ],
)
def test_a_cost_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cost_of("here", {**GOOD, **change})


@pytest.mark.parametrize("field", sorted(GOOD))
def test_a_cost_has_all_fields(field: str) -> None:
    with pytest.raises(UsageError, match="missing"):
        cost_of("here", {k: v for k, v in GOOD.items() if k != field})


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_users_machine_differs_from_its_base(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'base = "ampere-altra"\nname = "mine"\ncpus = 64\n[cpu]\ntlbi_range = 1\n[cost]\n'
        'ld = { value = 2, low = 1, high = 3, kind = "measured", source = "my loop" }\n',
    )
    mine, base = get(str(path)), get("ampere-altra")
    assert (mine.name, mine.cpus, mine.cpu.tlbi_range) == ("mine", 64, 1)
    assert mine.costs["ld"].value == 2
    assert mine.costs["st"] == base.costs["st"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('base = "no-such"', "No machine"),
        ('base = "ampere-altra"\nspeed = 3', "unknown key"),
        ('base = "ampere-altra"\n[cost]\nwarp = 3', "unknown key"),
        ('base = "ampere-altra"\n[cpu]\nlse = 1', "unknown key"),
        ('base = "ampere-altra"\n[cpu]\nkpti = 2', "0 or 1"),
        ('base = "ampere-altra"\narch = "riscv"', "unknown arch"),
        ('base = "ampere-altra"\ncpus = "many"', "cpus has to be"),
        ('name = "alone"', "has to be"),
        ("not toml", "cannot be read"),
    ],
)
def test_a_users_machine_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        from_toml(write(tmp_path, text))


def test_unknown_and_missing_machines() -> None:
    with pytest.raises(UsageError, match="Known: apple-m2-vm"):
        get("apple-m9")
    with pytest.raises(UsageError, match="cannot be read"):
        get("/no/such/file.toml")


def test_fitted_costs_are_the_fitted_ones() -> None:
    """Every fitted cost replaces one that the machine's own file leaves to the fit."""
    data = tables.parse(tables.FOLDER / tables.FITTED_FILE)
    for owner, costs in data.items():
        before = tables.software() if owner == "software" else prior()[owner].costs
        assert all(before[name].kind == "fitted" for name in costs)
