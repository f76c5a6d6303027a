# SPDX-License-Identifier: GPL-2.0-or-later
"""The address space over time: contpte blocks folded, unfolded, partly mapped, or gone.

A row is a contpte block that is mapped at some time, or several neighbours
where there are too many to draw; a column is the state after a system call or
the page faults between two. One panel per policy, the same rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from replay import snapshot
from replay.snapshot import History
from reports import names, numbers, palette
from reports.figures import NAME, Figure, Twin, blank, clipped, hover, literal, spec
from reports.redact import Redactor

# Rows drawn; more blocks are joined, 2, 4, 8 at a time.
MOST_ROWS: Final = 128
# Gap between page tables that ends a region, in tables.
GAP: Final = 1

# What the classes are called, in the order of snapshot.CLASSES.
WORDS: Final = (
    "not mapped",
    "swapped out",
    "partly mapped",
    "full, cannot fold",
    "full, not folded",
    "folded",
    "one PMD entry",
)
Classes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Grid:
    """Cells of every panel.

    :ivar rows: one label per row, unique, ascending addresses
    :ivar regions: (first row, rows, label) of each run of neighbouring page tables
    :ivar columns: one label per column
    :ivar cells: per replay uint8[rows, columns], index into :data:`WORDS`
    :ivar unit: blocks in a row
    """

    rows: list[str]
    regions: list[tuple[int, int, str]]
    columns: list[str]
    cells: list[Classes]
    unit: int


def step_labels(history: History) -> list[str]:
    """:return: what each step is, numbered: two may have the same name"""
    out = []
    for number, (step, row) in enumerate(zip(history.steps, history.labels, strict=True), 1):
        many = f" \u00d7{step.windows:,}" if step.windows > 1 else ""
        out.append(f"{number} {_what(row)}{many}")
    return out


def _what(row: Mapping[str, object]) -> str:
    """:return: the system call, or what the task did outside of one"""
    if row["syscall"] is None:
        op = str(row["op"])
        return "exit" if op == "exit_mmap" else "reclaim" if op.startswith("try_to") else "faults"
    args = None if row["args"] is None else str(row["args"])
    # The advice says more than the word madvise, and columns are narrow.
    return names.syscall_kind(str(row["syscall"]), args).removeprefix("madvise ")


def grid(histories: Sequence[History], raw: bool) -> Grid | None:
    """Lay the blocks of all policies on common rows.

    :param histories: of one capture, so with the same steps
    :return: None when nothing was ever mapped
    """
    base = histories[0]
    tables = np.unique(np.concatenate([s.tables for h in histories for s in h.states]))
    if not tables.size:
        return None
    dense = [_dense(h, tables) for h in histories]
    used = np.flatnonzero(sum((d.any(axis=1) for d in dense), np.zeros(dense[0].shape[0], bool)))
    unit = 1
    while np.unique(used // unit).size > MOST_ROWS:
        unit *= 2
    groups = np.unique(used // unit)
    cells = [_joined(d, groups, unit) for d in dense]
    starts = groups * unit
    region = np.concatenate([[0], np.cumsum(np.diff(tables) > GAP)])
    of_row = region[starts // base.blocks_per_table]
    rows, regions = _names(base, tables, starts, of_row, unit, raw)
    return Grid(rows, regions, step_labels(base), cells, unit)


def _dense(history: History, tables: npt.NDArray[np.int64]) -> Classes:
    """:return: uint8[blocks of all tables, steps], the state before the first step left out"""
    out = np.zeros((tables.size, history.blocks_per_table, len(history.steps)), np.uint8)
    for column, state in enumerate(history.states[1:]):
        out[np.searchsorted(tables, state.tables), :, column] = state.classes
    return out.reshape(-1, len(history.steps))


def _joined(dense: Classes, groups: npt.NDArray[np.int64], unit: int) -> Classes:
    """:return: the most frequent class of each group of blocks, holes apart"""
    padded = np.zeros((-(-dense.shape[0] // unit) * unit, dense.shape[1]), np.uint8)
    padded[: dense.shape[0]] = dense
    parts = padded.reshape(-1, unit, dense.shape[1])[groups]
    counts = np.stack([(parts == k).sum(axis=1) for k in range(1, len(WORDS))])
    most: Classes = np.where(counts.any(axis=0), counts.argmax(axis=0) + 1, 0).astype(np.uint8)
    return most


def _names(
    base: History,
    tables: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    of_row: npt.NDArray[np.int64],
    unit: int,
    raw: bool,
) -> tuple[list[str], list[tuple[int, int, str]]]:
    """:return: labels of the rows and of the regions; addresses only with ``raw``"""
    block = base.block_pages * base.page_size
    address = (tables[starts // base.blocks_per_table] * base.blocks_per_table) * block
    address = address + (starts % base.blocks_per_table) * block
    rows, regions = [], []
    for number in np.unique(of_row):
        where = np.flatnonzero(of_row == number)
        first = int(address[where[0]])
        title = f"{first:#x}" if raw else f"region {number + 1}"
        regions.append((int(where[0]), len(where), title))
        rows += [
            f"{int(a):#x}" if raw else f"{title} +{(int(a) - first) // 1024:,} KiB"
            for a in address[where]
        ]
    return rows, regions


def space_figure(
    histories: Sequence[History], labels: Sequence[str], redactor: Redactor
) -> Figure | None:
    """Address against time, one panel per policy.

    :return: None when there is nothing to show
    """
    found = grid(histories, redactor.raw)
    if found is None:
        return None
    panel = 90 + max(150, min(330, 4 * len(found.rows)))
    height = 40 + panel * len(labels)
    figure = blank(height, hovermode="closest", dragmode="zoom")
    figure.update_layout(showlegend=True, margin={"l": 8, "r": 24, "t": 64, "b": 8})
    for i, label in enumerate(labels):
        _panel(figure, found, histories[i], i, label, len(labels), height)
    _legend(figure, found)
    block = histories[0].block_pages * histories[0].page_size // 1024
    unit = f"{found.unit} neighbouring blocks" if found.unit > 1 else "one contpte block"
    return Figure(
        "space",
        "Page tables of the workload, before and after each step",
        f"Each row is {unit} of {block} KiB, addresses upwards, parts that are never mapped left "
        "out; each column is the state after a system call or after the page faults between two, "
        "so the column on its left is the state before. Numbers under the columns are blocks "
        "folded and unfolded again within the step: repaints that leave no trace in the state. "
        f"{_parting(found, labels)}",
        {"": spec(figure)},
        _twin(histories, labels, found),
        height,
    )


def _panel(
    figure: object, found: Grid, history: History, i: int, label: str, panels: int, height: int
) -> None:
    """Add one policy's heatmap with axes of its own."""
    top = 1 - i / panels
    gap = 62 / height
    axis = "" if i == 0 else str(i + 1)
    cells = found.cells[i]
    count = len(found.columns)
    figure.add_heatmap(  # type: ignore[attr-defined]
        x=list(range(count)),
        y=list(range(len(found.rows))),
        z=cells.tolist(),
        text=[[WORDS[k] for k in row] for row in cells.tolist()],
        customdata=[[row] * count for row in found.rows] if len(found.rows) <= 64 else None,
        name=label,
        zmin=-0.5,
        zmax=len(WORDS) - 0.5,
        colorscale=_scale(),
        showscale=False,
        showlegend=False,
        xgap=1,
        ygap=0 if len(found.rows) > 64 else 1,
        xaxis=f"x{axis}",
        yaxis=f"y{axis}",
        hovertemplate=hover("%{text}", NAME),
    )
    marks = [_repaint_text(f, u) for f, u in history.repaints]
    ticks = [
        f"{name}<br>{mark}" if mark else name
        for name, mark in zip(found.columns, marks, strict=True)
    ]
    wide = count <= 12
    made = {
        f"xaxis{axis}": {
            "tickvals": list(range(count)),
            "ticktext": ticks if wide else [t.partition(" ")[0] for t in ticks],
            "anchor": f"y{axis}",
            "domain": [0, 1],
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
            "tickfont": {"size": 11},
            "tickcolor": palette.AXIS,
            "autotickangles": [0, 90],
        },
        f"yaxis{axis}": {
            "domain": [top - 1 / panels + gap, top - 0.05 / panels],
            "tickvals": [first + rows / 2 - 0.5 for first, rows, _ in found.regions],
            "ticktext": [title for _, _, title in _spaced(found)],
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
            "tickfont": {"size": 11},
            "ticks": "",
        },
    }
    figure.update_layout(**made)  # type: ignore[attr-defined]
    figure.add_annotation(  # type: ignore[attr-defined]
        text=literal(label),
        x=0, xref="paper", xanchor="left", y=top - 0.05 / panels, yref="paper", yanchor="bottom",
        showarrow=False, font={"size": 13, "color": palette.INK, "weight": 600},
    )  # fmt: skip


