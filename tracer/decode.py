# SPDX-License-Identifier: GPL-2.0-or-later
"""Records with a tracepoint payload to typed event frames.

Every container ends here: it finds the records, their times and CPUs, and
:func:`build_frames` places the fields by the capture's own event formats. One
pass per event over its records; columns are allocated once at their final size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tracer import kernels, schema
from tracer.eventformat import EventFormat, Field

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

# Columns for the rows of one event, by event id and row numbers: call chains and the like.
ExtraColumns = Callable[[int, U32], Sequence[pl.Series]]

_UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SIGNED: dict[int, Any] = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
_LENGTH = re.compile(r"\[\s*(\d{1,6})\s*\]\s*$")
_COMMON_IDENTITY = ("common_type", "common_pid")  # are the frame's name and its tid
NO_CPU = 0xFFFFFFFF
MAX_U64 = (1 << 64) - 1
MAX_DENSE_ID = 1 << 20  # event ids above this are looked up by sorting
# A column takes at most this many times its record's bytes; a format with
# thousands of fields over the same bytes is refused beyond it.
MAX_WIDENING = 8


class Diagnostic(NamedTuple):
    """One row of :data:`tracer.schema.DIAGNOSTIC_COLUMNS`."""

    code: str
    severity: str  # note, warning or loss
    offset: int | None
    bytes: int | None
    message: str


def diagnostics_frame(rows: Iterable[Diagnostic]) -> pl.DataFrame:
    """:return: the rows as a :data:`tracer.schema.DIAGNOSTIC_COLUMNS` frame."""
    fitting = [
        row._replace(offset=_clip(row.offset), bytes=_clip(row.bytes)) for row in rows
    ]  # sums of numbers from a damaged file may not fit
    return pl.DataFrame(
        fitting, schema=schema.polars_schema(schema.DIAGNOSTIC_COLUMNS), orient="row"
    )


def _clip(value: int | None) -> int | None:
    return None if value is None else min(max(value, 0), MAX_U64)


class CommTable:
    """Task names over time: (tid, seq) to comm, vectorised.

    :param tid: int[m], thread ids
    :param seq: uint64[m], place in the capture from which the name holds
    :param comm: m names; None says that the name is unknown from there
    """

    def __init__(self, tid: Any, seq: Any, comm: Sequence[str | None]) -> None:
        tids = np.asarray(tid, np.int32)
        since = np.asarray(seq, np.uint64)
        order = np.lexsort((since, tids))  # stable: the later of two at one seq wins
        distinct, first = np.unique(tids[order], return_index=True)
        names = list(dict.fromkeys(c for c in comm if c is not None))
        code = {c: i for i, c in enumerate(names)}
        unknown = len(names)
        self.names = pl.Series("comm", [*names, None], dtype=pl.String)
        self._unknown = np.uint32(unknown)
        self._since = since[order]
        codes = [unknown if c is None else code[c] for c in comm]
        self._name = np.array(codes, np.uint32)[order]
        self._first = np.append(first, tids.size).astype(np.int64)
        slots = 1 << max(4, int(2 * distinct.size).bit_length())
        self._keys = np.zeros(slots, np.int32)
        self._values = np.full(slots, -1, np.int32)
        kernels.tid_table(distinct, self._keys, self._values)

    @classmethod
    def from_static(cls, comm: Mapping[int, str]) -> CommTable:
        """One name per thread for the whole capture, as in saved_cmdlines."""
        return cls(list(comm), np.zeros(len(comm), np.uint64), list(comm.values()))

    @classmethod
    def from_records(
        cls,
        comms: Iterable[tuple[int, int, str]],
        forks: Iterable[tuple[int, int, int]] = (),
    ) -> CommTable:
        """Follow COMM and FORK records; a child starts with its parent's name.

        A thread id that is used again does not keep the old name: a fork from a
        parent of unknown name makes the child's unknown too. Thread 0 is
        ``swapper`` unless a record says otherwise.

        See thread__fork() in tools/perf/util/thread.c.

        :param comms: (seq, tid, comm)
        :param forks: (seq, child tid, parent tid)
        """
        steps: list[tuple[int, int, int, str | None]] = [(0, 0, -1, "swapper")]
        steps += [(seq, tid, -1, comm) for seq, tid, comm in comms]
        steps += [(seq, tid, parent, None) for seq, tid, parent in forks]
        steps[1:] = sorted(steps[1:], key=lambda step: step[0])
        now: dict[int, str | None] = {}
        tids, seqs, names = [], [], []
        for seq, tid, parent, comm in steps:
            name = comm if parent < 0 else now.get(parent)
            now[tid] = name
            tids.append(tid)
            seqs.append(seq)
            names.append(name)
        return cls(tids, seqs, names)

    def codes(self, tid: I32, seq: U64) -> U32:
        """Look names up.

        :param tid: int32[n]
        :param seq: uint64[n]
        :return: uint32[n], positions in :attr:`names`, whose last entry is null
        """
        out = np.empty(tid.size, np.uint32)
        kernels.comm_asof(
            np.ascontiguousarray(tid, np.int32),
            np.ascontiguousarray(seq, np.uint64),
            self._keys,
            self._values,
            self._first,
            self._since,
            self._name,
            self._unknown,
            out,
        )
        return out

    def lookup(self, tid: I32, seq: U64) -> pl.Series:
        """:return: String[n], the names; null where unknown."""
        return self.names.gather(pl.Series(self.codes(tid, seq)))


@dataclass(frozen=True)
class Rows:
    """The records of a capture in seq order, as arrays of one length.

    :ivar buf: uint8[bytes], what the offsets point into, read-only
    :ivar off: int64, where each payload (``common_type``) starts
    :ivar len: int64, its bytes, padding included
    :ivar pid: int32, or None where the container does not record it
    """

    buf: NDArray[np.uint8]
    off: I64
    len: I64
    ts: U64
    cpu: U32
    pid: I32 | None
    tid: I32
    seq: U64
    big_endian: bool


def build_frames(
    buf: Any,
    rec_off: Any,
    rec_len: Any,
    event_id: Any,
    ts: Any,
    cpu: Any,
    pid: Any,
    tid: Any,
    comms: CommTable | None,
    formats: Mapping[int, EventFormat],
    big_endian: bool,
    seq: Any,
    extra: ExtraColumns | None = None,
    order: Any = None,
) -> tuple[dict[str, pl.DataFrame], list[Diagnostic]]:
    """Decode records into one frame per event.

    The rows must be in seq order, or ``order`` must say what it is. Columns are
    :data:`tracer.schema.EVENT_COLUMNS`, the event's own fields, then its
    ``common_*`` fields other than type and pid, then what ``extra`` gives. A field
    whose name is taken gets a trailing underscore (``pid_``). A value that does not
    lie in its record is null.

    Of two events with one name, the second has its id behind it. Records without a
    format go to ``unknown:<id>`` with their bytes in ``raw``.

    :param buf: uint8[bytes]
    :param rec_off: int64[n], where each payload starts in ``buf``
    :param rec_len: int64[n], bytes of payload
    :param event_id: int[n], the id in ``formats``; negative rows are left out
    :param ts: uint64[n], ns
    :param cpu: uint32[n]
    :param pid: int32[n], or None when the container has none
    :param tid: int32[n]
    :param comms: task names, or None when the container has none
    :param formats: event formats by id
    :param big_endian: byte order of the payloads
    :param seq: uint64[n], ascending (in ``order``)
    :param extra: gives more columns for the rows of one event
    :param order: int64[n], row numbers in seq order; None when the rows are in it
    :return: frames by ``system:name`` in order of id, and diagnostics
    :raises ValueError: when a record does not lie in ``buf``
    """
    rows = Rows(
        kernels.as_bytes(buf),
        np.ascontiguousarray(rec_off, np.int64),
        np.ascontiguousarray(rec_len, np.int64),
        np.ascontiguousarray(ts, np.uint64),
        np.ascontiguousarray(cpu, np.uint32),
        None if pid is None else np.ascontiguousarray(pid, np.int32),
        np.ascontiguousarray(tid, np.int32),
        np.ascontiguousarray(seq, np.uint64),
        big_endian,
    )
    if not kernels.check_rows(rows.off, rows.len, rows.buf.size):
        raise ValueError("a record lies outside the buffer")
    codes = np.zeros(rows.off.size, np.uint32) if comms is None else comms.codes(rows.tid, rows.seq)
    names = pl.Series("comm", [None], dtype=pl.String) if comms is None else comms.names
    frames: dict[str, pl.DataFrame] = {}
    diagnostics: list[Diagnostic] = []
    order = np.empty(0, np.int64) if order is None else np.ascontiguousarray(order, np.int64)
    for ident, picked in _by_event(np.asarray(event_id), order):
        fmt = formats.get(ident)
        frame = _header_frame(rows, picked, codes, names)
        if fmt is None:
            key = f"unknown:{ident}"
            columns = [_bytes_column("raw", rows, picked, kernels.PLACE_REST, 0, 0)[0]]
            diagnostics.append(
                Diagnostic(
                    "no-format",
                    "warning",
                    int(rows.off[picked[0]]),
                    int(kernels.length_range(rows.len, picked)[2]),
                    f"{picked.size} records of event id {ident} have no event format; "
                    f"their bytes are kept in {key}.",
                )
            )
        else:
            key = fmt.key
            columns = payload_columns(rows, picked, fmt, diagnostics)
        if extra is not None:
            columns += extra(ident, picked)
        frame = frame.hstack(_unique_names(frame.columns, columns))
        if key in frames:  # one name, two events
            key = f"{key}.{ident}"
        frames[key] = frame
    return frames, diagnostics


def _by_event(event_id: NDArray[Any], order: I64) -> Iterable[tuple[int, U32]]:
    """:return: (id, uint32 row numbers in order) of each id that occurs, ascending."""
    if not event_id.size:
        return
    ids: list[int] | None = None
    if int(event_id.max()) < MAX_DENSE_ID:
        slot = np.ascontiguousarray(event_id, np.int32)
        groups = max(int(event_id.max()) + 1, 0)
    else:
        distinct, inverse = np.unique(event_id, return_inverse=True)
        slot = np.where(event_id < 0, -1, inverse).astype(np.int32)
        ids = [int(i) for i in distinct]
        groups = len(ids)
    counts = np.zeros(groups, np.int64)
    kernels.count_slots(slot, counts)
    start = np.cumsum(counts) - counts
    rows = np.empty(int(counts.sum()), np.uint32)
    kernels.group_rows(order, slot, start.copy(), rows)
    for g in np.flatnonzero(counts):
        yield (ids[g] if ids else int(g)), rows[start[g] : start[g] + counts[g]]


def _header_frame(rows: Rows, picked: U32, codes: U32, names: pl.Series) -> pl.DataFrame:
    """:return: the :data:`tracer.schema.EVENT_COLUMNS` of the picked rows."""
    n = picked.size
    wide = np.empty((2, n), np.uint64)
    narrow = np.empty((4, n), np.uint32)
    pid = np.empty(0, np.int32) if rows.pid is None else rows.pid
    kernels.gather_header(picked, rows.seq, rows.ts, rows.cpu, pid, rows.tid, codes, wide, narrow)
    return pl.DataFrame(
        {
            "seq": wide[0],
            "ts": wide[1],
            "cpu": known_cpu(narrow[0]),
            "pid": pl.repeat(None, n, dtype=pl.Int32, eager=True)
            if rows.pid is None
            else narrow[3].view(np.int32),
            "tid": narrow[1].view(np.int32),
            "comm": names.gather(pl.Series(narrow[2])),
        }
    )


def known_cpu(cpu: U32) -> pl.Series:
    """:return: UInt32 column; 0xffffffff, which stands for no CPU, becomes null."""
    column = pl.Series("cpu", cpu)
    if not cpu.size or cpu.max() != NO_CPU:
        return column
    return column.set(column == NO_CPU, None)


def payload_columns(
    rows: Rows, picked: U32, fmt: EventFormat, diagnostics: list[Diagnostic]
) -> list[pl.Series]:
    """Decode the fields of one event: its own, then the remaining common ones.

    :param picked: uint32[n > 0], row numbers
    :return: one column per field
    """
    own = [f for f in fmt.fields if not f.name.startswith("common_")]
    own += [
        f for f in fmt.fields if f.name.startswith("common_") and f.name not in _COMMON_IDENTITY
    ]
    shortest, longest, _ = kernels.length_range(rows.len, picked)
    fields, refused = _affordable(own, int(longest))
    if refused:
        diagnostics.append(
            Diagnostic(
                "format-too-wide",
                "warning",
                None,
                None,
                f"Event {fmt.key} declares far more field bytes than its records have; "
                f"{refused} fields are left out.",
            )
        )
    integers = _integer_columns(rows, picked, [f for f in fields if f.is_integer])
    columns: list[pl.Series] = []
    short = 0
    for field in fields:
        if field.is_integer:
            column = pl.Series(field.name, integers[field])
            bad = 0
            if field.offset + field.size > shortest:
                column, bad = _null_short(column, rows, picked, field.offset + field.size)
        else:
            column, bad = _array_column(rows, picked, fmt, field)
        short = max(short, bad)
        columns.append(column)
    if short:
        diagnostics.append(
            Diagnostic(
                "short-record",
                "warning",
                int(rows.off[picked[0]]),
                None,
                f"{short} records of {fmt.key} are too short for their fields, "
                "which are null there.",
            )
        )
    return columns


def _affordable(fields: list[Field], longest: int) -> tuple[list[Field], int]:
    """Leave out fields that would make the frame many times the records' size.

    :param longest: bytes of the longest record
    :return: the fields kept, and how many were refused
    """
    budget = MAX_WIDENING * longest + 256
    kept = []
    for field in fields:
        budget -= field.size if field.is_integer else max(field.size, 16)
        if budget < 0:
            break
        kept.append(field)
    return kept, len(fields) - len(kept)


def _integer_columns(rows: Rows, picked: U32, fields: list[Field]) -> dict[Field, NDArray[Any]]:
    """:return: one array of the field's own width and sign for each field."""
    n = picked.size
    column = np.empty(len(fields), np.int64)
    used: Counter[int] = Counter()
    for i, field in enumerate(fields):
        column[i] = used[field.size]
        used[field.size] += 1
    out = {width: np.empty((used[width], n), _UNSIGNED[width]) for width in (1, 2, 4, 8)}
    kernels.gather_integers(
        rows.buf,
        rows.off,
        rows.len,
        picked,
        np.array([f.offset for f in fields], np.int64),
        np.array([f.size for f in fields], np.int64),
        column,
        rows.big_endian,
        out[1],
        out[2],
        out[4],
        out[8],
    )
    return {
        f: out[f.size][column[i]].view(_SIGNED[f.size] if f.signed else _UNSIGNED[f.size])
        for i, f in enumerate(fields)
    }


