# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of real captures say what the booted kernels did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from replay import api
from replay.result import Replay
from reports.compare import compare
from reports.gates import tripped
from reports.html import write_report
from reports.replayout import render as render_replay
from reports.styles import render
from reports.verdict import verdict
from reports.verifytext import verify_text
from tests.conftest import FIXTURES, KERNELS
from tracer.store import Store

CAPTURES = [
    f"{path.parent.name}/{path.name.removesuffix('.perf.data.zst')}"
    for kernel in KERNELS
    for path in sorted((FIXTURES / kernel).glob("*.perf.data.zst"))
]


@pytest.fixture(scope="session")
def replays(make_store: Callable[[str], Store]) -> Callable[[str], list[Replay]]:
    """``replays("linux-7.3/zap-64k")``: a fixture unbatched and batched, once per session."""
    return cache(lambda name: api.replay(api.open_source(make_store(name)), detailed=True))


def test_pageout_of_64k_folios(replays: Callable[[str], list[Replay]]) -> None:
    made = replays("linux-7.3/pageout-64k")
    by_op = {r.label: r for r in compare(made, by="op").rows}
    # 64 folios of 16 pages: one TLBI per page and one unfold each, against one per folio.
    assert by_op["try_to_unmap_one"].counts("tlbi") == (1088, 64)
    assert by_op["try_to_unmap_one"].counts("convert") == (64, 0)
    assert "fewer TLB invalidations" in verdict(compare(made))
    assert "not modelled" not in render(compare(made))


def test_pageout_of_base_pages_is_a_negative_control(
    replays: Callable[[str], list[Replay]],
) -> None:
    comparison = compare(replays("linux-7.3/pageout-4k"), by="order")
    first = comparison.rows[0]
    assert first.label == "order 0 (4K)"
    for counter in ("tlbi", "dsb", "convert", "xchg", "rmap_call", "ptl"):
        base, new = first.counts(counter)
        assert base == new, counter
    assert tripped(comparison, ["tlbi > +0% or dsb > +0%"]) == []


@pytest.mark.parametrize("name", CAPTURES)
def test_texts_and_page_of_a_capture(
    replays: Callable[[str], list[Replay]],
    make_store: Callable[[str], Store],
    tmp_path: Path,
    name: str,
) -> None:
    made, store = replays(name), make_store(name)
    for text in (render(compare(made)), render_replay(made, by="op").decode()):
        assert max(map(len, text.splitlines())) <= 75
    path = write_report(
        tmp_path / "report.html",
        made,
        prices=api.machine_prices(api.open_source(store)),
        loss=store.loss,
        diagnostics=store.diagnostics,
        provenance=asdict(store.provenance),
        command="mmtrace report",
    )
    text = path.read_text()
    assert len(text) < 2_500_000
    assert str(store.provenance.sha256) in text
    assert "mmwork" not in text
    assert 'id="plot-space"' in text
    assert 'id="plot-cost"' in text


def test_verify_against_the_capture_and_a_booted_kernel(
    make_store: Callable[[str], Store],
) -> None:
    source = api.open_source(make_store("linux-7.3/pageout-64k"))
    truth = FIXTURES / "linux-7.3" / "truth.json"
    for found in (api.verify(source), api.verify(source, truth_path=truth)):
        text = verify_text(found)
        assert "PASS: " in text
        assert max(map(len, text.splitlines())) <= 75


def test_two_kernels_side_by_side(make_store: Callable[[str], Store]) -> None:
    names = ("linux-6.12/pageout-64k", "linux-7.3/pageout-64k")
    made = [api.replay(api.open_source(make_store(n)), ["own"])[0] for n in names]
    comparison = compare(made)
    assert comparison.labels == tuple(str(r.provenance["kernel_release"]) for r in made)
    text = render(comparison)
    # Two captures are two workloads, however alike: it has to be said.
    assert "did not do the same operations" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 75


def test_the_workload_is_the_same_in_every_view(make_store: Callable[[str], Store]) -> None:
    source = api.open_source(make_store("linux-7.3/fork-64k"))
    plain, detailed = (compare(api.replay(source, detailed=d)).facts for d in (False, True))
    assert plain == detailed
