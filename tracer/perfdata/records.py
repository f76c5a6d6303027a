# SPDX-License-Identifier: GPL-2.0-or-later
"""Records that are not samples: side tables, task names and the loss table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tracer import decode, kernels, schema
from tracer.decode import CommTable, Diagnostic, Rows
from tracer.eventformat import EventFormat, Field
from tracer.perfdata import format as layout
from tracer.perfdata.format import Part, SideRecord
from tracer.perfdata.sample import Plan

_SIZES: Final = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "s32": 4}
MAX_CPU: Final = (1 << 31) - 1  # the loss table's column is signed
_MISC: Final = Part("misc", 4, "u16")
# Boolean columns: table to (column, bit of misc).
_FLAGS: Final = {
    "comm": (("exec", layout.MISC_COMM_EXEC),),
    "mmap": (("data", layout.MISC_MMAP_DATA),),
    "switch": (
        ("out", layout.MISC_SWITCH_OUT),
        ("preempt", layout.MISC_SWITCH_OUT_PREEMPT),
    ),
    "lost_samples": (("filtered", layout.MISC_LOST_SAMPLES_BPF),),
}


def _field(part: Part) -> Field:
    if part.code == "str":
        return Field(part.name, "char x[]", part.offset, 0, False, True, "")
    if part.code == "bytes":
        return Field(part.name, "u8 x[]", part.offset, 0, False, True, "")
    if part.code.startswith("id"):
        size = int(part.code[2:])
        return Field(part.name, f"u8 x[{size}]", part.offset, size, False, True, "")
    return Field(
        part.name, part.code, part.offset, _SIZES[part.code], part.code == "s32", False, ""
    )


def side_tables(
    rows: Rows,
    kind: NDArray[np.uint8],
    state: NDArray[np.int32],
    plan: Plan,
    diagnostics: list[Diagnostic],
) -> dict[str, pl.DataFrame]:
    """Decode all records that are no samples and not perf's own bookkeeping.

    :param rows: all records of the stream; ``len`` is not used
    :param kind: uint8[n], record types
    :param state: int32[n] from :func:`tracer.kernels.read_records`
    :return: by table name, in seq order; types that are not known are in ``unknown``
    """
    side = np.flatnonzero(kind != layout.SAMPLE)
    side = side[np.argsort(rows.seq[side])]
    rows, kind = _some(rows, side, state, plan), kind[side]
    state = state[side]
    tables: dict[str, list[pl.DataFrame]] = {}
    misc = _u16_at(rows, 4)
    for record in layout.SIDE_RECORDS:
        chosen = (kind == record.type) & (misc & record.mask == record.misc)
        picked = np.flatnonzero(chosen).astype(np.uint32)
        if picked.size:
            frame = _table(rows, picked, record, state, plan, diagnostics)
            tables.setdefault(record.table, []).append(frame)
    others = np.flatnonzero(~np.isin(kind, _KNOWN)).astype(np.uint32)
    if others.size:
        tables["unknown"] = [_unknown(rows, others)]
        types = sorted(set(tables["unknown"][0]["type"].to_list()))
        diagnostics.append(
            Diagnostic(
                "unknown-records",
                "note",
                int(rows.off[others[0]]),
                None,
                f"{others.size} records are of types that are not known and are kept as they "
                f"are: {', '.join(map(str, types[:8]))}.",
            )
        )
    return {
        name: frames[0] if len(frames) == 1 else _merged(frames) for name, frames in tables.items()
    }


_KNOWN: Final = np.array(list(layout.RECORDS), np.uint8)


def _some(rows: Rows, side: NDArray[np.int64], state: NDArray[np.int32], plan: Plan) -> Rows:
    """:return: the chosen rows, with the bytes of each record but its sample_id as length."""
    out = Rows(
        rows.buf,
        rows.off[side],
        np.empty(0, np.int64),
        rows.ts[side],
        rows.cpu[side],
        None if rows.pid is None else rows.pid[side],
        rows.tid[side],
        rows.seq[side],
        rows.big_endian,
    )
    size = _u16_at(out, 6)
    has_id = state[side] <= kernels.WITH_ID
    size[has_id] -= plan.table[kernels.WITH_ID - state[side][has_id], kernels.L_END_SIZE]
    return replace(out, len=size)


def _merged(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames, how="diagonal").sort("seq")


def _u16_at(rows: Rows, at: int) -> NDArray[np.int64]:
    """:return: int64[n], the u16 at byte ``at`` of each record's header."""
    place = rows.off + at
    low, high = rows.buf[place].astype(np.int64), rows.buf[place + 1].astype(np.int64)
    return low << 8 | high if rows.big_endian else high << 8 | low


