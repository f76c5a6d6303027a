# SPDX-License-Identifier: GPL-2.0-or-later
"""The terminal summary: widths, characters, colours, and what it says."""

from __future__ import annotations

import io
import re

import pytest

from reports.show import Look, bar, show, spark
from tests.test_reports_data import pair, replay
from tests.test_reports_html import LOSS

GOLDEN = """\
tlbi by folio order
order 0 (4K)      34 > 34       0%  #
order 4 (64K)  1,088 > 64  -94.12%  #######################################
"""


class Stream(io.StringIO):
    """A stream that says what it is."""

    def __init__(self, encoding: str, tty: bool) -> None:
        super().__init__()
        self._encoding, self._tty = encoding, tty

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._tty


def test_the_summary_is_golden() -> None:
    text = show(pair(), LOSS, Look())
    assert text.isascii()
    assert GOLDEN in text
    assert text.startswith("Against unbatched, batched needs 91.18% fewer TLB invalidations")
    assert "lost:   12 events in 2 places, and 1 times an unknown number" in text
    assert "mmwork" not in text
    assert "mmwork" in show(pair(), LOSS, Look(), raw=True)


@pytest.mark.parametrize("width", [40, 60, 75, 120])
@pytest.mark.parametrize("unicode", [True, False])
def test_lines_fit(width: int, unicode: bool) -> None:
    text = show(pair(), LOSS, Look(width, unicode))
    # Rows with long names may be wider than very narrow terminals; nothing is cut.
    assert max(map(len, text.splitlines())) <= max(width, 62)
    assert "\x1b" not in text


def test_three_policies_and_one() -> None:
    assert "other" in show([*pair(), replay("other")], None, Look())
    assert "unbatched needs 1,123 TLB invalidations" in show([replay()], None, Look())


@pytest.mark.parametrize(
    ("env", "tty", "colour"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_colour_follows_the_conventions(env: dict[str, str], tty: bool, colour: bool) -> None:
    assert Look.of(Stream("utf-8", tty), env).colour is colour


def test_width_and_characters_follow_the_terminal() -> None:
    assert Look.of(Stream("utf-8", True), {"COLUMNS": "100"}) == Look(100, True, True)
    assert Look.of(Stream("ascii", False), {"COLUMNS": "wide"}) == Look(75, False, False)
    assert Look.of(Stream("ascii", False), {"COLUMNS": "1"}).width == 40


def test_colour_carries_nothing_alone() -> None:
    plain = show(pair(), LOSS, Look(unicode=True))
    coloured = show(pair(), LOSS, Look(unicode=True, colour=True))
    assert coloured != plain
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


def test_bars_and_sparks() -> None:
    assert bar(0, 10, 8, True) == ""
    assert bar(10, 10, 8, True) == "█" * 8
    assert bar(1, 1000, 8, True) == "▏"
    assert bar(1, 1000, 8, False) == "#"
    assert spark([0, 1, 8], 8, True) == " ▁█"
    assert spark([0, 1, 8], 8, False) == " _#"
