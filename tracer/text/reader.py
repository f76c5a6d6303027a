# SPDX-License-Identifier: GPL-2.0-or-later
"""Trace text to a capture.

Text has lost what its printer left out: nanoseconds, real pointers where they
are hashed, numbers behind names. ``provenance.extra["precision"]`` says what.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tracer import schema
from tracer.capture import Capture, Provenance
from tracer.decode import Diagnostic, diagnostics_frame, distinct_slices
from tracer.errors import CaptureError
from tracer.eventformat import EventFormat
from tracer.kernels import as_bytes
from tracer.text import lines, names
from tracer.text.events import Loss, body_columns, header_columns
from tracer.text.fields import Bodies, strings
from tracer.text.lines import Lines
from tracer.tracedat.cursor import note

MAX_EVENTS: Final = 4096  # distinct event names; the kernel has some 2,300
MAX_LOSS: Final = 1 << 20

TRACEFS: Final = "tracefs text"
TRACE_CMD: Final = "trace-cmd report text"
PERF_SCRIPT: Final = "perf script text"

_GRAPH = re.compile(rb"^ *\d{1,5}\) .{0,40}\|", re.M)
_WRITTEN = re.compile(
    rb"^# entries-in-buffer/entries-written: (\d{1,19})/(\d{1,19})\s+#P:(\d{1,5})", re.M
)
_TRACER = re.compile(rb"^# tracer: (\S{1,40})", re.M)
_HEADING = re.compile(rb"#|cpus=\d|version\b|CPU\b|trace-cmd\b|\s*(?:\n|\Z)")
_CPUS = re.compile(rb"^cpus=(\d{1,5})\s*$", re.M)
# "CPU:1 [LOST 23 EVENTS]" of tracefs, "CPU:1 [23 EVENTS DROPPED]" of trace-cmd.
_LOST = re.compile(rb"CPU:(\d{1,5}) \[(?:LOST )?(\d{0,19}) ?EVENTS(?: DROPPED)?\]")
_LOST_RECORD = re.compile(rb"PERF_RECORD_LOST(?:_SAMPLES)? lost (\d{1,19})")
_HEAD: Final = 1 << 16


def read(data: bytes, path: str, formats: Mapping[str, EventFormat] | None = None) -> Capture:
    """Read the text of tracefs, trace-cmd report or perf script.

    :param data: the whole text
    :param path: as given by the user, for provenance
    :param formats: event formats of the same kernel, which give the events'
        systems and the fields' types, and turn printed names back into numbers
    :raises CaptureError: when no line is an event
    """
    problems: list[Diagnostic] = []
    data = _whole_lines(data, problems)
    buf = as_bytes(data)
    found = lines.split(buf, data.count(b"\n"))
    is_event = (found.state >= lines.EVENT) & (found.state <= lines.FUNCTION)
    if not is_event.any():
        raise _no_events(data, path)
    dialect = _dialect(data, buf, found, is_event)
    seq = _sequence(found.ts, is_event)
    loss = Loss()
    events, used = _events(buf, found, seq, formats or {}, dialect, loss, problems)
    _leftovers(buf, found, is_event, problems)
    _missing_lines(data, is_event, problems)
    _oddities(loss, problems)
    return Capture(
        events=events,
        formats=used,
        provenance=_provenance(data, path, found, is_event, dialect, loss),
        loss=_lost(data, found, is_event),
        diagnostics=diagnostics_frame(problems),
    )


def _whole_lines(data: bytes, problems: list[Diagnostic]) -> bytes:
    """Leave out a last line without its end: a cut number is a wrong number."""
    end = data.rfind(b"\n") + 1
    if end < len(data):
        text = "The last line has no end; it may be cut and is left out."
        problems.append(Diagnostic("truncated-data", "loss", end, len(data) - end, text))
    if (nul := data.find(b"\0", 0, end)) >= 0:
        text = "There are NUL bytes in the text, which no tracer prints; lines may have merged."
        problems.append(Diagnostic("nul-bytes", "warning", nul, data.count(b"\0"), text))
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as e:
            text = "There are bytes that are no UTF-8, from a task's name or from damage."
            problems.append(Diagnostic("not-utf-8", "note", e.start, None, text))
    return data[:end]


def _no_events(data: bytes, path: str) -> CaptureError:
    if _GRAPH.search(data[:_HEAD]):
        return CaptureError(
            f"{path} is function_graph text, which has no time for its events.",
            "Record it with trace-cmd, or set the options funcgraph-abstime and funcgraph-proc.",
        )
    return CaptureError(
        f"{path} has no line of tracefs, trace-cmd report or perf script text.",
        "perf script must print comm, tid, time and event, as it does without -F.",
    )


def _dialect(data: bytes, buf: NDArray[np.uint8], found: Lines, is_event: NDArray[np.bool_]) -> str:
    """:return: which program printed the text."""
    first = int(np.flatnonzero(is_event)[0])
    if buf[found.at[first, lines.COMM_END]] != ord("-"):
        return PERF_SCRIPT
    head = data[:_HEAD]
    return TRACE_CMD if _CPUS.search(head) and not _TRACER.search(head) else TRACEFS


def _sequence(ts: NDArray[np.uint64], is_event: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """:return: uint64[lines], place of each event line by time, then line."""
    rows = np.flatnonzero(is_event)
    times = ts[rows]
    if (times[1:] < times[:-1]).any():
        rows = rows[np.argsort(times, kind="stable")]
    seq = np.zeros(ts.size, np.uint64)
    seq[rows] = np.arange(rows.size, dtype=np.uint64)
    return seq


def _events(
    buf: NDArray[np.uint8],
    found: Lines,
    seq: NDArray[np.uint64],
    formats: Mapping[str, EventFormat],
    dialect: str,
    loss: Loss,
    problems: list[Diagnostic],
) -> tuple[dict[str, pl.DataFrame], dict[str, EventFormat]]:
    """:return: frames by key, and the formats that were used."""
    comm = _comms(buf, found)
    known = names.by_name(formats)
    frames: dict[str, pl.DataFrame] = {}
    used = {}
    for name, state, rows in _groups(buf, found, problems):
        rows = rows[np.argsort(seq[rows], kind="stable")]
        bodies = Bodies(buf, found.at[rows, lines.BODY], found.at[rows, lines.BODY_END])
        key = _key(name, state, bodies, known)
        if key is None or len(frames) >= MAX_EVENTS:
            text = f"{rows.size} lines of an event {name[:60]!a} are left out: no such name."
            note(problems, Diagnostic("bad-event-name", "loss", int(bodies.start[0]), None, text))
            continue
        if key in formats:
            used[key] = formats[key]
        columns = body_columns(key, state, bodies, formats.get(key), dialect == TRACEFS, loss)
        frame = header_columns(
            rows, seq, found.ts, found.number, comm, (lines.TID, lines.PID, lines.CPU)
        )
        frame = frame.hstack(_distinct(columns, set(frame.columns)))
        if key in frames:
            frame = pl.concat([frames[key], frame], how="diagonal_relaxed").sort("seq")
        frames[key] = frame
    return frames, used


def _distinct(columns: list[pl.Series], taken: set[str]) -> list[pl.Series]:
    """:return: the columns, with an underscore behind names that are taken."""
    out = []
    for column in columns:
        name = column.name
        while name in taken:
            name += "_"
        taken.add(name)
        out.append(column.alias(name))
    return out


def _groups(
    buf: NDArray[np.uint8], found: Lines, problems: list[Diagnostic]
) -> list[tuple[str, int, NDArray[np.int64]]]:
    """:return: (name, line state, line numbers) of each event, in order of appearance."""
    is_named = (found.state >= lines.EVENT) & (found.state <= lines.SYS_EXIT)
    at = np.flatnonzero(is_named)
    start = found.at[at, lines.NAME]
    code, _ = distinct_slices(buf, start, found.at[at, lines.NAME_END] - start)
    slot = code.astype(np.int64) * 4 + found.state[at]
    order = np.argsort(slot, kind="stable")
    edges = np.flatnonzero(np.diff(slot[order], prepend=-1))
    out = []
    if edges.size > 2 * MAX_EVENTS:
        # A hostile text; some names more are kept, for the row that says what was left out.
        order = order[: edges[2 * MAX_EVENTS]]
        edges = edges[: 2 * MAX_EVENTS]
        text = "There are far more event names than a kernel has; most are left out."
        note(problems, Diagnostic("bad-event-name", "loss", None, None, text))
    for rows in np.split(at[order], edges[1:]) if at.size else []:
        first = int(rows[0])
        name = buf[found.at[first, lines.NAME] : found.at[first, lines.NAME_END]].tobytes()
        out.append((name.decode("utf-8", "replace"), int(found.state[first]), rows))
    functions = np.flatnonzero(found.state == lines.FUNCTION)
    if functions.size:
        # The function tracer's lines have no event name: the body is the whole text.
        found.at[functions, lines.BODY] = found.at[functions, lines.NAME]
        out.append(("function", lines.FUNCTION, functions))
    return sorted(out, key=lambda group: int(group[2][0]))


def _key(name: str, state: int, bodies: Bodies, known: Mapping[str, str]) -> str | None:
    if state == lines.FUNCTION:
        return "ftrace:function"
    if state == lines.SYS_ENTER:
        return names.key_of("sys_enter_" + name[4:], b"", known)
    if state == lines.SYS_EXIT:
        return names.key_of("sys_exit_" + name[4:], b"", known)
    first = bodies.buf[bodies.start[0] : min(bodies.end[0], bodies.start[0] + 256)]
    return names.key_of(name, first.tobytes(), known)


def _comms(buf: NDArray[np.uint8], found: Lines) -> pl.Series:
    """:return: task name of every line; null when the kernel had none."""
    is_event = (found.state >= lines.EVENT) & (found.state <= lines.FUNCTION)
    start = found.at[:, lines.COMM]
    length = np.where(is_event, found.at[:, lines.COMM_END] - start, -1)
    comm = strings("comm", buf, np.where(is_event, start, 0), length)
    # perf calls the idle task swapper. "<...>" is a name the kernel did not keep,
    # ":169" what perf prints for a thread it knows no name of.
    known = comm.replace({"<idle>": "swapper", "<...>": None})
    return known.set(known.str.contains(r"^:\d+$").fill_null(False), None)


def _missing_lines(data: bytes, is_event: NDArray[np.bool_], problems: list[Diagnostic]) -> None:
    """Hold the number of event lines against the one tracefs puts into the heading."""
    written = _WRITTEN.search(data[:_HEAD])
    lines_found = int(is_event.sum())
    if written and int(written[1]) != lines_found:
        text = f"The heading tells of {int(written[1])} events, the text has {lines_found}."
        problems.append(Diagnostic("missing-lines", "warning", None, None, text))


def _leftovers(
    buf: NDArray[np.uint8],
    found: Lines,
    is_event: NDArray[np.bool_],
    problems: list[Diagnostic],
) -> None:
    """Say how many lines were not understood."""
    other = np.flatnonzero(found.state == lines.OTHER)
    first = int(np.flatnonzero(is_event)[0])
    # Before it, headings are none.
    starts = found.at[other, lines.COMM]
    heads = [bool(_HEADING.match(buf[at : at + 16].tobytes())) for at in starts[other < first]]
    other = np.concatenate([other[other < first][~np.array(heads, bool)], other[other > first]])
    if other.size:
        where = found.at[other, lines.COMM]
        size = int((found.at[other, lines.COMM_END] - where).sum())
        text = (
            f"{other.size} lines are no events, such as lines of stack traces; they are left out."
        )
        problems.append(Diagnostic("unparsed-lines", "warning", int(where[0]), max(size, 0), text))


def _oddities(loss: Loss, problems: list[Diagnostic]) -> None:
    """Say which values do not look like the others of their column."""
    for code, severity, found, what in (
        ("odd-value", "loss", loss.odd, "values that are no numbers, unlike the rest; left out"),
        ("mixed-values", "note", loss.mixed, "both numbers and other values, and stay text"),
        ("missing-value", "note", loss.gaps, "a value in some of their lines only"),
        ("guessed-base", "note", loss.guessed, "a few letters that make it hexadecimal"),
    ):
        if found:
            names = ", ".join(found[:8])
            text = f"{len(found)} columns have {what}: {names}."
            problems.append(Diagnostic(code, severity, None, None, text))


def _lost(data: bytes, found: Lines, is_event: NDArray[np.bool_]) -> pl.DataFrame:
    """:return: loss table of the text's own remarks."""
    rows: list[tuple[Any, ...]] = []
    written = _WRITTEN.search(data[:_HEAD])
    if written and int(written[2]) > int(written[1]):
        overwritten = int(written[2]) - int(written[1])
        rows.append((None, None, None, overwritten, False, "entries-written of the header"))
    events = np.flatnonzero(is_event)
    marks = np.flatnonzero(found.state == lines.LOSS)[:MAX_LOSS]
    following = np.searchsorted(events, marks)
    for line, after in zip(marks.tolist(), following.tolist(), strict=True):
        ts = int(found.ts[events[after]]) if after < events.size else None
        start = int(found.at[line, lines.COMM])
        text = data[start : start + 256].partition(b"\n")[0]
        if record := _LOST_RECORD.search(text):
            rows.append((ts, None, None, int(record[1]), False, "PERF_RECORD_LOST"))
        elif mark := _LOST.match(text):
            count = int(mark[2] or 0)
            rows.append((ts, int(mark[1]), None, count, not count, "LOST EVENTS line"))
    return pl.DataFrame(rows, schema=schema.polars_schema(schema.LOSS_COLUMNS), orient="row")


def _provenance(
    data: bytes, path: str, found: Lines, is_event: NDArray[np.bool_], dialect: str, loss: Loss
) -> Provenance:
    head = data[:_HEAD]
    digits = found.number[is_event, lines.DIGITS]
    cpus = _WRITTEN.search(head) or _CPUS.search(head)
    time = {6: "us", 9: "ns", 0: "clock units"}.get(int(digits.max()), f"1e-{digits.max()} s")
    precision = {"time": time} | {k: v for k, v in asdict(loss).items() if v}
    tracer = _TRACER.search(head)
    return Provenance(
        path=path,
        container=dialect,
        nr_cpus=int(cpus[cpus.lastindex or 1]) if cpus else None,
        extra={"precision": precision}
        | ({"tracer": tracer[1].decode("ascii", "replace")} if tracer else {}),
    )
