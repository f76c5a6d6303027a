# SPDX-License-Identifier: GPL-2.0-or-later
"""A replay as text of at most 75 columns: only counters that are not 0 everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from replay.result import Replay
from reports import config, names, numbers
from reports.compare import display_order, part_of
from reports.redact import Redactor
from reports.text import WIDTH, Table, join, pack, right, to_ascii, wrap

# What a call is told by; longer argument lists are cut in the table, not in csv or json.
_ARGS_WIDTH = 34


def to_text(replays: Sequence[Replay], frames: Sequence[pl.DataFrame], by: str) -> str:
    """The text of ``mmtrace replay``.

    :param frames: one per replay, summed as ``by`` says
    """
    # This is for the terminal of whoever owns the capture: names stay.
    redactor = Redactor.of(replays, raw=True)
    titles = names.labels(replays)
    head = config.fact_lines(config.facts(replays, redactor), titles)
    body = _totals(titles, frames) if by == "total" else _policies(titles, frames, by)
    # Most notes are of the capture and the same for every policy.
    notes = list(dict.fromkeys(tuple(_notes(r)) for r in replays))
    said = [line for note in notes for line in note]
    return to_ascii(join([head, *body, said, [config.trailer(replays)]]))


def live(frames: Sequence[pl.DataFrame]) -> list[str]:
    """:return: counters and sums that are not 0 in some row of some frame."""
    return [c for c in display_order() if any(f[c].sum() for f in frames)]


def _totals(titles: Sequence[str], frames: Sequence[pl.DataFrame]) -> list[list[str]]:
    shown = ["nr_ops", "nr_pages", *live(frames)]

    def build(part: Sequence[int]) -> Table:
        table = Table()
        table.row("counter", *[right(titles[i]) for i in part])
        for counter in shown:
            name = ("  " if part_of(counter) else "") + counter
            table.row(name, *[right(numbers.count(frames[i][counter][0])) for i in part])
        return table

    return [t.lines() for t in pack(range(len(frames)), build)]


def _policies(titles: Sequence[str], frames: Sequence[pl.DataFrame], by: str) -> list[list[str]]:
    shown = ["nr_ops", *live(frames)]
    body: list[list[str]] = []
    said: list[list[str]] = []
    for title, frame in zip(titles, frames, strict=True):
        lead, keys = _keys(frame, by)
        # Policies replay the same rows: say once which they are.
        body += [[f"policy {title}, by {by}"], *(lead if lead != said else [])]
        said = lead
        body += [t.lines() for t in pack(shown, _row_table(frame, by, keys))]
    return body


def _row_table(
    frame: pl.DataFrame, by: str, keys: Sequence[str]
) -> Callable[[Sequence[str]], Table]:
    def build(part: Sequence[str]) -> Table:
        table = Table()
        title = "row" if by in ("syscall", "all") else by
        table.row(title, *[right("ops" if c == "nr_ops" else c) for c in part])
        columns = [frame[c].to_list() for c in part]
        for i, key in enumerate(keys):
            table.row(key, *[right(numbers.count(column[i])) for column in columns])
        return table

    return build


def _keys(frame: pl.DataFrame, by: str) -> tuple[list[list[str]], list[str]]:
    """:return: a table that says what the rows are, where names are too long, and the names."""
    if by == "op":
        return [], frame["op"].to_list()
    if by == "task":
        pairs = frame.select("comm", "tid").iter_rows()
        return [], [f"{names.task_name(comm)}:{tid}" for comm, tid in pairs]
    keys = [f"#{i}" for i in range(1, frame.height + 1)]
    table = Table()
    extra = ("op", "order") if by == "all" else ()
    table.row("row", right("seq"), "task", "system call", *extra or ["arguments"])
    for key, row in zip(keys, frame.iter_rows(named=True), strict=True):
        task = f"{names.task_name(row['comm'])}:{row['tid']}"
        call = names.syscall_kind(row["syscall"], row["args"])
        last = (
            [row["op"], names.order_name(row["order"])]
            if extra
            else [_short(row["args"] or "", _ARGS_WIDTH)]
        )
        table.row(key, right(str(row["seq"])), task, call, *last)
    return [_clipped(table)], keys


def _clipped(table: Table) -> list[str]:
    """:return: the lines with arguments cut at the margin; names are never that long."""
    return [_short(line, WIDTH) for line in table.lines()]


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _notes(replay: Replay) -> list[str]:
    lines: list[str] = []
    ops = ", ".join(f"{row[0]} ({row[1]:,})" for row in replay.unmodelled.iter_rows())
    if ops:
        lines += wrap(f"not modelled, counts nothing: {ops}", "note: ")
    state = ", ".join(f"{kind} ({n:,})" for kind, n in replay.inferred.items() if n)
    if state:
        lines += wrap(f"inferred, not in the capture: {state}", "note: ")
    return lines