def _null_short(column: pl.Series, rows: Rows, picked: U32, need: int) -> tuple[pl.Series, int]:
    """:return: the column with null where the record has fewer than ``need`` bytes; how many."""
    bad = rows.len[picked] < need
    keep = pl.Series(~bad)
    nulls = pl.Series(column.name, [None], dtype=column.dtype)
    return column.zip_with(keep, nulls.new_from_index(0, column.len())), int(bad.sum())


def _array_column(rows: Rows, picked: U32, fmt: EventFormat, field: Field) -> tuple[pl.Series, int]:
    """:return: a String, Binary or List column, and how many values are missing."""
    if fmt.key == "ftrace:kernel_stack" and field.name == "caller":
        return _stack_column(rows, picked, fmt, field)
    text = field.is_string and not re.search(r"\b(un)?signed\s+char\b", field.decl)
    if field.loc:
        place = kernels.PLACE_DATA_LOC if field.loc == "data_loc" else kernels.PLACE_REL_LOC
        if field.size != 4:
            return _missing(field.name, picked.size, text)
        return _bytes_column(field.name, rows, picked, place, field.offset, 4, text)
    if field.size == 0:
        return _bytes_column(field.name, rows, picked, kernels.PLACE_REST, field.offset, 0, text)
    declared = _LENGTH.search(field.decl)
    count = int(declared[1]) if declared else 0
    if not text and count and field.size % count == 0 and field.size // count in (2, 4, 8):
        return _list_column(rows, picked, field, count)
    return _bytes_column(
        field.name, rows, picked, kernels.PLACE_FIXED, field.offset, field.size, text
    )


