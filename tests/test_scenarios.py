# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios: what they build, and what their streams keep to."""

from __future__ import annotations

import numpy as np
import pytest

from replay import cpu, policies, stream
from replay.engine import replay_stream
from replay.result import ROW_COLUMNS
from replay.scenarios import PRESETS, SCENARIOS, build
from tracer.errors import UsageError

SMALL = {"size": "4M", "iterations": 1}


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_replays(name: str) -> None:
    scenario = build(name, **SMALL)
    done = replay_stream(scenario.stream, policies.get("linux-7.3"), cpu.get(), scenario.geometry)
    assert set(scenario.timed) <= set(scenario.phases) <= set(done.rows["phase"].to_list())
    assert [c for c, _ in ROW_COLUMNS] == done.rows.columns[: len(ROW_COLUMNS)]
    assert done.rows["nr_ops"].sum() == scenario.stream.ops.shape[0]
    assert done.inferred == {"pages": 0, "operations": 0}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_builds(name: str) -> None:
    scenario = build(name, size="4M", iterations=1)
    assert scenario.describe()["row"] == PRESETS[name].row
    assert not PRESETS[name].timed or PRESETS[name].timed in scenario.phases


def test_streams_are_int64_records() -> None:
    ops = build("pageout", size="2M").stream.ops
    assert ops.dtype == np.int64
    assert ops.shape[1] == stream.NR_FIELDS


@pytest.mark.parametrize(
    "given",
    [
        {"size": "x"},
        {"size": 3},
        {"folio_size": 5000},
        {"what": 1},
        {"granule": "5K"},
        {"tasks": 0},
    ],
)
def test_impossible_parameters_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        build("pageout", **given)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="No scenario"):
        build("pageut")
