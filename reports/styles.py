# SPDX-License-Identifier: GPL-2.0-or-later
"""Every shape of a comparison, and :func:`render`, which chooses one.

``benchstat``, ``robot`` and ``pipe`` are styles of the text format; csv, json
and markdown carry the same numbers.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from reports import config, numbers
from reports.compare import Comparison
from reports.mail import GROUPED, TITLE, benchstat, head, indented, inferred, notes, short_titles
from reports.text import WIDTH, Table, join, pack, right, to_ascii
from reports.verdict import growing, verdict
from tracer.errors import UsageError
from tracer.output import printable


def flat(comparison: Comparison) -> list[tuple[str, str, tuple[int | None, ...]]]:
    """:return: (row label, counter, one count per replay); counters 0 everywhere left out."""
    wanted = None if comparison.by == "total" else GROUPED
    live = [c for c in comparison.nonzero() if wanted is None or c in wanted]
    return [(row.label, c, row.counts(c)) for row in comparison.rows for c in live]


def robot(comparison: Comparison, tool: str | None = None) -> str:
    """:return: the kernel test robot's layout, base left, metric last.

    Exact counts have no ``%stddev``, so that column is not there.
    """
    labels, short = list(comparison.labels), short_titles(comparison)
    tables: list[Table] = []
    for titles in (labels, [short[0], *labels[1:]], short):
        tables = _robot_tables(comparison, titles)
        if max(t.width for t in tables) <= WIDTH:
            break
    return _text(comparison, [t.lines() for t in tables], tool)


def _text(comparison: Comparison, body: Sequence[Sequence[str]], tool: str | None) -> str:
    last = [config.trailer(comparison.replays, tool)]
    return to_ascii(join([head(comparison), *body, notes(comparison), last]))


def _robot_tables(comparison: Comparison, titles: Sequence[str]) -> list[Table]:
    def build(new: Sequence[int]) -> Table:
        table = Table()
        table.row(right(titles[0]), *[right(titles[i], 2) for i in new])
        table.rule()
        table.row(right("count"), *[right(c) for _ in new for c in ("%change", "count")])
        table.row(right("\\"), *[right(c) for _ in new for c in ("|", "\\")])
        for label, counter, counts in flat(comparison):
            cells = [right(_digits(counts[0]))]
            for i in new:
                cells += [right(numbers.percent(counts[0], counts[i])), right(_digits(counts[i]))]
            name = counter if comparison.by == "total" else f"{label}.{counter}"
            table.row(*cells, name.replace(" ", "-"))
        return table

    new = range(1, len(titles))
    return pack(new, build) if new else [build([])]


def _digits(value: int | None) -> str:
    return "-" if value is None else str(value)


def pipe(comparison: Comparison, tool: str | None = None) -> str:
    """:return: configuration, the pipe tables of arm64 series, notes and trailer."""
    tables: list[list[str]] = []
    for titles in (list(comparison.labels), short_titles(comparison)):
        tables = _pipe_tables(comparison, titles)
        if max(len(t[0]) for t in tables) <= WIDTH:
            break
    return _text(comparison, tables, tool)


def _pipe_tables(comparison: Comparison, titles: Sequence[str]) -> list[list[str]]:
    tables: list[list[str]] = []
    taken: list[int] = []
    for i in range(1, len(titles)):
        if taken and len(pipe_table(comparison, titles, [*taken, i])[0]) > WIDTH:
            tables.append(pipe_table(comparison, titles, taken))
            taken = []
        taken.append(i)
    return [*tables, pipe_table(comparison, titles, taken)]


def pipe_table(
    comparison: Comparison, titles: Sequence[str], new: Sequence[int] | None = None
) -> list[str]:
    """One pipe table, which is valid Markdown too.

    :param new: the replays to set beside the base; all by default
    """
    new = range(1, len(titles)) if new is None else new
    grouped = comparison.by != "total"
    body = [[TITLE[comparison.by], *(["counter"] if grouped else []), titles[0]]]
    for i in new:
        body[0] += [titles[i], "delta"]
    for name, counter, counts in flat(comparison):
        lead = [name, counter] if grouped else [indented(counter)]
        cells = [*lead, numbers.count(counts[0])]
        for i in new:
            cells += [numbers.count(counts[i]), numbers.percent(counts[0], counts[i])]
        body.append(cells)
    return _pipes(body, 2 if grouped else 1)


def _pipes(body: Sequence[Sequence[str]], left: int) -> list[str]:
    """:param left: columns that are left-aligned"""
    body = [[printable(c).replace("|", "/") for c in cells] for cells in body]
    widths = [max(len(cells[j]) for cells in body) for j in range(len(body[0]))]
    lines = []
    for cells in body:
        pairs = enumerate(zip(cells, widths, strict=True))
        padded = [c.ljust(w) if j < left else c.rjust(w) for j, (c, w) in pairs]
        lines.append(f"| {' | '.join(padded)} |")
    dashes = ["-" * (w + 1) + ("-" if j < left else ":") for j, w in enumerate(widths)]
    return [lines[0], f"|{'|'.join(dashes)}|", *lines[1:]]


def markdown(comparison: Comparison, tool: str | None = None) -> str:
    """:return: the same as Markdown, for a forge or a wiki; not limited in width."""
    lines = [f"**{verdict(comparison)}**", ""]
    for fact in comparison.facts:
        pairs = zip(comparison.labels, fact.values, strict=False)
        values = fact.values if fact.common else [f"{label}: {v}" for label, v in pairs]
        lines.append(f"- {fact.name}: {'; '.join(values)}")
    table = pipe_table(comparison, comparison.labels)
    quoted = [f"> {w}" for w in (*comparison.warnings, *inferred(comparison))]
    sign = "Exact counts. delta is new minus base: negative is fewer."
    trailer = f"`{config.trailer(comparison.replays, tool)}`"
    body = [*lines, "", *table, "", *(["\n".join(quoted), ""] if quoted else []), sign, "", trailer]
    return "\n".join(body) + "\n"


def to_csv(comparison: Comparison) -> str:
    """:return: one line per row, counter and replay; plain digits, the base repeated."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = ["label", "policy", "count", "base", "delta"]
    writer.writerow(
        [TITLE[comparison.by] if comparison.by != "total" else "row", "counter", *fields]
    )
    replays = list(zip(comparison.labels, comparison.replays, strict=True))
    for row in comparison.rows:
        for counter in comparison.nonzero():
            counts = row.counts(counter)
            for (label, replay), new in zip(replays, counts, strict=True):
                change = (new or 0) - (counts[0] or 0)
                writer.writerow([row.label, counter, label, replay.policy, new, counts[0], change])
    return out.getvalue()