def _table(
    rows: Rows,
    picked: NDArray[np.uint32],
    record: SideRecord,
    state: NDArray[np.int32],
    plan: Plan,
    diagnostics: list[Diagnostic],
) -> pl.DataFrame:
    """:return: seq, ts, cpu, the record's own fields, misc; pid and tid where it has none."""
    parts = (*record.parts, _MISC)
    name = layout.RECORDS[record.type][0]
    fmt = EventFormat("PERF_RECORD", name, record.type, tuple(map(_field, parts)), "")
    columns = decode.payload_columns(rows, picked, fmt, diagnostics)
    lead = [
        pl.Series("seq", rows.seq[picked]),
        pl.Series("ts", rows.ts[picked]),
        decode.known_cpu(rows.cpu[picked]),
    ]
    if not any(part.name == "tid" for part in record.parts) and rows.pid is not None:
        lead += [pl.Series("pid", rows.pid[picked]), pl.Series("tid", rows.tid[picked])]
    if record.table == "lost_samples":
        lead.append(pl.Series("id", _trailer_ids(rows, picked, state, plan)))
    frame = pl.DataFrame(lead + columns)
    flags = [
        (pl.col("misc") & bit != 0).alias(column) for column, bit in _FLAGS.get(record.table, ())
    ]
    return frame.with_columns(flags)


def _trailer_ids(
    rows: Rows, picked: NDArray[np.uint32], state: NDArray[np.int32], plan: Plan
) -> NDArray[np.uint64]:
    """:return: uint64[n], the id in each record's sample_id, 0 where there is none."""
    attr = np.where(state[picked] <= kernels.WITH_ID, kernels.WITH_ID - state[picked], 0)
    back = plan.table[attr, kernels.L_END_ID]
    size = plan.table[attr, kernels.L_END_SIZE]
    at = np.where(
        (state[picked] <= kernels.WITH_ID) & (back > 0),
        rows.off[picked] + rows.len[picked] + size - back,
        -1,
    )
    out = np.empty(picked.size, np.uint64)
    kernels.gather_u64(rows.buf, at, rows.big_endian, out)
    return out


def _unknown(rows: Rows, picked: NDArray[np.uint32]) -> pl.DataFrame:
    """:return: seq, ts, type, misc and all bytes of records that this version does not know."""
    parts = (Part("type", 0, "u32"), _MISC, Part("raw", 8, "bytes"))
    fmt = EventFormat("PERF_RECORD", "unknown", -1, tuple(map(_field, parts)), "")
    columns = decode.payload_columns(rows, picked, fmt, [])
    return pl.DataFrame(
        [pl.Series("seq", rows.seq[picked]), pl.Series("ts", rows.ts[picked]), *columns]
    )


def comm_table(tables: dict[str, pl.DataFrame]) -> CommTable:
    """:return: task names from the COMM and FORK records."""
    comms: Iterable[tuple[int, int, str]] = ()
    forks: Iterable[tuple[int, int, int]] = ()
    if "comm" in tables:
        comms = tables["comm"].select("seq", "tid", "comm").drop_nulls().iter_rows()
    if "fork" in tables:
        # A new process starts with one thread; a new thread takes its creator's name.
        forks = tables["fork"].select("seq", "tid", "ptid").drop_nulls().iter_rows()
    return CommTable.from_records(comms, forks)


def _rows(tables: dict[str, pl.DataFrame], table: str, *columns: str) -> list[tuple[Any, ...]]:
    """:return: rows of a side table, those cut short left out."""
    if table not in tables:
        return []
    return tables[table].select(columns).drop_nulls(columns[-1]).rows()


def loss_table(
    tables: dict[str, pl.DataFrame], plan: Plan, more: Iterable[tuple[str, str | None, int]]
) -> pl.DataFrame:
    """Say what was lost, each sample once.

    The kernel counts a lost sample twice: LOST says when and on which CPU's ring,
    LOST_SAMPLES, at the end, how many of which event. So the second only fills in
    what the first does not have. A LOST_SAMPLES record marked as filtered counts
    samples a filter dropped on purpose.

    :param more: (source, event, number of samples) that this reader left out
    """
    rows: list[tuple[int | None, int | None, str | None, int, bool, str]] = []
    total = 0
    for ts, cpu, lost in _rows(tables, "lost", "ts", "cpu", "lost"):
        # Its id is that of the event that noticed, not of those that were lost.
        rows.append((ts, cpu, None, lost, False, "PERF_RECORD_LOST"))
        total += lost
    late = [
        (plan.key_of_id(ident), lost)
        for ident, filtered, lost in _rows(tables, "lost_samples", "id", "filtered", "lost")
        if not filtered
    ]
    excess = sum(lost for _, lost in late) - total
    if total == 0:
        rows += [(None, None, k, n, False, "PERF_RECORD_LOST_SAMPLES") for k, n in late]
    elif excess > 0:
        rows.append((None, None, None, excess, False, "PERF_RECORD_LOST_SAMPLES"))
    for ts, cpu, ident in _rows(tables, "throttle", "ts", "cpu", "id"):
        rows.append((ts, cpu, plan.key_of_id(ident), 0, True, "PERF_RECORD_THROTTLE"))
    rows += [(None, None, event, n, n == 0, source) for source, event, n in more]
    # Numbers from a damaged file may be any.
    fitting = [
        (ts, None if cpu is None or cpu > MAX_CPU else cpu, event, min(n, decode.MAX_U64), *rest)
        for ts, cpu, event, n, *rest in rows
    ]
    return pl.DataFrame(fitting, schema=schema.polars_schema(schema.LOSS_COLUMNS), orient="row")
