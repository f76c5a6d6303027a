# SPDX-License-Identifier: GPL-2.0-or-later
"""The layouter and the number forms of every text."""

from __future__ import annotations

import pytest

from reports import numbers
from reports.text import Cell, Table, join, pack, right, to_ascii, wrap


def test_columns_align_and_trailing_blanks_go() -> None:
    table = Table()
    table.row("name", right("count"))
    table.row("a", right("7"))
    table.row("longer", right("1,024"))
    assert table.lines() == ["name    count", "a           7", "longer  1,024"]


def test_a_wide_span_widens_its_first_column() -> None:
    table = Table()
    table.row("", right("base"), right("a rather long label", 2))
    table.row("ld", right("1"), right("2"), right("+1"))
    assert table.lines() == [
        "    base  a rather long label",
        "ld     1                2  +1",
    ]


def test_footnotes_keep_digits_aligned_and_are_shared() -> None:
    table = Table()
    table.row("a", right("10", note="why"), "x")
    table.row("b", right("200"), "x")
    table.row("c", right("3", note="why"), "x")
    assert table.lines() == [
        "a   10[1]  x",
        "b  200     x",
        "c    3[1]  x",
        "[1] why",
    ]


def test_long_footnotes_are_filled() -> None:
    table = Table()
    table.row(Cell("a", note="word " * 30))
    assert max(map(len, table.lines())) <= 75


def test_centre_and_rule() -> None:
    table = Table()
    table.row(Cell("ab", "c"), "xxxx")
    table.row("123456")
    table.rule("=")
    assert table.lines() == ["  ab    xxxx", "123456", "=" * 12]


def test_pack_splits_only_what_does_not_fit() -> None:
    def build(part: object) -> Table:
        table = Table()
        table.row("lead", *[right("x" * 20) for _ in part])  # type: ignore[attr-defined]
        return table

    assert [t.width for t in pack([1, 2, 3, 4], build)] == [70, 26]
    assert [t.width for t in pack([1], build, width=10)] == [26]


def test_wrap_hangs_under_the_first_word() -> None:
    assert wrap("one two three", "n: ", width=9) == ["n: one", "   two", "   three"]
    assert wrap("", "head ") == ["head"]


def test_ascii_is_ascii() -> None:
    assert to_ascii("4 µs → 2 µs ± 1 …") == "4 us -> 2 us +- 1 ..."
    assert to_ascii("näme") == "n\\xe4me"


def test_names_from_captures_cannot_forge_rows() -> None:
    table = Table()
    table.row("evil\nname\x1b[2J", right("1", note="a\rb"))
    assert table.lines() == ["evil\\x0aname\\x1b[2J  1[1]", "[1] a\\x0db"]
    assert wrap("a\x1bb") == ["a\\x1bb"]


def test_join_leaves_out_empty_blocks() -> None:
    assert join([["a"], [], ["b"]]) == "a\n\nb\n"


@pytest.mark.parametrize(
    ("base", "new", "percent", "delta"),
    [
        (0, 0, "0%", "0"),
        (5, 5, "0%", "0"),
        (64, 0, "-100.00%", "-64"),
        (0, 64, "new", "+64"),
        (1123, 99, "-91.18%", "-1,024"),
        (1_000_000, 1, "-99.99%", "-999,999"),  # something is left
        (1_000_000, 1_000_001, "+<0.01%", "+1"),  # something changed
        (1_000_000, 999_999, "-<0.01%", "-1"),
        (1, 5000, "+499,900%", "+4,999"),
        (None, 3, "new", "+3"),
    ],
)
def test_differences_are_never_rounded_away(
    base: int | None, new: int, percent: str, delta: str
) -> None:
    assert numbers.percent(base, new) == percent
    assert numbers.delta(base, new) == delta


def test_other_forms() -> None:
    assert numbers.count(None) == "-"
    assert numbers.count(1234567) == "1,234,567"
    assert numbers.ratio(1088, 64) == "17.0x"
    assert numbers.ratio(64, 64) == numbers.ratio(0, 3) == ""
    assert numbers.listing(["a", "b", "c"]) == "a, b and c"
    assert numbers.plural(1, "entry", "entries") == "1 entry"