def _missing(name: str, n: int, text: bool) -> tuple[pl.Series, int]:
    """:return: an all-null column."""
    dtype = pl.String() if text else pl.Binary()
    return pl.Series(name, [None], dtype=dtype).new_from_index(0, n), n


def _bytes_column(
    name: str, rows: Rows, picked: U32, place: int, offset: int, size: int, text: bool = False
) -> tuple[pl.Series, int]:
    """Decode a string or opaque field once per distinct value.

    :param text: cut at the first NUL and decode as UTF-8 with replacement
    :return: String or Binary column, and how many values are not in their record
    """
    n = picked.size
    start = np.empty(n, np.int64)
    length = np.empty(n, np.int64)
    bad = kernels.locate_bytes(
        rows.buf,
        rows.off,
        rows.len,
        picked,
        place,
        offset,
        size,
        text,
        rows.big_endian,
        start,
        length,
    )
    return slices_series(name, rows.buf, start, length, text), int(bad)


def slices_series(
    name: str, buf: NDArray[np.uint8], start: I64, length: I64, text: bool = False
) -> pl.Series:
    """Cut byte strings out of a buffer, decoding each distinct one once.

    :param start: int64[n], bytes that the caller has checked to lie in ``buf``
    :param length: int64[n], their number, -1 for none
    :return: String (UTF-8 with replacement) or Binary column
    """
    code, rows = distinct_slices(buf, start, length)
    values: list[str | bytes | None] = []
    # Many fields may point at the same bytes: no more text than there are bytes.
    room = MAX_WIDENING * buf.size + 4096
    for row in rows.tolist():
        room -= int(length[row])
        value = buf[start[row] : start[row] + length[row]].tobytes() if room >= 0 else None
        values.append(value.decode("utf-8", "replace") if text and value is not None else value)
    dtype = pl.String() if text else pl.Binary()
    return pl.Series(name, [*values, None], dtype=dtype).gather(pl.Series(code))


