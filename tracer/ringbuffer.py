# SPDX-License-Identifier: GPL-2.0-or-later
"""Ring-buffer pages to records: where each event's payload lies, its time and CPU.

A page (sub-buffer) is a u64 time stamp, a commit word of the kernel's long
size, and records; each page stands alone. Layout: struct buffer_data_page and
the comment above enum ring_buffer_type in include/linux/ring_buffer.h. At
a damaged byte the records before it are kept and the rest of the page is
dropped; :mod:`tracer.tracedat.records` says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracer.errors import CaptureError
from tracer.jit import kernel
from tracer.kernels import load16, load32, load64

# Commit word, kernel/trace/ring_buffer.c RB_MISSED_*: sign-extended when written,
# so only the low half is looked at. libtraceevent takes 27 bits as the length.
COMMIT_LENGTH: Final = np.uint64((1 << 27) - 1)
MISSED_EVENTS: Final = np.uint64(1 << 31)
MISSED_STORED: Final = np.uint64(1 << 30)
# Five high bits that an absolute time stamp has no room for, TS_MSB.
STAMP_HIGH: Final = np.uint64(0xF8 << 56)
STAMP_CARRY: Final = np.uint64(1 << 59)

# Record kinds by type_len, enum ring_buffer_type; 1 to 28 are data of 4 * type_len bytes.
LONG_DATA: Final = np.uint64(0)
PADDING: Final = np.uint64(29)
TIME_EXTEND: Final = np.uint64(30)
TIME_STAMP: Final = np.uint64(31)
TYPE_MASK: Final = np.uint64(31)
DELTA_MASK: Final = np.uint64((1 << 27) - 1)

U0: Final = np.uint64(0)
U3: Final = np.uint64(3)
U4: Final = np.uint64(4)
U5: Final = np.uint64(5)
U8: Final = np.uint64(8)
U27: Final = np.uint64(27)
NONE_KNOWN: Final = np.uint64((1 << 64) - 1)  # events were missed, nobody counted them
MAX_MISSED: Final = np.uint64(1 << 48)  # a larger stored count is damage

# States of a page after the walk.
OK, EMPTY, NO_HEADER, BAD_COMMIT, CUT, BAD_RECORD, LONE_COUNT, PADDED, TRAILING = range(9)

_HEADER_FIELD = re.compile(
    r"field:[^;\n]*?(\w+)(?:\[\d*\])?;\s*offset:(\d{1,9});\s*size:(\d{1,9});"
)


@dataclass(frozen=True)
class PageLayout:
    """Parts of a page, bytes.

    :ivar size: of a whole page as events/header_page has it
    :ivar commit_size: of the commit word: the kernel's long, 4 or 8
    :ivar data_at: where the records start
    """

    size: int = 4096
    commit_size: int = 8
    data_at: int = 16


@dataclass(frozen=True)
class Stream:
    """The pages of one CPU in one buffer, back to back.

    :ivar start: offset of the first page
    :ivar size: bytes, the last page may be cut
    :ivar page_size: bytes of one page
    :ivar instance: number of the buffer the events were recorded in
    """

    cpu: int
    start: int
    size: int
    page_size: int
    instance: int = 0


@dataclass(frozen=True)
class Records:
    """Events in (time, file position) order, as arrays of one length n.

    :ivar off: int64, where the payload (``common_type``) starts
    :ivar len: int64, bytes of the payload, alignment included
    :ivar id: int32, ``common_type``
    :ivar ts: uint64, ns after clock correction
    :ivar tid: int32, ``common_pid``
    :ivar cpu: uint32
    :ivar instance: uint32, :attr:`Stream.instance`
    """

    off: NDArray[np.int64]
    len: NDArray[np.int64]
    id: NDArray[np.int32]
    ts: NDArray[np.uint64]
    tid: NDArray[np.int32]
    cpu: NDArray[np.uint32]
    instance: NDArray[np.uint32]


def page_layout(header_page: str, long_size: int = 8, page_size: int = 4096) -> PageLayout:
    """Read events/header_page, which has the kernel's long size and the page size.

    :param header_page: its text; when empty the two other arguments decide
    :raises CaptureError: when it describes no page the kernel writes
    """
    found = {m[1]: (int(m[2]), int(m[3])) for m in _HEADER_FIELD.finditer(header_page)}
    if not header_page.strip():
        return PageLayout(page_size, long_size, 8 + long_size)
    try:
        (ts_at, ts_size), (commit_at, commit_size) = found["timestamp"], found["commit"]
        data_at, data_size = found["data"]
    except KeyError as err:
        raise CaptureError(f"events/header_page has no field {err}.") from None
    if (ts_at, ts_size, commit_at) != (0, 8, 8) or commit_size not in (4, 8):
        raise CaptureError("events/header_page puts the time stamp or commit word elsewhere.")
    if not 8 + commit_size <= data_at <= 64:
        raise CaptureError(f"events/header_page lets the data start at {data_at}.")
    return PageLayout(data_at + data_size, commit_size, data_at)


def check_page_size(size: int) -> int:
    """:return: the size.

    :raises CaptureError: when no kernel has sub-buffers of that size
    """
    if size < 256 or size > 1 << 26 or size & (size - 1):
        raise CaptureError(f"A ring-buffer page of {size} bytes cannot be.")
    return size


@kernel
def walk_pages(
    buf: Any,
    start: Any,
    size: Any,
    page_size: Any,
    data_at: Any,
    commit_size: Any,
    shortest: Any,
    big: Any,
    base: Any,
    heads: Any,
    ts: Any,
    pages: Any,
    stamps: Any,
    missed: Any,
) -> None:
    """Walk the pages of one stream, counting its records or noting them down.

    Follows libtraceevent's kbuffer in that a discarded record moves the clock
    (the kernel's own reader does not), and the kernel's rb_fix_abs_ts() in the
    high bits of absolute time stamps.

    :param buf: uint8[bytes], read-only, with ``start + size`` bytes or more
    :param shortest: bytes of payload that hold the common fields
    :param base: int64[pages], first row of each page in ``heads``; int64[0] to count only
    :param heads: int64[n], written: offset of each record's header
    :param ts: uint64[n], written: its time
    :param pages: int64[pages, 3], written: records, state, offset where it was damaged
    :param stamps: uint64[pages], written: the page's own time
    :param missed: uint64[pages], written: events lost before the page, or NONE_KNOWN
    """
    fill = base.shape[0] > 0
    longest = np.int64(0)
    unused = 0  # bytes of padding at the end of page padded
    padded = -1
    for p in range(pages.shape[0]):
        # A page is padded when the next record does not fit: that one, or a longer one
        # that an interrupt overtook, is in what was read by now. See rb_reset_tail().
        if padded >= 0 and p > padded + 1:
            if unused > longest + 16:
                pages[padded, 1] = PADDED
            padded = -1
        page = start + p * page_size
        have = min(page_size, start + size - page)
        pages[p, 0] = 0
        pages[p, 1] = OK
        pages[p, 2] = page
        stamps[p] = U0
        missed[p] = U0
        if have < data_at:
            pages[p, 1] = NO_HEADER
            continue
        now = load64(buf, np.uint64(page), big)
        if commit_size == 8:
            commit = load64(buf, np.uint64(page + 8), big)
        else:
            commit = load32(buf, np.uint64(page + 8), big)
        stamps[p] = now
        at = page + data_at
        end = at + np.int64(commit & COMMIT_LENGTH)
        if now == U0 and commit == U0:
            pages[p, 1] = EMPTY
            continue
        if end > page + page_size:
            pages[p, 1] = BAD_COMMIT
            continue
        if commit & MISSED_EVENTS != U0:
            missed[p] = NONE_KNOWN
            if commit & MISSED_STORED != U0 and end + commit_size <= page + have:
                if commit_size == 8:
                    count = load64(buf, np.uint64(end), big)
                else:
                    count = load32(buf, np.uint64(end), big)
                if count == U0 or count > MAX_MISSED:
                    pages[p, 1] = LONE_COUNT
                    pages[p, 2] = end
                else:
                    missed[p] = count
        # The kernel clears what is behind, see ring_buffer_read_page().
        behind = end + commit_size if commit & MISSED_STORED != U0 else end
        if behind + 4 <= page + have and load32(buf, np.uint64(behind), big) != U0:
            pages[p, 1] = TRAILING
            pages[p, 2] = behind
        if end > page + have:
            pages[p, 1] = CUT
            end = page + have
        found = 0
        while at < end:
            damaged = at + 4 > end
            if not damaged:
                word = load32(buf, np.uint64(at), big)
                if big:
                    kind = word >> U27
                    delta = word & DELTA_MASK
                else:
                    kind = word & TYPE_MASK
                    delta = word >> U5
                if kind == PADDING and delta == U0:
                    if padded >= 0 and unused > longest + 16:
                        pages[padded, 1] = PADDED
                    padded = p if pages[p, 1] == OK else -1
                    unused = end - at
                    pages[p, 2] = at
                    break
                length = 4 + 4 * np.int64(kind)
                payload = length - 4
                if kind == LONG_DATA or kind >= PADDING:
                    damaged = at + 8 > end
                    if not damaged:
                        value = load32(buf, np.uint64(at + 4), big)
                        if kind == TIME_EXTEND:
                            now += (value << U27) + delta
                            at += 8
                            continue
                        if kind == TIME_STAMP:
                            high = now & STAMP_HIGH
                            stamp = (value << U27) + delta | high
                            if high != U0 and stamp < now:
                                stamp += STAMP_CARRY
                            now = stamp
                            at += 8
                            continue
                        if kind == PADDING:
                            length = 4 + np.int64(value)
                            payload = shortest
                        else:
                            length = 4 + np.int64((value + U3) & ~U3)
                            payload = np.int64(value) - 4
                        damaged = value < U4
            if damaged or payload < shortest or at + length > end:
                # The last record of a page that was cut is not damage of its own.
                if pages[p, 1] != CUT:
                    pages[p, 1] = BAD_RECORD
                pages[p, 2] = at
                break
            now += delta
            if length > longest:
                longest = length
            if kind != PADDING:
                if fill:
                    heads[base[p] + found] = at
                    ts[base[p] + found] = now
                found += 1
            at += length
        pages[p, 0] = found


@kernel
def is_sorted(ts: Any) -> Any:
    """:return: whether ``ts`` (uint64[n]) never goes back."""
    i = 1
    while i < ts.shape[0] and ts[i] >= ts[i - 1]:
        i += 1
    return i >= ts.shape[0]


@kernel
def merge_order(bounds: Any, ts: Any, heap: Any, pos: Any, order: Any) -> None:
    """Merge sorted streams; of equal times the earlier stream comes first.

    A heap of streams, keyed by their next time. The stream at the top is
    followed as long as it stays below the two streams under it.

    :param bounds: int64[streams + 1], rows of each stream in ``ts``
    :param ts: uint64[n], sorted within each stream
    :param heap: int64[streams], scratch
    :param pos: int64[streams], scratch
    :param order: uint32[n], written: row numbers in merged order
    """
    alive = 0
    for s in range(pos.shape[0]):
        pos[s] = bounds[s]
        if bounds[s] < bounds[s + 1]:
            i = alive
            alive += 1
            while i > 0 and ts[pos[s]] < ts[pos[heap[(i - 1) // 2]]]:
                heap[i] = heap[(i - 1) // 2]
                i = (i - 1) // 2
            heap[i] = s
    done = 0
    while alive > 0:
        top = heap[0]
        end = bounds[top + 1]
        at = pos[top]
        if alive == 1:
            while at < end:
                order[done] = at
                done += 1
                at += 1
            break
        other = heap[1]
        if alive > 2 and (
            ts[pos[heap[2]]] < ts[pos[other]]
            or (ts[pos[heap[2]]] == ts[pos[other]] and heap[2] < other)
        ):
            other = heap[2]
        limit = ts[pos[other]]
        while at < end and (ts[at] < limit or (ts[at] == limit and top < other)):
            order[done] = at
            done += 1
            at += 1
        pos[top] = at
        if at == end:
            alive -= 1
            top = heap[alive]
        # Sift the stream down from the root.
        i = 0
        while True:
            child = 2 * i + 1
            if child >= alive:
                break
            if child + 1 < alive and (
                ts[pos[heap[child + 1]]] < ts[pos[heap[child]]]
                or (
                    ts[pos[heap[child + 1]]] == ts[pos[heap[child]]]
                    and heap[child + 1] < heap[child]
                )
            ):
                child += 1
            below = heap[child]
            if ts[pos[top]] < ts[pos[below]] or (ts[pos[top]] == ts[pos[below]] and top < below):
                break
            heap[i] = below
            i = child
        heap[i] = top


@kernel
def gather_records(
    buf: Any,
    big: Any,
    tid_at: Any,
    order: Any,
    bounds: Any,
    cpus: Any,
    instances: Any,
    heads: Any,
    ts: Any,
    out_off: Any,
    out_len: Any,
    out_id: Any,
    out_ts: Any,
    out_tid: Any,
    out_cpu: Any,
    out_instance: Any,
) -> None:
    """Decode the record headers in merged order.

    :param tid_at: offset of ``common_pid`` in the payload
    :param order: uint32[n], row numbers in ``heads`` and ``ts``
    :param bounds: int64[streams + 1], rows of each stream
    :param cpus: uint32[streams]; instances alike
    :param out_off: see :class:`Records` for the outputs
    """
    s = 0
    for i in range(order.shape[0]):
        row = np.int64(order[i])
        if row < bounds[s] or row >= bounds[s + 1]:
            low = 0
            high = cpus.shape[0] - 1
            while low < high:
                middle = (low + high + 1) // 2
                if bounds[middle] <= row:
                    low = middle
                else:
                    high = middle - 1
            s = low
        at = heads[row]
        word = load32(buf, np.uint64(at), big)
        kind = word >> U27 if big else word & TYPE_MASK
        off = at + 4
        length = 4 * np.int64(kind)
        if kind == LONG_DATA:
            off = at + 8
            length = np.int64(load32(buf, np.uint64(at + 4), big)) - 4
        out_off[i] = off
        out_len[i] = length
        out_id[i] = np.int32(load16(buf, np.uint64(off), big))
        out_tid[i] = np.int32(load32(buf, np.uint64(off + tid_at), big))
        out_ts[i] = ts[row]
        out_cpu[i] = cpus[s]
        out_instance[i] = instances[s]
