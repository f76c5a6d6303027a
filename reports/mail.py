# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of a comparison: what is pasted under a patch.

This is the ``benchstat`` style: the configuration once on top, then a table of
all counters and one row per folio order and per operation.
:mod:`reports.styles` has the other shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from reports import config, numbers
from reports.compare import Comparison, Row, compare, part_of
from reports.text import WIDTH, Cell, Table, join, pack, right, to_ascii, wrap
from reports.verdict import growing, verdict

# Counters of the tables that have one row per order, operation, task or system call.
GROUPED: Final = ("tlbi", "convert", "dsb", "ptep_get", "rmap_call")
# In the mail itself only the two that decide; the rest is one --by away.
BRIEF: Final = ("tlbi", "convert")

# A mail with more rows is not read.
MOST_ROWS: Final = 40

TITLE: Final = {
    "total": "counter",
    "op": "operation",
    "syscall": "system call",
    "task": "task",
    "order": "folio",
}

LEGEND: Final = (
    "Exact counts of a deterministic replay on a simulated page table; no times. "
    "delta is new minus base: negative is fewer, positive is more, 0 is equal. "
    "Counters that are 0 everywhere are left out; rows that show 0 are negative controls. "
    "Indented counters are parts of the sum above them."
)


def benchstat(comparison: Comparison, tool: str | None = None) -> str:
    """:return: the whole comparison as text."""
    blocks = [head(comparison)]
    if comparison.by == "total":
        blocks += [*counter_tables(comparison), _repeated(comparison)]
        for by in ("order", "op"):
            part = compare(comparison.replays, by=by, labels=comparison.labels)
            blocks += grouped_tables(part, BRIEF)
    else:
        blocks += [*grouped_tables(comparison, GROUPED), _repeated(comparison)]
    last = [config.trailer(comparison.replays, tool)]
    return to_ascii(join([*blocks, notes(comparison), last]))


def head(comparison: Comparison) -> list[str]:
    """:return: common configuration, what base and new are, and the verdict."""
    lines = config.fact_lines(comparison.facts, comparison.labels)
    width = max(len(f.name) for f in comparison.facts) + 2
    pairs = zip(short_titles(comparison), comparison.labels, comparison.replays, strict=True)
    for title, label, replay in pairs:
        said = f"{label}: {replay.policy_title}" if replay.policy_title else label
        lines += wrap(said, title.ljust(width))
    return [*lines, "", *wrap(verdict(comparison))]


def short_titles(comparison: Comparison) -> list[str]:
    """:return: ``base``, ``new`` or ``new1``, ``new2``: titles where labels do not fit."""
    number = len(comparison.labels) - 1
    return ["base", *(["new"] if number == 1 else [f"new{i + 1}" for i in range(number)])]


def indented(counter: str) -> str:
    """:return: the counter's name, parts indented under their sum."""
    return ("  " if part_of(counter) else "") + counter


def counter_tables(comparison: Comparison) -> list[list[str]]:
    """:return: one row per counter of the single row of a total, as detailed as fits."""
    labels, short = list(comparison.labels), short_titles(comparison)
    choices = [
        (labels, True),
        ([short[0], *labels[1:]], True),
        ([short[0], *labels[1:]], False),
        (short, False),
    ]
    tables: list[Table] = []
    for titles, detail in choices:
        tables = _counter_tables(comparison, titles, detail)
        if max(t.width for t in tables) <= WIDTH:
            break
    return [t.lines() for t in tables]


def _counter_tables(comparison: Comparison, titles: Sequence[str], detail: bool) -> list[Table]:
    """:param detail: with a column of absolute differences"""
    columns = ["count", "delta", "delta %"] if detail else ["count", "delta %"]
    (row,) = comparison.rows

    def build(new: Sequence[int]) -> Table:
        table = Table()
        table.row("", right(titles[0]), *[right(titles[i], len(columns)) for i in new])
        table.row("counter", right("count"), *[right(c) for _ in new for c in columns])
        for counter in comparison.nonzero():
            table.row(indented(counter), *_counter_cells(row.counts(counter), new, detail))
        return table

    new = _distinct(comparison)
    return pack(new, build) if new else [build([])]


def _distinct(comparison: Comparison) -> list[int]:
    """:return: the replays but the base, without those that repeat an earlier one."""
    return [i for i in range(1, len(comparison.labels)) if comparison.same_as(i) is None]


