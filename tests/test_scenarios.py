# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios: what they build, and what their streams keep to."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from replay import counters, cpu, policies, stream
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


def counts(name: str, policy: str = "linux-7.3", **params: object) -> dict[str, dict[str, int]]:
    """Counters by phase."""
    scenario = build(name, **{"size": "4M", **params})
    rows = replay_stream(
        scenario.stream, policies.get(policy), cpu.get(), scenario.geometry, checked=True
    ).rows
    sums = rows.group_by("phase").agg(pl.col([*counters.NAMES, *counters.SUMS]).sum())
    return {r["phase"]: r for r in sums.iter_rows(named=True)}


@pytest.mark.parametrize("granule", ["4K", "16K", "64K"])
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_invariants_hold_at_every_granule(name: str, granule: str) -> None:
    counts(name, granule=granule, folio_size="256K", size="8M")


@pytest.mark.parametrize(
    "state",
    [{"dirty": False}, {"young": False}, {"shared": True}, {"partial": 5}, {"alignment": 12288}],
)
@pytest.mark.parametrize("name", ["pageout", "fork", "munmap", "mprotect", "mremap"])
@pytest.mark.parametrize("policy", ["linux-6.1", "linux-6.12", "linux-7.3+anon-batch"])
def test_invariants_hold_in_every_state(name: str, state: dict[str, object], policy: str) -> None:
    counts(name, policy, **state)


def test_aged_entries_cost_the_getter_more_loads() -> None:
    """kernel-model 7.1: 102 loads a folio for young and dirty entries, 147 after aging."""
    folios = (4 << 20) // (64 << 10)
    assert counts("pageout")["pageout"]["ld"] == (3 + 99) * folios
    assert counts("pageout", young=False)["pageout"]["ld"] == (18 + 129) * folios


def test_mremap_moves_by_the_largest_step() -> None:
    """One flush for a PUD, one for each PMD and one for the table of PMDs that is left."""
    size = {"size": "1G", "folio_size": "64K"}
    assert counts("mremap", how="pud", **size)["mremap"]["tlbi"] == 1
    assert counts("mremap", how="pmd", **size)["mremap"]["tlbi"] == 512 + 1
    deferred = counts("mremap", "x-mremap-flush-deferred", how="pmd", **size)
    assert deferred["mremap"]["tlbi"] == 1 + 1


def test_a_pmd_mapped_folio_is_one_entry_until_it_is_split() -> None:
    whole = counts("munmap", folio_size="2M")["munmap"]
    split = counts("munmap", folio_size="2M", pte_mapped=True)["munmap"]
    assert (whole["xchg"], split["xchg"]) == (2, 1024)
    assert (whole["tlbi_range"], split["tlbi_range"]) == (1, 2)


def test_page_fault3_folds_only_with_large_folios_mapped_by_page() -> None:
    """kernel-model 7.5: C2 folds every block, C1, C3 and C4 none."""
    blocks = (4 << 20) // (64 << 10)
    folds = {
        how: counts("page_fault3", policy, how=how)["fault"]["fold"]
        for how, policy in {
            "C1": "linux-6.12",
            "C2": "linux-6.12",
            "C3": "x-nocontpte",
            "C4": "linux-7.3",
        }.items()
    }
    assert folds == {"C1": 0, "C2": blocks, "C3": 0, "C4": 0}
