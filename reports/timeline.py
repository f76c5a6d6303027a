# SPDX-License-Identifier: GPL-2.0-or-later
"""When it happened: one mark per system call or per slice of time.

Up to :data:`MOST_MARKS` windows are drawn one by one. More are summed into
equal slices, so that the figure of a day weighs as much as that of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from replay.result import Replay
from reports import names, numbers, palette
from reports.compare import Comparison
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
    log_axis,
    on_log,
    options,
    spec,
)
from reports.redact import Redactor

MOST_MARKS: Final = 400
SLICES: Final = 200
# Marks with a name beside them; more would lie on each other.
MOST_NAMED: Final = 4
_KEY: Final = ("tid", "window", "syscall", "args")


@dataclass(frozen=True)
class Moment:
    """A window, or a slice of time with several.

    :ivar at: ms since the capture's first operation
    :ivar counts: for each counter one count per replay
    """

    at: float
    label: str
    task: str
    counts: dict[str, tuple[int, ...]]


def moments(
    replays: Sequence[Replay], counters: Sequence[str], redactor: Redactor
) -> tuple[list[Moment], float]:
    """Windows of the base with the counts of every replay.

    :return: the moments in time order and the slice's length in ms, 0 if not sliced
    """
    first = replays[0].rows["ts"].min()
    start = first if isinstance(first, int) else 0
    windows = [_windows(r, counters) for r in replays]
    length = 0.0
    if windows[0].height > MOST_MARKS:
        end = max((w["ts"].max() for w in windows), default=start)  # type: ignore[type-var]
        span = (end if isinstance(end, int) else start) - start + 1
        step = -(-span // SLICES)
        windows = [_slices(w, counters, start, step) for w in windows]
        length = step / 1e6
    return _join(windows, counters, start, redactor), length


def _windows(replay: Replay, counters: Sequence[str]) -> pl.DataFrame:
    return (
        replay.rows.group_by(*_KEY, maintain_order=True)
        .agg(
            pl.col("ts").min(), pl.col("seq").min(), pl.col("comm").first(), pl.col(counters).sum()
        )
        .sort("seq")
        .with_columns(pl.lit(1, pl.UInt32).alias("windows"))
    )


def _slices(windows: pl.DataFrame, counters: Sequence[str], start: int, step: int) -> pl.DataFrame:
    slot = (pl.col("ts") - start) // step
    return (
        windows.with_columns(slot.alias("slot"))
        .group_by("slot")
        .agg(pl.col("windows", *counters).sum(), pl.col("seq").min())
        .sort("slot")
        .with_columns((start + pl.col("slot") * step).alias("ts"))
    )


def _join(
    windows: Sequence[pl.DataFrame], counters: Sequence[str], start: int, redactor: Redactor
) -> list[Moment]:
    keys = ["slot"] if "slot" in windows[0].columns else list(_KEY)
    maps = [dict(_keyed(w, keys, counters)) for w in windows]
    out = []
    for row in windows[0].iter_rows(named=True):
        key = tuple(row[k] for k in keys)
        found = [m.get(key, (0,) * len(counters)) for m in maps]
        counts = {c: tuple(f[i] for f in found) for i, c in enumerate(counters)}
        at = round((row["ts"] - start) / 1e6, 6)
        if keys == ["slot"]:
            out.append(Moment(at, numbers.plural(row["windows"], "window"), "", counts))
        else:
            kind = names.syscall_kind(row["syscall"], row["args"])
            out.append(Moment(at, kind, redactor.comm(row["comm"]), counts))
    return out


def _keyed(
    frame: pl.DataFrame, keys: Sequence[str], counters: Sequence[str]
) -> list[tuple[tuple[object, ...], tuple[int, ...]]]:
    number = len(keys)
    rows = frame.select(*keys, *counters).iter_rows()
    return [(row[:number], row[number:]) for row in rows]


def timeline_figure(comparison: Comparison, redactor: Redactor) -> Figure:
    """Windows over time, a choice of counters.

    :param comparison: by total
    """
    counters = choices(comparison)
    found, length = moments(comparison.replays, counters, redactor)
    variants = {c: _variant(comparison, found, c) for c in counters}
    what = (
        f"Each mark is a slice of {length:.3g} ms"
        if length
        else "Each mark is one system call, or "
        "the time between two (page faults, other tasks' reclaim)"
    )
    return Figure(
        "timeline",
        "Over time",
        f"{what}; its height is what it needs of the chosen counter, on a logarithmic axis with a "
        "place for zero. Grey circles are the base. Drag to zoom, double-click to see all again. "
        "Time is that of the recorded machine; the replay counts and does not time.",
        variants,
        _twin(comparison, found, counters),
        380,
        choices=options(counters),
    )


def _variant(comparison: Comparison, found: Sequence[Moment], counter: str) -> Spec:
    figure = blank(380, hovermode="closest", dragmode="zoom")
    counts = [m.counts[counter] for m in found]
    for i, label in enumerate(comparison.labels):
        figure.add_scatter(
            x=[m.at for m in found],
            y=[on_log(c[i]) for c in counts],
            name=label,
            mode="markers+text" if i == 0 else "markers",
            text=_names(found, counter) if i == 0 else None,
            textposition="top center",
            textfont={"size": 11, "color": palette.MUTED},
            cliponaxis=False,
            marker={
                "color": palette.series(i),
                "symbol": palette.symbol(i),
                "size": palette.mark_size(i),
                "line": {"width": 2, "color": palette.series(i)},
            },
            customdata=[
                [numbers.count(c[i]), m.label, m.task] for c, m in zip(counts, found, strict=True)
            ],
            hovertemplate=hover(
                "%{customdata[1]} %{customdata[2]}",
                "%{x:.3f} ms",
                f"{NAME}: %{{customdata[0]}} {counter}",
            ),
        )
    most = max((v for c in counts for v in c), default=1)
    axis = log_axis(most)
    axis["range"][1] += 0.15  # room for the names
    figure.update_yaxes(title_text=f"{counter}, logarithmic", **axis)
    # A margin, so that marks at the ends are whole.
    end = max((m.at for m in found), default=0.0) or 1.0
    around = [round(-0.03 * end, 6), round(1.06 * end, 6)]
    figure.update_xaxes(title_text="ms since the first operation", range=around, zeroline=False)
    return spec(figure)


def _names(found: Sequence[Moment], counter: str) -> list[str]:
    """:return: what the largest marks of the base are, nothing for the others."""
    called = [m for m in found if m.counts[counter][0] and m.label != names.NO_SYSCALL]
    top = sorted(called, key=lambda m: -m.counts[counter][0])
    named = {id(m) for m in top[:MOST_NAMED]}
    return [m.label if id(m) in named else "" for m in found]


def _twin(comparison: Comparison, found: Sequence[Moment], counters: Sequence[str]) -> Twin:
    counter = counters[0]
    rows = [
        (f"{m.at:.3f}", m.label, m.task or "-", *difference_cells(m.counts[counter])) for m in found
    ]
    head = ("ms", "what", "task", *[f"{counter} {h}" for h in difference_head(comparison.labels)])
    return clipped(head, rows, 3, MOST_MARKS)