def distinct_slices(buf: NDArray[np.uint8], start: I64, length: I64) -> tuple[U32, I64]:
    """Number distinct byte strings; see :func:`tracer.kernels.intern_slices`.

    :return: uint32[n] number of each row's string, and a row that holds each string
    """
    code = np.empty(start.size, np.uint32)
    room = 512
    while True:
        table = np.full(2 * room, -1, np.int32)
        reps = np.zeros(room, np.int64)
        hashes = np.empty(room, np.uint64)
        found = kernels.intern_slices(buf, start, length, code, table, reps, hashes)
        if found >= 0:
            return code, reps[:found]
        room *= 16  # start again: cheaper than tables that fit every capture


def _list_column(rows: Rows, picked: U32, field: Field, count: int) -> tuple[pl.Series, int]:
    """:return: a List column of a fixed array of ``count`` integers."""
    width = field.size // count
    parts = [
        Field(str(i), "", field.offset + i * width, width, field.signed, False, "")
        for i in range(count)
    ]
    arrays = _integer_columns(rows, picked, parts)
    flat = np.stack([arrays[p] for p in parts], axis=1).reshape(-1)
    offsets = np.arange(0, flat.size + 1, count, dtype=np.int64)
    return _null_short(
        list_series(field.name, flat, offsets), rows, picked, field.offset + field.size
    )