def _spaced(found: Grid) -> list[tuple[int, int, str]]:
    """:return: the regions; those of few rows beside a larger one without their title"""
    least = len(found.rows) / 24
    return [(f, n, t if n >= least else "") for f, n, t in found.regions]


def _repaint_text(folds: int, unfolds: int) -> str:
    """:return: a line for each kind of repaint; empty without any"""
    parts = [(folds, "folded"), (unfolds, "unfolded")]
    return "<br>".join(f"{n:,} {word}" for n, word in parts if n)


def _scale() -> list[list[object]]:
    """:return: plotly colour scale with one step per class"""
    n = len(palette.BLOCKS)
    return [[(i + side) / n, colour] for i, colour in enumerate(palette.BLOCKS) for side in (0, 1)]


def _legend(figure: object, found: Grid) -> None:
    """Add an entry per class that occurs; a heatmap has none of its own."""
    seen = sorted({int(k) for cells in found.cells for k in np.unique(cells)})
    for kind in seen:
        figure.add_scatter(  # type: ignore[attr-defined]
            x=[None],
            y=[None],
            mode="markers",
            name=WORDS[kind],
            marker={
                "symbol": "square",
                "size": 12,
                "color": palette.BLOCKS[kind],
                "line": {"width": 1, "color": palette.AXIS},
            },
        )


def _parting(found: Grid, labels: Sequence[str]) -> str:
    """:return: a sentence that says where the panels differ"""
    if len(labels) < 2:
        return ""
    differ = np.any([c != found.cells[0] for c in found.cells[1:]], axis=(0, 1))
    steps = [found.columns[i] for i in np.flatnonzero(differ)]
    if not steps:
        return "Here all policies leave the same state behind after every step."
    return f"The policies leave different states behind after: {numbers.listing(steps[:6])}."


def _twin(histories: Sequence[History], labels: Sequence[str], found: Grid) -> Twin:
    head = ["after", "policy", *WORDS[1:], "pages", "folds", "unfolds"]
    rows: list[tuple[str, ...]] = []
    for column, name in enumerate(found.columns):
        for label, history in zip(labels, histories, strict=True):
            state = history.states[column + 1]
            blocks = [state.count(k) for k in range(1, len(snapshot.CLASSES))]
            counts = [*blocks, state.pages, *history.repaints[column]]
            rows.append((name, label, *map(numbers.count, counts)))
    return clipped(head, rows, 2)
