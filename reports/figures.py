# SPDX-License-Identifier: GPL-2.0-or-later
"""What every figure of the report is made of, and the three that compare counters.

A :class:`Figure` has a caption that says how to read it, one plotly
specification per choice the reader has, and a table with the same numbers.
Specifications are plain lists and dicts in the light colours of
:mod:`reports.palette`; the page's script draws them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import plotly.graph_objects as go

from reports import numbers, palette
from reports.compare import Comparison, Row
from reports.verdict import is_entry, noun

Spec = dict[str, Any]

FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
# Counters a reader can choose from where a figure shows one at a time.
CHOICES: Final = ("tlbi", "dsb", "convert", "ptep_get", "ld", "xchg", "st", "rmap_call", "ptl")
# Where zero is drawn on a logarithmic axis.
FLOOR: Final = 0.4
# In hover texts: the trace's own name, because plotly reads inserted text as markup.
NAME: Final = "%{fullData.name}"
# Where a trace holds names that come from a capture or a user.
_TEXTS: Final = ("name", "x", "y", "text", "customdata")


@dataclass(frozen=True)
class Twin:
    """The numbers of a figure as a table.

    :ivar names: how many leading columns are names and not numbers
    :ivar note: what was left out, if anything
    """

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    names: int = 1
    note: str = ""


def clipped(
    head: Sequence[str], rows: list[tuple[str, ...]], names: int = 1, most: int = 200
) -> Twin:
    """:return: a table of at most ``most`` rows that says when there are more."""
    left = len(rows) - most
    note = f"{left:,} smaller rows are left out here; mmtrace compare --format csv has all."
    return Twin(tuple(head), rows[:most], names, note if left > 0 else "")


@dataclass(frozen=True)
class Figure:
    """One figure of the page.

    :ivar variants: choice to plotly specification; one unnamed choice if there is none
    :ivar caption: what it shows and how to read it
    """

    id: str
    title: str
    caption: str
    variants: dict[str, Spec]
    twin: Twin
    height: int = 360
    wide: bool = True
    choices: list[tuple[str, str]] = field(default_factory=list)


def blank(height: int, **layout: Any) -> go.Figure:
    """:return: a figure without plotly's template, whose 7 kB every figure would repeat."""
    axis = {
        "gridcolor": palette.GRID,
        "linecolor": palette.AXIS,
        "zerolinecolor": palette.AXIS,
        "tickcolor": palette.AXIS,
        "automargin": True,
        "showline": False,
        "title": {"font": {"size": 12, "color": palette.MUTED}},
    }
    base: dict[str, Any] = {
        "template": go.layout.Template(),
        "height": height,
        "autosize": True,
        "margin": {"l": 8, "r": 24, "t": 36, "b": 8},
        "showlegend": True,
        "paper_bgcolor": palette.CLEAR,
        "plot_bgcolor": palette.CLEAR,
        "font": {"family": FONT, "size": 13, "color": palette.INK},
        "hoverlabel": {
            "bgcolor": palette.PAPER,
            "bordercolor": palette.AXIS,
            "font": {"family": FONT, "size": 13, "color": palette.INK},
            "align": "left",
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "traceorder": "normal",
            "font": {"size": 12},
        },
        "xaxis": axis,
        "yaxis": axis,
        "dragmode": False,
    }
    return go.Figure(layout=base | layout)


def spec(figure: go.Figure) -> Spec:
    """:return: data and layout as plain JSON values."""
    made: Spec = figure.to_plotly_json()
    made.get("layout", {}).pop("template", None)
    data = [{k: literal(v) if k in _TEXTS else v for k, v in t.items()} for t in made["data"]]
    return {"data": data, "layout": made["layout"]}


def literal(value: Any) -> Any:
    """:return: the value with every string safe from plotly's markup (links, line breaks)."""
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;")
    return [literal(v) for v in value] if isinstance(value, list | tuple) else value


def hover(*lines: str) -> str:
    """:return: a hover text of these lines, without plotly's second box."""
    return "<br>".join(lines) + "<extra></extra>"


def log_axis(most: int) -> dict[str, Any]:
    """:return: a logarithmic axis for counts that also has a place for zero."""
    decades = range(max(1, math.ceil(math.log10(max(most, 1) * 1.01))) + 1)
    return {
        "type": "log",
        "range": [math.log10(FLOOR * 0.72), math.log10(max(most, 10)) + 0.12],
        "tickvals": [FLOOR, *[10**d for d in decades]],
        "ticktext": ["0", *[short(10**d) for d in decades]],
        "zeroline": False,
    }