def _stack_column(rows: Rows, picked: U32, fmt: EventFormat, field: Field) -> tuple[pl.Series, int]:
    """Decode ``caller`` of ftrace:kernel_stack, whose real length is in ``size``.

    The format file declares 8 entries whatever the stack's depth; see
    FTRACE_STACK_ENTRIES in kernel/trace/trace_entries.h.

    :return: List(UInt64) column, 32-bit addresses widened
    """
    width = 4 if field.size == 32 else 8
    size = fmt.field("size")
    room = np.maximum(rows.len[picked] - field.offset, 0) // width
    count = room
    if size is not None and size.is_integer:
        count = np.minimum(_integer_columns(rows, picked, [size])[size].astype(np.int64), room)
        count = np.maximum(count, 0)
    flat, offsets = gather_words(
        rows.buf, rows.off[picked] + field.offset, count, width, rows.big_endian
    )
    return list_series(field.name, flat, offsets), 0


def gather_words(
    buf: NDArray[np.uint8], start: I64, count: I64, width: int, big_endian: bool
) -> tuple[U64, I64]:
    """Gather runs of words that the caller has checked to lie in ``buf``.

    :param start: int64[n], byte offset of each run
    :param count: int64[n], words in each run
    :param width: 4 or 8
    :return: uint64[sum of counts] and its int64[n + 1] row offsets
    """
    offsets = np.zeros(count.size + 1, np.int64)
    np.cumsum(count, out=offsets[1:])
    flat = np.empty(int(offsets[-1]), np.uint64)
    kernels.gather_runs(buf, np.ascontiguousarray(start), offsets, width, big_endian, flat)
    return flat, offsets


def _unique_names(taken: Sequence[str], columns: Sequence[pl.Series]) -> list[pl.Series]:
    """:return: the columns, those with a name already taken renamed with underscores."""
    used = set(taken)
    out = []
    for column in columns:
        name = column.name
        while name in used:
            name += "_"
        used.add(name)
        out.append(column if name == column.name else column.alias(name))
    return out


def list_series(name: str, flat: NDArray[Any], offsets: I64) -> pl.Series:
    """Cut an array into a List column.

    :param flat: values of all rows, one after the other
    :param offsets: int64[n + 1], where each row starts
    """
    every = pl.Series(flat).implode()
    ranges = pl.DataFrame({"at": offsets[:-1], "count": np.diff(offsets)})
    return ranges.select(pl.lit(every).list.slice("at", "count").alias(name)).to_series()
