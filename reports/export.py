# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays for other tools: Perfetto or Chrome traces, folded stacks, parquet.

Names of tasks are replaced unless asked for; addresses are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from replay import counters
from replay.result import Replay
from reports import config, names
from reports.redact import Redactor
from reports.replayout import to_parquet
from tracer.errors import UsageError
from tracer.files import write_file

# Counter tracks of a trace; more would bury them.
TRACKS: Final = ("tlbi", "dsb", "convert", "ptep_get", "rmap_call")
_COUNTERS: Final = frozenset({*counters.NAMES, *counters.SUMS, "nr_ops", "nr_pages"})


def perfetto(ops: pl.DataFrame, replays: Sequence[Replay], raw: bool = False) -> str:
    """A timeline as Chrome's JSON trace format, which ui.perfetto.dev opens.

    Tasks are threads, system calls and the time between them slices with runs of
    equal operations inside; each counter is a track with one series per policy,
    the count of the slice that begins there. Times are the recorded machine's.

    :param ops: :data:`tracer.schema.OP_COLUMNS`
    """
    redactor = Redactor.of(replays, raw)
    first = ops["ts"].min()
    start = first if isinstance(first, int) else 0
    events = [*_threads(ops, redactor), *_slices(ops, replays, start), *_tracks(replays, start)]
    shas = sorted({config.sha_prefix(r) for r in replays})
    other = {
        "mmtrace": config.version(),
        "capture": " ".join(shas),
        "policies": ", ".join(r.policy for r in replays),
        "note": "slices have recorded times; counters are simulated counts, not times",
    }
    document = {"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True) + "\n"


def _threads(ops: pl.DataFrame, redactor: Redactor) -> list[dict[str, Any]]:
    """:return: the names of processes and threads, as metadata events"""
    last = ops.group_by("pid", "tid", maintain_order=True).agg(pl.col("comm").last())
    out: list[dict[str, Any]] = []
    for pid, tid, comm in last.iter_rows():
        process = tid if pid is None else pid
        for what in ("process_name", "thread_name") if process == tid else ("thread_name",):
            name = {"name": redactor.comm(comm)}
            out.append({"ph": "M", "name": what, "pid": process, "tid": tid, "args": name})
    return out


def _slices(ops: pl.DataFrame, replays: Sequence[Replay], start: int) -> list[dict[str, Any]]:
    """:return: complete events: windows, and the runs of one operation inside"""
    counts = _window_counts(replays)
    keyed = ops.sort("seq").with_columns(
        run=pl.struct("window", "op").rle_id().over("tid"), asked=names.asked("syscall_args")
    )
    windows = keyed.group_by("pid", "tid", "window", "syscall", "asked", maintain_order=True).agg(
        pl.col("ts").min(), pl.col("ts").max().alias("last"), pl.len().alias("n")
    )
    runs = keyed.group_by("pid", "tid", "window", "run", "op", maintain_order=True).agg(
        pl.col("ts").min(), pl.col("ts").max().alias("last"), pl.len().alias("n")
    )
    out = []
    for row in windows.iter_rows(named=True):
        name = names.asked_kind(row["syscall"], row["asked"])
        out.append(_slice(row, start, name, counts.get((row["tid"], row["window"]), {})))
    out += [
        _slice(row, start, row["op"], {"operations": row["n"]})
        for row in runs.iter_rows(named=True)
    ]
    return out


def _slice(row: dict[str, Any], start: int, name: str, args: dict[str, Any]) -> dict[str, Any]:
    """:return: one complete event; times in us, a single instant is 1 ns long"""
    pid = row["tid"] if row["pid"] is None else row["pid"]
    return {
        "ph": "X",
        "name": name,
        "cat": "mm",
        "pid": pid,
        "tid": row["tid"],
        "ts": (row["ts"] - start) / 1000,
        "dur": max(row["last"] - row["ts"], 1) / 1000,
        "args": args,
    }


def _window_counts(replays: Sequence[Replay]) -> dict[tuple[int, int], dict[str, Any]]:
    """:return: (tid, window) to counter to policy to count, what is 0 left out"""
    out: dict[tuple[int, int], dict[str, Any]] = {}
    for replay in replays:
        sums = replay.rows.group_by("tid", "window").agg(pl.col(TRACKS).sum())
        for row in sums.iter_rows(named=True):
            have = out.setdefault((row["tid"], row["window"]), {})
            for counter in TRACKS:
                if row[counter]:
                    have.setdefault(counter, {})[replay.policy] = row[counter]
    return out


def _tracks(replays: Sequence[Replay], start: int) -> list[dict[str, Any]]:
    """:return: counter events: what each window counted, at the time it began"""
    frames = [
        r.rows.group_by("tid", "window", maintain_order=True)
        .agg(pl.col("ts").min(), pl.col(TRACKS).sum())
        .sort("ts", "tid", "window")
        for r in replays
    ]
    live = [c for c in TRACKS if any(f[c].sum() for f in frames)]
    out = []
    for rows in zip(*(f.iter_rows(named=True) for f in frames), strict=True):
        for counter in live:
            values = {r.policy: row[counter] for r, row in zip(replays, rows, strict=True)}
            at = (rows[0]["ts"] - start) / 1000
            out.append({"ph": "C", "name": counter, "pid": 0, "ts": at, "args": values})
    return out


def folded(replay: Replay, counter: str = "tlbi", raw: bool = False) -> str:
    """Folded stacks, ``task;system call;operation;order COUNT``, for flame graphs.

    :param counter: what the width is
    :raises UsageError: for an unknown counter
    """
    if counter not in _COUNTERS:
        raise UsageError(f"There is no counter {counter!r}.", "mmtrace report lists them.")
    redactor = Redactor.of([replay], raw)
    keys = ["comm", "syscall", "asked", "op", "order"]
    sums = (
        replay.rows.with_columns(names.asked())
        .group_by(keys, maintain_order=True)
        .agg(pl.col(counter).sum())
    )
    page = config.page_size(replay)
    lines = []
    for comm, syscall, asked, op, order, value in sums.iter_rows():
        frames = (
            redactor.comm(comm),
            names.asked_kind(syscall, asked),
            op,
            names.order_name(order, page),
        )
        if value:
            lines.append(f"{';'.join(f.replace(';', ':') for f in frames)} {value}")
    return "".join(f"{line}\n" for line in sorted(lines))


def parquet(output: Path, replays: Sequence[Replay], raw: bool, force: bool) -> list[Path]:
    """Every table of the replays as a parquet file in a directory.

    :return: the files: ``total``, ``op``, ``syscall``, ``task`` and ``all``, the finest rows
    :raises MmtraceError: when a file exists and not ``force``, or cannot be written
    """
    redactor = Redactor.of(replays, raw)
    shown = [_redacted(r, redactor) for r in replays]
    output.mkdir(parents=True, exist_ok=True)
    out = []
    for by in ("total", "op", "syscall", "task", "all"):
        path = output / f"{by}.parquet"
        write_file(path, to_parquet(shown, by), force)
        out.append(path)
    return out


def _redacted(replay: Replay, redactor: Redactor) -> Replay:
    if redactor.raw:
        return replay
    comms = [redactor.comm(c) for c in replay.rows["comm"]]
    args = [redactor.args(a) for a in replay.rows["args"]]
    rows = replay.rows.with_columns(
        pl.Series("comm", comms, pl.String), pl.Series("args", args, pl.String)
    )
    return replace(replay, rows=rows)
