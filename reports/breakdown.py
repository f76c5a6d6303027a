# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened in the capture, how often, on which folio orders, and what it cost.

Rows are kinds, not events: system calls by name, tasks by name, operations.
A capture of millions of events gives as many bars as one of hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from replay.result import Replay
from reports import config, names, numbers, palette
from reports.compare import Comparison, Row
from reports.figures import (
    NAME,
    Figure,
    Spec,
    Twin,
    blank,
    choices,
    clipped,
    difference_cells,
    difference_head,
    hover,
    options,
    spec,
)
from reports.redact import Redactor

# Bars drawn; the table has more.
MOST_BARS: Final = 14

NOUN: Final = {"op": "operation", "syscall": "system call", "task": "task"}

Shares = dict[str, dict[int, tuple[int, int]]]


def shares(replay: Replay, by: str, redactor: Redactor) -> Shares:
    """What each kind of row worked on, operations on folios only.

    :return: label to folio order to (pages, operations), most pages first
    """
    columns = {"op": ["op"], "task": ["comm"], "syscall": ["syscall", "asked"]}[by]
    frame = (
        replay.rows.filter(pl.col("order") <= names.LARGEST_ORDER)
        .with_columns(names.asked())
        .group_by(*columns, "order", maintain_order=True)
        .agg(pl.col("nr_pages", "nr_ops").sum())
        .sort("nr_pages", descending=True, maintain_order=True)
    )
    out: Shares = {}
    for row in frame.iter_rows(named=True):
        orders = out.setdefault(_label(row, by, redactor), {})
        pages, ops = orders.get(row["order"], (0, 0))
        orders[row["order"]] = (pages + row["nr_pages"], ops + row["nr_ops"])
    worked = {label: sum(p for p, _ in orders.values()) for label, orders in out.items()}
    return {label: out[label] for label in sorted(out, key=lambda k: -worked[k]) if worked[label]}


def _label(row: dict[str, object], by: str, redactor: Redactor) -> str:
    if by == "op":
        return str(row["op"])
    if by == "task":
        return redactor.comm(None if row["comm"] is None else str(row["comm"]))
    return names.asked_kind(row["syscall"], row["asked"])


def shares_figure(replay: Replay, by: str, redactor: Redactor) -> Figure:
    """Pages by folio order, as shares of each kind of row."""
    found = shares(replay, by, redactor)
    top = list(found)[:MOST_BARS]
    page = config.page_size(replay)
    orders = sorted({o for label in found for o in found[label]})
    height = 120 + 30 * max(len(top), 2)
    figure = blank(height, barmode="stack", bargap=0.3)
    totals = {label: sum(p for p, _ in found[label].values()) for label in found}
    for order in orders:
        counts = [found[label].get(order, (0, 0)) for label in top]
        figure.add_bar(
            orientation="h",
            y=top,
            x=[
                round(100 * p / totals[label], 3) if totals[label] else 0
                for label, (p, _) in zip(top, counts, strict=True)
            ],
            name=names.order_name(order, page),
            marker={
                "color": palette.order(order),
                "line": {"color": palette.AXIS, "width": 1},
            },
            customdata=[[numbers.count(p), numbers.count(n)] for p, n in counts],
            hovertemplate=hover(
                "%{y}",
                NAME + ": %{customdata[0]} pages in %{customdata[1]} operations (%{x:.1f}%)",
            ),
        )
    figure.update_xaxes(title_text="share of the pages worked on", ticksuffix="%", range=[0, 100])
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
    noun = NOUN[by]
    return Figure(
        f"{by}-shares",
        f"Folio orders by {noun}",
        f"Each bar is one {noun}, its whole length the pages of all folios it worked on. The "
        "segments say how large the folios were: only segments of order 1 and above can be "
        "batched, so a bar that is mostly order 0 is work that batching cannot help. Most pages "
        "first; ranges of addresses that met folios of several orders, or none, are not here.",
        {"": spec(figure)},
        _shares_twin(found, noun, page),
        height,
        wide=False,
    )


def _shares_twin(found: Shares, noun: str, page: int | None) -> Twin:
    rows: list[tuple[str, ...]] = []
    for label, orders in found.items():
        total = sum(p for p, _ in orders.values())
        for order in sorted(orders):
            pages, ops = orders[order]
            share = f"{100 * pages / total:.1f}%" if total else "-"
            name = names.order_name(order, page)
            rows.append((label, name, numbers.count(ops), numbers.count(pages), share))
    head = (noun, "folio", "operations", "pages", "share of pages")
    return clipped(head, rows, 2)


def cost_figure(comparison: Comparison) -> Figure:
    """One counter per kind of row, every policy beside the base; the reader chooses which."""
    noun = NOUN[comparison.by]
    counters = choices(comparison)
    variants = {counter: _cost(comparison, counter) for counter in counters}
    return Figure(
        f"{comparison.by}-cost",
        f"Counts by {noun}",
        f"What each {noun} needs under each policy; choose the counter above. A shorter bar than "
        "the grey one is fewer; the number at its end is exact. Bars of equal length are work "
        "that the policy does not change.",
        variants,
        _cost_twin(comparison, counters),
        max((v["layout"]["height"] for v in variants.values()), default=300),
        wide=False,
        choices=options(counters),
    )


def largest(comparison: Comparison, counter: str) -> list[Row]:
    """:return: the rows with most of a counter in any replay, at most :data:`MOST_BARS`."""
    rows = [r for r in comparison.rows if any(r.counts(counter))]
    return sorted(rows, key=lambda r: -max(v or 0 for v in r.counts(counter)))[:MOST_BARS]


def _cost(comparison: Comparison, counter: str) -> Spec:
    rows = largest(comparison, counter)
    top = [r.label for r in rows]
    height = 120 + (14 + 14 * len(comparison.labels)) * max(len(top), 2)
    figure = blank(height, barmode="group", bargap=0.3, bargroupgap=0.1)
    for i, label in enumerate(comparison.labels):
        counts = [r.counts(counter) for r in rows]
        figure.add_bar(
            orientation="h",
            y=top,
            x=[c[i] or 0 for c in counts],
            name=label,
            marker={"color": palette.series(i), "line": {"width": 0}},
            text=[numbers.count(c[i]) for c in counts],
            textposition="outside",
            textfont={"size": 11, "color": palette.MUTED},
            cliponaxis=False,
            hovertemplate=hover("%{y}", f"{NAME}: %{{text}} {counter}"),
        )
    most = max((v or 0 for r in rows for v in r.counts(counter)), default=1)
    # Room for the numbers at the ends of the bars.
    figure.update_xaxes(title_text=counter, range=[0, max(most, 1) * 1.16])
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return spec(figure)


def _cost_twin(comparison: Comparison, counters: Sequence[str]) -> Twin:
    head = (NOUN[comparison.by], "counter", *difference_head(comparison.labels))
    rows = [
        (r.label, c, *difference_cells(r.counts(c)))
        for r in comparison.rows
        for c in counters
        if any(r.counts(c))
    ]
    return clipped(head, rows, 2)
