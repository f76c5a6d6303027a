# SPDX-License-Identifier: GPL-2.0-or-later
"""Times on machines in the report: intervals, losers, and what cannot be told apart."""

from __future__ import annotations

import re
from pathlib import Path

from replay import api
from replay.cost import tables
from reports.costfigure import cost_figure, ratio, title, verdicts
from tests.test_reports_data import prices
from tests.test_reports_html import written
from tracer.store import Store

LABELS = ["unbatched", "batched"]


def test_losers_and_ties_are_named() -> None:
    said = verdicts(prices(), 0)
    assert said == "faster on 1 of 3 machines, slower on kunpeng-920"
    assert [ratio(p.faster[0]).partition("] ")[2] for p in prices()] == ["", "", ""]
    assert ratio(prices()[1].faster[0]) == "1.10x [0.90, 1.30], not distinguishable"


def test_the_figure_has_intervals_and_a_table() -> None:
    figure = cost_figure(prices(), LABELS)
    assert figure is not None
    (data,) = figure.variants[""]["data"]
    assert list(data["x"]) == [1.5, 1.1, 0.7]
    assert list(data["error_x"]["array"]) == [0.4, 0.2, 0.1]
    low, high = figure.variants[""]["layout"]["xaxis"]["range"]
    assert 10**low < 0.6
    assert 10**high > 1.9
    row = dict(zip(figure.twin.head, figure.twin.rows[0], strict=True))
    assert row["unbatched, us"] == "300.0 [200.0, 400.0]"
    assert (row["virtual"], figure.twin.rows[1][1]) == ("no", "yes")


def test_nothing_to_compare_is_no_figure(tmp_path: Path) -> None:
    assert cost_figure([], LABELS) is None
    assert cost_figure(prices(), ["unbatched"]) is None
    assert 'id="cost"' not in written(tmp_path)


def test_the_section_opens_with_a_sentence(tmp_path: Path) -> None:
    text = written(tmp_path, prices=prices())
    assert "Against unbatched: batched is faster on 1 of 3 machines, slower on kunpeng-920." in text
    assert re.search(r'<h2 id="cost">Cost</h2>', text)


def test_a_capture_is_priced_on_every_arm64_machine(store: Store) -> None:
    found = api.machine_prices(api.open_source(store))
    assert [p.machine.name for p in found] == [
        m.name for m in tables.machines().values() if not m.is_x86
    ]
    assert all(len(p.times) == 2 and len(p.faster) == 1 for p in found)
    for one in found:
        assert 0 < one.times[0].low <= one.times[0].median <= one.times[0].high
        assert title(one).startswith(one.machine.name)