def to_dict(comparison: Comparison, tool: str | None = None) -> dict[str, Any]:
    """:return: the comparison as plain data, schema ``mmtrace.compare/1``."""
    shown = ["nr_ops", "nr_pages", *comparison.nonzero()]
    replays = zip(comparison.labels, comparison.replays, strict=True)
    return {
        "schema": "mmtrace.compare/1",
        "by": comparison.by,
        "labels": list(comparison.labels),
        "replays": [
            {"label": label, "policy": r.policy, "cpu": r.cpu, "sha256": r.provenance.get("sha256")}
            for label, r in replays
        ],
        "config": {f.name: f.values[0] if f.common else list(f.values) for f in comparison.facts},
        "verdict": verdict(comparison),
        "grows": {
            label: [g.counter for g in growing(comparison, i)]
            for i, label in list(enumerate(comparison.labels))[1:]
        },
        "warnings": [*comparison.warnings, *inferred(comparison)],
        "rows": [
            {"key": row.label, "counters": {c: list(row.counts(c)) for c in shown}}
            for row in comparison.rows
        ],
        "trailer": config.trailer(comparison.replays, tool),
    }


def to_json(comparison: Comparison, tool: str | None = None) -> str:
    """:return: :func:`to_dict` as one document."""
    return json.dumps(to_dict(comparison, tool), indent=1) + "\n"


STYLES: Final[dict[str, Callable[[Comparison, str | None], str]]] = {
    "benchstat": benchstat,
    "robot": robot,
    "pipe": pipe,
}
FORMATS: Final = ("text", "csv", "json", "markdown")


def render(
    comparison: Comparison, *, fmt: str = "text", style: str = "benchstat", tool: str | None = None
) -> str:
    """Write a comparison.

    :param fmt: one of :data:`FORMATS`
    :param style: a key of :data:`STYLES`, for ``text``
    :param tool: version to print; the installed one by default
    :raises UsageError: for an unknown format or style
    """
    if style not in STYLES:
        raise UsageError(f"There is no style {style!r}.", f"Choose one of {', '.join(STYLES)}.")
    if fmt == "text":
        return STYLES[style](comparison, tool)
    if fmt == "markdown":
        return markdown(comparison, tool)
    if fmt == "json":
        return to_json(comparison, tool)
    if fmt == "csv":
        return to_csv(comparison)
    raise UsageError(f"There is no format {fmt!r}.", f"Choose one of {', '.join(FORMATS)}.")
