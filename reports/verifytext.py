# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of ``mmtrace verify``: simulated against recorded, row by row."""

from __future__ import annotations

from typing import Protocol

import polars as pl

from reports import numbers
from reports.text import Cell, Table, join, right, to_ascii, wrap

EXACT = "exact"
EXPLAINED = "explained: "


class Verification(Protocol):
    """What :func:`replay.verify.verify` returns."""

    @property
    def table(self) -> pl.DataFrame:
        """Scope, phase, counter, simulated, real, verdict."""

    @property
    def passed(self) -> bool:
        """Whether nothing differs without a reason."""

    @property
    def truth(self) -> str:
        """What the replay was compared with."""

    @property
    def notes(self) -> list[str]:
        """What was left out and why."""


def summary(verification: Verification) -> str:
    """:return: one sentence with the number of equal rows."""
    table = verification.table
    equal = table.filter(pl.col("verdict") == EXACT).height
    explained = table.filter(pl.col("verdict").str.starts_with(EXPLAINED)).height
    differs = table.height - equal - explained
    parts = [f"{equal:,} of {numbers.plural(table.height, 'count')} equal"]
    if explained:
        verb = "differs" if explained == 1 else "differ"
        parts.append(f"{explained:,} {verb} for a stated reason")
    if differs:
        parts.append(f"{differs:,} differ{'s' if differs == 1 else ''}")
    return numbers.listing(parts)


def verify_text(verification: Verification, *, failures_only: bool = False) -> str:
    """The table, at most 75 columns; reasons are footnotes.

    :param failures_only: leave out the rows that are equal
    """
    table = Table()
    many = verification.table["scope"].n_unique() > 1
    scope = ["scope"] if many else []
    heads = [right(h) for h in ("simulated", "real")]
    table.row(*scope, "phase", "counter", *heads, "verdict")
    for row in verification.table.iter_rows(named=True):
        if failures_only and row["verdict"] == EXACT:
            continue
        table.row(*[row["scope"]] * many, row["phase"], row["counter"], *_cells(row))
    word = "PASS" if verification.passed else "FAIL"
    last = wrap(f"{word}: {summary(verification)}; against {verification.truth}.")
    notes = [line for note in verification.notes for line in wrap(note, "note: ")]
    return to_ascii(join([table.lines(), notes, last]))


def _cells(row: dict[str, object]) -> list[Cell]:
    verdict = str(row["verdict"])
    note = verdict.removeprefix(EXPLAINED) if verdict.startswith(EXPLAINED) else ""
    values = [row["simulated"], row["real"]]
    shown = [right(numbers.count(v if isinstance(v, int) else None)) for v in values]
    return [*shown, Cell("explained" if note else verdict, note=note)]
