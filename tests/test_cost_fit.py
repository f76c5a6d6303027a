# SPDX-License-Identifier: GPL-2.0-or-later
"""The fit: same bytes, calibration rows met, better than the null model; frozen predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from replay.cost import fit, freeze, null, seeds
from replay.cost.breakeven import break_even, by_order, losers
from replay.cost.calibrate import calibrate, to_toml
from replay.cost.cases import CASES
from replay.cost.predict import predict
from replay.cost.price import medians
from replay.cost.rows import Row, rows
from replay.cost.tables import FITTED_FILE, FOLDER, get, machines, prior
from tests.conftest import ROOT
from tracer.errors import MmtraceError, UsageError

PREDICTIONS = sorted((ROOT / "docs" / "predictions").glob("v*.json"))


@pytest.fixture(scope="module")
def fitted() -> fit.Fitted:
    pytest.importorskip("scipy")
    return fit.fit(prior(), rows())


def error(row: Row) -> float:
    return row.predict(medians(machines()[row.machine])) / row.published - 1


def test_the_fit_writes_the_same_bytes(fitted: fit.Fitted) -> None:
    assert fit.to_toml(fitted) == (FOLDER / FITTED_FILE).read_text()
    document = fit.DOC.read_text()
    assert fit.residual_table(prior(), fitted, rows()) in document
    assert fit.cost_table(fitted) in document


@pytest.mark.parametrize("row", rows(), ids=lambda r: f"{r.id}-{r.title}")
def test_calibration_rows_are_within_their_spread(row: Row) -> None:
    assert abs(error(row)) <= 2 * row.spread


def test_the_null_model_is_beaten_on_its_rows() -> None:
    simple = null.fit(rows())
    pairs = [(abs(error(r)), simple.row(r), r.published) for r in rows()]
    ours = [e for e, n, _ in pairs if n is not None]
    theirs = [abs(n / p - 1) for _, n, p in pairs if n is not None]
    assert np.mean(ours) < np.mean(theirs) / 3


def test_only_section_one_is_fitted_on() -> None:
    assert {r.id for r in rows()} <= {
        "boot-map", "none-to-rw", "fork-base", "fork-x86", "zap-x86", "mprotect-base", "pud-move",
        "defer-dsb", "fault-1", "fault-3", "bcast-slope",
    }  # fmt: skip


def test_null_model_never_goes_negative() -> None:
    a = np.array([[1.0, 1.0], [1.0, 0.5], [1.0, 0.25]])
    assert null.nonnegative(a, np.array([1.0, 2.0, 3.0]))[1] == 0
    assert null.nonnegative(a, np.array([3.0, 2.0, 1.5])) == pytest.approx((1.0, 2.0))


# --- the known threads ---


def test_seed_000_is_predicted() -> None:
    ratio = {m: predict(get(m), CASES["A1"])[1].ratio for m in ("apple-m3-vm", "xeon-4210r")}
    assert 1.94 <= ratio["apple-m3-vm"].median <= 2.15  # type: ignore[union-attr]
    assert 1.03 <= ratio["xeon-4210r"].median <= 1.095  # type: ignore[union-attr]
    for machine in ratio:
        small = predict(get(machine), CASES["A4"])[1].ratio
        assert small is not None
        assert abs(small.median - 1) <= 0.02


def test_seed_004_is_predicted() -> None:
    found = {line.what: line.predicted.median for line in seeds.lines("004")}
    assert found["configuration 2"] == pytest.approx(16.16, rel=0.25)
    assert found["configuration 4"] == pytest.approx(299.66, rel=0.25)
    assert found["contpte_convert()"] == pytest.approx(76, abs=8)


@pytest.mark.parametrize("seed", seeds.SEEDS)
def test_every_seed_has_figures(seed: str) -> None:
    for line in seeds.lines(seed):
        assert line.predicted.low <= line.predicted.median <= line.predicted.high


def test_break_even_and_losers() -> None:
    found = by_order(get("apple-m3-vm"), "pageout", "linux-7.3", "linux-7.3+anon-batch",
                     orders=(0, 2, 4), size=2 << 20)  # fmt: skip
    assert break_even(found) == 2
    assert losers(found)[0].order == 0
    assert len(losers(found)) == 3


# --- frozen predictions ---


def test_predictions_are_on_file_and_unchanged() -> None:
    assert PREDICTIONS
    for path in PREDICTIONS:
        document = freeze.load(path)
        assert path.name == freeze.file_name(document)
        assert {p["case"] for p in document["predictions"]} >= {"A1", "A6-4", "F1-4", "P1-T2", "K"}


def test_some_file_is_of_this_model() -> None:
    assert freeze.model_hash() in {freeze.load(p)["model_sha256"] for p in PREDICTIONS}


def test_a_frozen_file_says_what_the_model_says() -> None:
    document = freeze.freeze(["A4", "M1"])
    text = freeze.to_text(document)
    assert json.loads(text) == json.loads(json.dumps(document))
    assert freeze.to_text(freeze.freeze(["A4", "M1"])) == text


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    text = freeze.to_text(freeze.freeze(["M1"]))
    path.write_text(text)
    freeze.load(path)
    path.write_text(text.replace('"seed": 2', '"seed": 3'))
    with pytest.raises(MmtraceError, match="changed after"):
        freeze.load(path)
    path.write_text("{}")
    with pytest.raises(UsageError, match="not a file of predictions"):
        freeze.load(path)


def test_score(tmp_path: Path) -> None:
    document = freeze.freeze(["A1"])
    path = tmp_path / "m.csv"
    path.write_text(
        "case,machine,side,time_ns\nA1,apple-m3-vm,before,40e6\nA1,apple-m3-vm,after,20e6\n"
        "A1,xeon-4210r,after,20e6\n"
    )
    (one,) = freeze.score(document, freeze.read_measurements(path))
    assert one.measured == 2.0
    assert one.sign
    assert one.hit
    assert freeze.summary([one])["maximum_error"] == pytest.approx(abs(one.error))
    path.write_text("case,machine,side,time_ns\nA1,apple-m3-vm,after,0\n")
    with pytest.raises(UsageError, match="line 2"):
        freeze.read_measurements(path)
    path.write_text("case,side\nA1,after\n")
    with pytest.raises(UsageError, match="needs the columns"):
        freeze.read_measurements(path)
    with pytest.raises(UsageError, match="No measured side"):
        freeze.score(document, [{"case": "A9", "machine": "x", "side": "y", "time_ns": 1.0}])


# --- a user's machine ---


def test_calibration_recovers_a_cost(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    from replay.cost.price import price
    from replay.cost.run import work

    truth = get("apple-m2-vm")
    path = tmp_path / "t.csv"
    lines = ["workload,size,folio_order,time_ns,policy,spread"]
    for scenario, order in (
        ("pageout", 4),
        ("pageout", 0),
        ("munmap", 0),
        ("munmap", 4),
        ("fork", 0),
    ):
        made = work(truth, scenario, "linux-7.3", size="4M", folio_size=4096 << order)
        time = float(price(medians(truth), made).total[0])
        lines.append(f"{scenario},4M,{order},{time},linux-7.3,0.01")
    path.write_text("\n".join(lines) + "\n")
    found = calibrate(get("generic-arm64"), path, "mine")
    assert all(abs(e) < 0.1 for _, e in found.errors)
    assert found.determined["tlbi_sync"] < 0.5
    assert found.determined["dvm_sync"] == pytest.approx(1, abs=0.01)
    made_toml = tmp_path / "mine.toml"
    made_toml.write_text(to_toml(found, "generic-arm64"))
    assert get(str(made_toml)).costs["tlbi_sync"].value == found.machine.costs["tlbi_sync"].value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workload,size\nfork,1M\n", "needs the columns"),
        ("workload,size,folio_order,time_ns,mood\nfork,1M,0,5,good\n", "unknown columns"),
        ("workload,size,folio_order,time_ns\nfork,1M,0,-5\n", "line 2: time_ns"),
        ("workload,size,folio_order,time_ns\nfork,1M,x,5\n", "line 2: folio_order"),
        ("workload,size,folio_order,time_ns\nknit,1M,0,5\n", "No scenario"),
    ],
)
def test_timings_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        calibrate(get("generic-arm64"), path, "mine")
