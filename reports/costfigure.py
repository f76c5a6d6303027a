# SPDX-License-Identifier: GPL-2.0-or-later
"""What the counts cost on the listed machines, side by side, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from replay.cost.capture import MachinePrice
from replay.cost.price import Estimate, distinguishable
from reports import numbers, palette
from reports.figures import NAME, Figure, Twin, blank, hover, spec


def cost_figure(prices: Sequence[MachinePrice], labels: Sequence[str]) -> Figure | None:
    """How many times faster each policy is than the base, one line per machine.

    :param labels: of the policies, the base first
    :return: None when there is nothing to compare
    """
    if not prices or len(labels) < 2:
        return None
    machines = [title(p) for p in prices]
    height = 120 + 34 * len(machines) * (len(labels) - 1)
    figure = blank(height, hovermode="closest")
    for i, label in enumerate(labels[1:]):
        found = [p.faster[i] for p in prices]
        # Several policies of one machine lie below each other.
        shift = 0.22 * (i - (len(labels) - 2) / 2)
        figure.add_scatter(
            x=[e.median for e in found],
            y=[k + shift for k in range(len(machines))],
            name=label,
            mode="markers",
            marker={
                "color": palette.series(i + 1),
                "symbol": palette.symbol(i + 1),
                "size": 10,
            },
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [round(e.high - e.median, 6) for e in found],
                "arrayminus": [round(e.median - e.low, 6) for e in found],
                "color": palette.series(i + 1),
                "thickness": 2,
                "width": 5,
            },
            customdata=[[m, ratio(e)] for m, e in zip(machines, found, strict=True)],
            hovertemplate=hover("%{customdata[0]}", NAME + ": %{customdata[1]}"),
        )
    figure.add_vline(x=1, line={"color": palette.INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(
        type="log",
        title_text="times faster than the base, logarithmic; left of the dotted line is slower",
        range=_range(prices),
        tickvals=[0.25, 0.5, 0.8, 1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 32],
    )
    figure.update_yaxes(
        tickvals=list(range(len(machines))),
        ticktext=machines,
        range=[len(machines) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    return Figure(
        "cost",
        "Modelled time on machines",
        "The counts of the whole capture, priced with each machine's cost table: one task, nothing "
        f"else running. Marks are medians against {labels[0]}, whiskers 90% intervals. A whisker "
        "that crosses the dotted line says that the model cannot tell the two apart on that "
        "machine. This is a model, not a measurement; virtual machines are marked.",
        {"": spec(figure)},
        _twin(prices, labels),
        height,
    )


def _range(prices: Sequence[MachinePrice]) -> list[float]:
    """:return: ends of the axis as powers of ten, with 1 and a margin inside"""
    ends = [v for p in prices for e in p.faster for v in (e.low, e.high)]
    low, high = 0.96 * min(ends, default=1), 1.04 * max(ends, default=1)
    return [round(math.log10(min(low, 0.94)), 4), round(math.log10(max(high, 1.06)), 4)]


def title(price: MachinePrice) -> str:
    """:return: the machine's name, marked when it is virtual"""
    name = price.machine.name
    return f"{name} (VM)" if price.machine.virtual and not name.endswith("-vm") else name


def ratio(e: Estimate) -> str:
    """:return: ``1.52x [1.20, 1.90]`` and a word when the interval holds no change"""
    if e.low == e.high == 1.0:
        return "1.00x, equal counts"
    word = "" if distinguishable(e) else ", not distinguishable"
    return f"{e.median:.2f}x [{e.low:.2f}, {e.high:.2f}]{word}"


def verdicts(prices: Sequence[MachinePrice], i: int) -> str:
    """:return: a sentence about on how many machines a policy wins and loses"""
    found = [(title(p), p.faster[i]) for p in prices]
    wins = [name for name, e in found if distinguishable(e) and e.median > 1]
    loses = [name for name, e in found if distinguishable(e) and e.median < 1]
    parts = [f"faster on {len(wins)} of {numbers.plural(len(found), 'machine')}"]
    parts.append(f"slower on {numbers.listing(loses)}" if loses else "slower on none")
    return ", ".join(parts)


def _twin(prices: Sequence[MachinePrice], labels: Sequence[str]) -> Twin:
    head = ["machine", "virtual", *[f"{label}, us" for label in labels], *labels[1:]]
    rows = [
        (
            title(p),
            "yes" if p.machine.virtual else "no",
            *[
                f"{e.median / 1000:,.1f} [{e.low / 1000:,.1f}, {e.high / 1000:,.1f}]"
                for e in p.times
            ],
            *[ratio(e) for e in p.faster],
        )
        for p in prices
    ]
    return Twin(tuple(head), rows, 2)
