# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of real captures say what the booted kernels did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from replay import cpu, policies, verify
from replay.arm64.geometry import granule_of
from replay.engine import replay_stream
from replay.lower import lower
from replay.result import Replay
from reports.compare import compare
from reports.gates import tripped
from reports.html import write_report
from reports.replayout import render as render_replay
from reports.styles import render
from reports.verdict import verdict
from reports.verifytext import verify_text
from tracer.store import Store

PAIR = ("unbatched", "batched")


@pytest.fixture(scope="session")
def replays(make_store: Callable[[str], Store]) -> Callable[[str], list[Replay]]:
    """``replays("linux-7.3/zap-64k")``: a fixture under both policies, once per session."""

    @cache
    def make(name: str) -> list[Replay]:
        store = make_store(name)
        have = store.provenance
        stream = lower(store.ops, store.enums)
        granule = granule_of(have.page_size or 4096)
        return [
            replay_stream(
                stream,
                policies.get(policy, kernel_release=have.kernel_release),
                cpu.get(),
                granule,
                provenance=asdict(have),
                store=str(store.path),
            )
            for policy in PAIR
        ]

    return make


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


@pytest.mark.parametrize("kernel", ["linux-6.12", "linux-7.3"])
@pytest.mark.parametrize("workload", ["pageout-64k", "pageout-4k", "zap-64k", "zap-4k"])
def test_texts_and_page_of_a_capture(
    replays: Callable[[str], list[Replay]],
    make_store: Callable[[str], Store],
    tmp_path: Path,
    kernel: str,
    workload: str,
) -> None:
    name = f"{kernel}/{workload}"
    made, store = replays(name), make_store(name)
    for text in (render(compare(made)), render_replay(made, by="op").decode()):
        assert max(map(len, text.splitlines())) <= 75
    path = write_report(
        tmp_path / "report.html",
        made,
        loss=store.loss,
        diagnostics=store.diagnostics,
        provenance=asdict(store.provenance),
        command="mmtrace report",
    )
    text = path.read_text()
    assert len(text) < 2_500_000
    assert str(store.provenance.sha256) in text
    assert "mmwork" not in text


def test_verify_against_the_capture(make_store: Callable[[str], Store]) -> None:
    store = make_store("linux-7.3/pageout-64k")
    own = policies.get("own", kernel_release=store.provenance.kernel_release)
    events = {key: store.event(key) for key in store.counts}
    found = verify.against_capture(store.ops, events, store.enums, own, cpu.get(), granule_of(4096))
    text = verify_text(found)
    assert "PASS: " in text
    assert max(map(len, text.splitlines())) <= 75
