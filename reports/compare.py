# SPDX-License-Identifier: GPL-2.0-or-later
"""Align replays by key and say exactly how they differ.

Counts are deterministic, so a difference is a difference: there are no
p-values here. The first replay is the base. Rows that grow are named, rows
that cannot change stay in the table and show 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from replay import counters
from replay.result import NO_ORDER, Replay, folio_pages
from reports import audit, config, names
from reports.redact import Redactor
from tracer.errors import UsageError

BY = ("total", "op", "syscall", "task", "order")
VALUES = ("nr_ops", "nr_pages", *counters.SUMS, *counters.NAMES)

# Sums precede their first part.
_PART_OF = {part: whole for whole, parts in counters.SUMS.items() for part in parts}


def display_order() -> list[str]:
    """:return: every counter and sum, each sum just before its first part."""
    out: list[str] = []
    for name in counters.NAMES:
        whole = _PART_OF.get(name)
        if whole and whole not in out:
            out.append(whole)
        out.append(name)
    return out


def part_of(counter: str) -> str | None:
    """:return: the sum a counter belongs to."""
    return _PART_OF.get(counter)


@dataclass(frozen=True)
class Row:
    """One key in every replay.

    :ivar values: for each of :data:`VALUES` one count per replay, None where
        the replay has no such row
    """

    label: str
    values: dict[str, tuple[int | None, ...]]
    note: str = ""

    def counts(self, counter: str) -> tuple[int | None, ...]:
        """:return: one count per replay."""
        return self.values[counter]


@dataclass(frozen=True)
class Comparison:
    """Replays side by side; the first is the base."""

    by: str
    labels: tuple[str, ...]
    replays: tuple[Replay, ...]
    rows: tuple[Row, ...]
    facts: tuple[config.Fact, ...]
    warnings: tuple[str, ...] = field(default=())

    def nonzero(self) -> list[str]:
        """:return: counters and sums that are not 0 everywhere, in display order."""
        return [c for c in display_order() if any(any(r.counts(c)) for r in self.rows)]

    def same_as(self, replay: int) -> int | None:
        """:return: the first earlier replay, the base apart, with equal counts in every row."""
        for other in range(1, replay):
            if all(v[other] == v[replay] for row in self.rows for v in row.values.values()):
                return other
        return None

    def total(self, counter: str) -> tuple[int, ...]:
        """:return: the sum over all rows, one per replay."""
        columns = zip(*(r.counts(counter) for r in self.rows), strict=True)
        return tuple(sum(v or 0 for v in column) for column in columns)


def compare(
    replays: Sequence[Replay],
    *,
    by: str = "total",
    labels: Sequence[str] | None = None,
    raw: bool = False,
) -> Comparison:
    """Align replays.

    :param by: a key of :data:`BY`
    :param labels: column titles; the policies' names by default
    :param raw: keep task names
    :raises UsageError: for no replay, an unknown ``by``, or labels that do not fit
    """
    if not replays:
        raise UsageError("There is nothing to compare.", "Name at least one policy or store.")
    if by not in BY:
        raise UsageError(f"Cannot compare by {by!r}.", f"Choose one of {', '.join(BY)}.")
    titles = names.labels(replays, labels)
    if len(set(titles)) != len(replays):
        raise UsageError("Every replay needs a label of its own.", "Use label=path.")
    redactor = Redactor.of(replays, raw)
    return Comparison(
        by,
        titles,
        tuple(replays),
        tuple(_align(replays, by, redactor)),
        tuple(config.facts(replays, redactor)),
        tuple(_warnings(replays, titles)),
    )


def _align(replays: Sequence[Replay], by: str, redactor: Redactor) -> list[Row]:
    grouped = [_group(r, by, redactor) for r in replays]
    keys = list(dict.fromkeys(k for g in grouped for k in g))
    if by == "order":
        # The base page comes first even when the capture has none: its absence is a result.
        keys = sorted({0, *keys}, key=_as_int)
    rows = []
    for key in keys:
        found = [g.get(key) for g in grouped]
        values = {
            name: tuple(None if f is None else f[i] for f in found) for i, name in enumerate(VALUES)
        }
        note = "not in every capture" if any(found) and not all(found) else ""
        if not any(found):
            values = {name: tuple(0 for _ in replays) for name in VALUES}
            note = "no operation of this order in the capture"
        rows.append(Row(_label(key, by, replays[0]), values, note))
    return rows


def _as_int(key: object) -> int:
    return key if isinstance(key, int) else NO_ORDER


def _label(key: object, by: str, base: Replay) -> str:
    if by == "order":
        return names.order_name(_as_int(key), config.page_size(base))
    return str(key)


def _group(replay: Replay, by: str, redactor: Redactor) -> dict[object, tuple[int, ...]]:
    """:return: key to sums in the order of :data:`VALUES`, in order of appearance."""
    sums = [pl.col(v).sum() for v in VALUES]
    rows = replay.rows.with_columns(folio_pages())
    if by == "total":
        return {"total": rows.select(sums).row(0)}
    columns = {"op": ["op"], "order": ["order"], "task": ["comm"], "syscall": ["syscall", "asked"]}
    frame = (
        rows.with_columns(names.asked())
        .group_by(columns[by], maintain_order=True)
        .agg(pl.col("seq").min(), *sums)
        .sort("seq")
    )
    out: dict[object, tuple[int, ...]] = {}
    for row in frame.iter_rows(named=True):
        key = _key(row, by, redactor)
        values = tuple(row[v] for v in VALUES)
        have = out.get(key)
        out[key] = tuple(map(sum, zip(have, values, strict=True))) if have else values
    return out


def _key(row: dict[str, object], by: str, redactor: Redactor) -> object:
    if by == "order":
        return NO_ORDER if row["order"] is None else row["order"]
    if by == "task":
        return redactor.comm(_text(row["comm"]))
    if by == "syscall":
        return names.asked_kind(row["syscall"], row["asked"])
    return _text(row["op"]) or "(unknown)"


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _warnings(replays: Sequence[Replay], labels: Sequence[str]) -> list[str]:
    """Compare what was done before comparing what it cost."""
    out = []
    work = [_work(r) for r in replays]
    for i in range(1, len(replays)):
        if work[i] != work[0]:
            out.append(
                f"{labels[i]} and {labels[0]} did not do the same operations on the same folio "
                "orders; differences are not of the policy alone."
            )
    shown: dict[str, int] = {}
    for replay in replays:
        for op, number in replay.unmodelled.iter_rows():
            shown[op] = max(shown.get(op, 0), number)
    if shown:
        ops = ", ".join(f"{op} ({number:,})" for op, number in shown.items())
        out.append(f"Operations in the capture that are not modelled and count nothing: {ops}.")
    return out + audit.warnings(replays, labels)


def _work(replay: Replay) -> dict[tuple[object, ...], int]:
    """:return: operations by (op, order): the state two replays must share."""
    frame = replay.rows.group_by("op", "order").agg(pl.col("nr_ops").sum())
    return {(op, order): number for op, order, number in frame.iter_rows()}