def short(value: int) -> str:
    """:return: a power of ten for an axis: 1k, 10M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value // size}{unit}"
    return str(value)


def on_log(value: int | None) -> float:
    """:return: where a count is drawn on :func:`log_axis`."""
    return float(value) if value else FLOOR


def choices(comparison: Comparison) -> list[str]:
    """:return: counters worth choosing, the most telling first; never empty."""
    live = [c for c in CHOICES if any(comparison.total(c))]
    return live or [CHOICES[0]]


def options(counters: Sequence[str]) -> list[tuple[str, str]]:
    """:return: (value, text) of a select element."""
    texts = {c: noun(c) for c in counters}
    return [(c, f"{c} – {t}" if t != c else c) for c, t in texts.items()]


def difference_cells(counts: Sequence[int | None]) -> list[str]:
    """:return: the base, then count, delta and per cent of every other replay."""
    cells = [numbers.count(counts[0])]
    for new in counts[1:]:
        cells += [
            numbers.count(new),
            numbers.delta(counts[0], new),
            numbers.percent(counts[0], new),
        ]
    return cells


def difference_head(labels: Sequence[str]) -> list[str]:
    """:return: column titles of :func:`difference_cells`."""
    head = [labels[0]]
    for label in labels[1:]:
        head += [label, "delta", "delta %"]
    return head


def counters_figure(comparison: Comparison) -> Figure:
    """Every counter that is work, base and new joined by a line.

    :param comparison: by total
    """
    shown = [c for c in comparison.nonzero() if not is_entry(c)]
    row = comparison.rows[0]
    height = 90 + 25 * max(len(shown), 2)
    figure = blank(height)
    ends = [[on_log(v) for v in row.counts(c)] for c in shown]
    xs = [x for e in ends for x in (min(e), max(e), None)]
    ys = [y for c in shown for y in (c, c, None)]
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        line={"color": palette.AXIS, "width": 2},
        hoverinfo="skip",
        showlegend=False,
    )
    for i, label in enumerate(comparison.labels):
        counts = [row.counts(c) for c in shown]
        figure.add_scatter(
            x=[on_log(c[i]) for c in counts],
            y=shown,
            mode="markers",
            name=label,
            marker={
                "color": palette.series(i),
                "symbol": palette.symbol(i),
                "size": palette.mark_size(i),
                "line": {"width": 2, "color": palette.series(i)},
            },
            customdata=[[numbers.count(c[i]), numbers.percent(c[0], c[i])] for c in counts],
            hovertemplate=hover("%{y}", NAME + ": %{customdata[0]} (%{customdata[1]})"),
        )
    most = max((v or 0 for c in shown for v in row.counts(c)), default=1)
    figure.update_xaxes(title_text="count, logarithmic", side="bottom", **log_axis(most))
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False, tickfont_size=12)
    return Figure(
        "counters",
        "Every counter, before and after",
        "One line per counter. The open grey circle is the base, the filled mark the policy set "
        "beside it; a mark to the left of the circle means fewer, to the right more, on the circle "
        "no change. The axis is logarithmic: one step is ten times. Zero has a place of its own.",
        {"": spec(figure)},
        _counter_twin(comparison),
        height,
    )


def _counter_twin(comparison: Comparison) -> Twin:
    row = comparison.rows[0]
    return Twin(
        ("counter", *difference_head(comparison.labels)),
        [(c, *difference_cells(row.counts(c))) for c in comparison.nonzero()],
    )


def origin_figure(by_op: Comparison) -> Figure | None:
    """Which operation each counter's difference comes from.

    Of several replays the last that differs from the base is drawn.

    :return: None when nothing differs
    """
    work = [c for c in by_op.nonzero() if not is_entry(c) and by_op.total(c)[0]]
    changed = {
        i: [c for c in work if by_op.total(c)[i] != by_op.total(c)[0]]
        for i in range(1, len(by_op.labels))
    }
    last = max((i for i, found in changed.items() if found), default=0)
    if not last:
        return None
    shown = changed[last]
    rows = [r for r in by_op.rows if any(_change(r, c, last) for c in shown)]
    rows.sort(key=lambda r: -sum(abs(_share(by_op, r, c, last)) for c in shown))
    figure = blank(90 + 25 * max(len(shown), 2), barmode="relative", bargap=0.35)
    for i, row in enumerate(rows[: len(palette.PARTS)]):
        figure.add_bar(
            orientation="h",
            y=shown,
            x=[_share(by_op, row, c, last) for c in shown],
            name=row.label,
            marker={
                "color": palette.PARTS[i],
                "pattern": {
                    "shape": palette.PATTERNS[i],
                    "fillmode": "overlay",
                    "fgcolor": palette.PAPER,
                    "fgopacity": 1,
                    "solidity": 0.2,
                    "size": 7,
                },
                "line": {"color": palette.PAPER, "width": 1},
            },
            customdata=[numbers.delta(0, _change(row, c, last)) for c in shown],
            hovertemplate=hover("%{y}", NAME + ": %{customdata} (%{x:.2f}%)"),
        )
    figure.update_xaxes(title_text="change in per cent of the base's total", ticksuffix="%")
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False, tickfont_size=12)
    return Figure(
        "origin",
        "Where the difference comes from",
        f"{by_op.labels[last]} against {by_op.labels[0]}. Each bar is one counter; its length to "
        "the left is the part of the base's count that is gone, to the right what was added. "
        "Colours and hatching say in which operation. At -100% none are left. Counters that did "
        "not change are not drawn.",
        {"": spec(figure)},
        Twin(
            ("counter", *[r.label for r in rows], "all"),
            [
                (
                    c,
                    *[numbers.delta(0, _change(r, c, last)) for r in rows],
                    numbers.delta(by_op.total(c)[0], by_op.total(c)[last]),
                )
                for c in shown
            ],
        ),
        90 + 25 * max(len(shown), 2),
    )


def _change(row: Row, counter: str, i: int) -> int:
    counts = row.counts(counter)
    return (counts[i] or 0) - (counts[0] or 0)


def _share(comparison: Comparison, row: Row, counter: str, i: int) -> float:
    return round(100 * _change(row, counter, i) / comparison.total(counter)[0], 3)


def orders_figure(by_order: Comparison) -> Figure:
    """Count per page by folio order: where batching pays and from which order on."""
    rows = [r for r in by_order.rows if r.label.startswith("order ")]
    titles = [r.label for r in rows]
    variants: dict[str, Spec] = {}
    for counter in choices(by_order):
        figure = blank(340)
        for i, label in enumerate(by_order.labels):
            figure.add_scatter(
                x=titles,
                y=[per_page(r, counter, i) for r in rows],
                name=label,
                mode="lines+markers",
                line={"color": palette.series(i), "width": 2, "dash": "dot" if i == 0 else "solid"},
                marker={
                    "color": palette.series(i),
                    "symbol": palette.symbol(i),
                    "size": palette.mark_size(i),
                    "line": {"width": 2, "color": palette.series(i)},
                },
                customdata=[numbers.count(r.counts(counter)[i]) for r in rows],
                hovertemplate=hover("%{x}", NAME + ": %{customdata}, %{y:.4~f} per page"),
            )
        figure.update_yaxes(title_text=f"{counter} per page", rangemode="tozero")
        figure.update_xaxes(type="category", showgrid=False)
        variants[counter] = spec(figure)
    return Figure(
        "orders",
        "Per folio order",
        "What one page costs, by the order of the folio it belongs to. Order 0, the base page, is "
        "always on the left: batching cannot help there, and the marks should lie on each other. "
        "The first order at which they part is the break-even order of this capture. Orders that "
        "the capture does not have are not drawn. Operations on a range of addresses (zap, fork, "
        "mprotect, mremap) and their flushes belong to an order when all that was mapped in the "
        "range was of it; one that met several orders cannot be split and is in the table only, "
        "as are ranges of swap entries and operations that meet no folio.",
        variants,
        _order_twin(by_order, list(variants)),
        340,
        choices=options(list(variants)),
    )


def per_page(row: Row, counter: str, i: int) -> float | None:
    """:return: the count divided by the pages worked on; None without pages."""
    pages = row.counts("nr_pages")[i]
    return round((row.counts(counter)[i] or 0) / pages, 6) if pages else None


def _order_twin(by_order: Comparison, counters: Sequence[str]) -> Twin:
    head = ("folio", "counter", "pages", *difference_head(by_order.labels))
    rows = [
        (
            r.label,
            c,
            numbers.count(max(v or 0 for v in r.counts("nr_pages"))),
            *difference_cells(r.counts(c)),
        )
        for r in by_order.rows
        for c in counters
    ]
    return Twin(head, rows, names=2)