def _repeated(comparison: Comparison) -> list[str]:
    """:return: a line for every replay that is not in a table because it repeats another."""
    labels, lines = comparison.labels, []
    for i in range(1, len(labels)):
        same = comparison.same_as(i)
        if same is not None:
            lines += wrap(f"{labels[i]}: every count as under {labels[same]}.")
    return lines


def _counter_cells(counts: Sequence[int | None], new: Sequence[int], detail: bool) -> list[Cell]:
    cells = [right(numbers.count(counts[0]))]
    for i in new:
        cells.append(right(numbers.count(counts[i])))
        if detail:
            cells.append(right(numbers.delta(counts[0], counts[i])))
        cells.append(right(numbers.percent(counts[0], counts[i])))
    return cells


def grouped_tables(comparison: Comparison, counters: Sequence[str]) -> list[list[str]]:
    """:return: one row per key; per counter and new replay a column group."""
    shown = [c for c in counters if any(any(r.counts(c)) for r in comparison.rows)]
    if not shown:
        return [[f"by {TITLE[comparison.by]}: no {numbers.listing(counters, 'or')}"]]
    new = _distinct(comparison) or [0]
    groups = [(c, i) for c in shown for i in new]
    rows = _largest(comparison, shown)
    tables = [t.lines() for t in pack(groups, _grouped(comparison, rows))]
    left = len(comparison.rows) - len(rows)
    if left:
        tables.append(wrap(f"{left:,} smaller rows are left out; --format csv has all of them."))
    return tables


def _largest(comparison: Comparison, counters: Sequence[str]) -> list[Row]:
    """:return: the rows with most and those that grow most, in their order."""
    if len(comparison.rows) <= MOST_ROWS:
        return list(comparison.rows)

    def most(row: Row) -> int:
        return max(v or 0 for c in counters for v in row.counts(c))

    def growth(row: Row) -> int:
        return max((v or 0) - (row.counts(c)[0] or 0) for c in counters for v in row.counts(c))

    half = MOST_ROWS // 2
    kept = {id(r) for r in sorted(comparison.rows, key=most)[-half:]}
    kept |= {id(r) for r in sorted(comparison.rows, key=growth)[-half:] if growth(r) > 0}
    return [r for r in comparison.rows if id(r) in kept]


def _grouped(
    comparison: Comparison, rows: Sequence[Row]
) -> Callable[[Sequence[tuple[str, int]]], Table]:
    short = short_titles(comparison)

    def build(groups: Sequence[tuple[str, int]]) -> Table:
        table = Table()
        tops, subs = [], []
        for counter, i in groups:
            tops.append(right(counter, 3 if i else 1))
            subs += [right(t) for t in (("base", short[i], "delta %") if i else ("count",))]
        table.row("", "", *tops)
        table.row(TITLE[comparison.by], right("ops"), *subs)
        for row in rows:
            cells = [c for counter, i in groups for c in _group_cells(row.counts(counter), i)]
            ops = max((v or 0 for v in row.counts("nr_ops")), default=0)
            table.row(Cell(row.label, note=row.note), right(numbers.count(ops)), *cells)
        return table

    return build


def _group_cells(counts: Sequence[int | None], i: int) -> list[Cell]:
    if i == 0:
        return [right(numbers.count(counts[0]))]
    values = (numbers.count(counts[0]), numbers.count(counts[i]))
    return [right(v) for v in (*values, numbers.percent(counts[0], counts[i]))]


def notes(comparison: Comparison, width: int = WIDTH) -> list[str]:
    """:return: what grows, warnings, and how to read the columns, filled to a width"""
    lines: list[str] = []
    for i in _distinct(comparison):
        name = "grows" if len(comparison.labels) == 2 else f"grows under {comparison.labels[i]}"
        grown = ", ".join(map(str, growing(comparison, i)))
        lines += wrap(grown or "nothing", f"{name}: ".ljust(8), " " * 8, width)
    for warning in (*comparison.warnings, *inferred(comparison)):
        lines += wrap(warning, "note:   ", width=width)
    return [*lines, *wrap(LEGEND, "legend: ", width=width)]


def inferred(comparison: Comparison) -> list[str]:
    """:return: a sentence about state the capture does not show, if any was inferred."""
    kinds: dict[str, int] = {}
    for replay in comparison.replays:
        for kind, number in replay.inferred.items():
            kinds[kind] = max(kinds.get(kind, 0), number)
    text = ", ".join(f"{kind} ({number:,})" for kind, number in kinds.items() if number)
    return [f"State the capture does not show was inferred: {text}."] if text else []
