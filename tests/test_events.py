# SPDX-License-Identifier: GPL-2.0-or-later
"""mmtrace events: counts, losses, missing probes and how to record them."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from tests.conftest import FIXTURES, KERNELS
from tests.test_cli import mm
from tests.tiny import tiny
from tracer import schema
from tracer.events import describe, event_counts, missing_probes
from tracer.recipes import LINES
from tracer.store import Store
from tracer.vocabulary import BY_NAME, PROBES


def test_counts_and_losses_add_up(make_store: Callable[[str], Store]) -> None:
    store = make_store("linux-7.3/zap-64k")
    counts = event_counts(store)
    assert sum(c.count for c in counts) == sum(store.counts.values())
    assert {c.key for c in counts} >= {*store.counts, *store.provenance.probe_set}
    never = next(c for c in counts if c.key == "mmtrace:do_swap_page")
    assert (never.count, never.known) == (0, 0)


def test_losses_go_to_their_event() -> None:
    capture = tiny()
    key = next(iter(capture.events))
    capture.loss = pl.DataFrame(
        [(1, 0, key, 5, False, "x"), (2, 0, key, 0, True, "x"), (3, 0, None, 7, False, "y")],
        schema=schema.polars_schema(schema.LOSS_COLUMNS),
        orient="row",
    )
    (count,) = (c for c in event_counts(capture) if c.key == key)
    assert (count.known, count.unknown) == (5, 1)
    text = "\n".join(describe(capture))
    assert "5+?" in text
    assert "Not told of which event: 7 events" in text


def test_a_complete_capture_misses_nothing(make_store: Callable[[str], Store]) -> None:
    for kernel in KERNELS:
        store = make_store(f"{kernel}/zap-64k")
        assert not missing_probes(store.provenance.probe_set)
        assert "Every probe of the vocabulary" in describe(store)[-1]


def test_missing_probes_come_with_lines_and_lookalikes() -> None:
    every = [f"kprobes:{p.names[-1]}" for p in PROBES]
    assert not missing_probes(every)
    without = [k for k in every if not k.endswith(":try_to_unmap_one")]
    (one,) = missing_probes([*without, "kprobes:try_to_unmap_one_0\x1b"])
    assert one.probe.names == ("try_to_unmap_one",)
    assert one.close == ("try_to_unmap_one_0\x1b",)
    capture = tiny()
    capture.provenance.probe_set = ["kprobes:try_to_unmap_one_0\x1b"]
    text = "\n".join(describe(capture))
    assert text.replace("\n", "").isprintable()
    assert LINES["try_to_unmap_one"][0][1] in text


def test_a_static_tracepoint_is_no_probe() -> None:
    everything = [f"kmem:{p.names[0]}" for p in PROBES]
    assert len(missing_probes(everything)) == len(PROBES)


def test_every_probe_has_a_line() -> None:
    assert set(LINES) == set(BY_NAME) - {"__split_huge_pmd"}
    for name, alternatives in LINES.items():
        for _, line in alternatives:
            assert line.split()[0].endswith(f"/{name}")


@pytest.mark.parametrize("kernel", KERNELS)
def test_lines_are_those_the_fixtures_were_recorded_with(kernel: str) -> None:
    recorded = (FIXTURES / kernel / "kprobe_events.txt").read_text().splitlines()
    known = {line for alternatives in LINES.values() for _, line in alternatives}
    assert set(recorded) <= known


def test_command_line() -> None:
    run = mm("events", FIXTURES / "formats/pageout.lost.perf.data.zst")
    assert run.returncode == 0
    assert "lost: 100 events" in run.stdout
