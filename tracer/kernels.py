# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiled loops of the perf.data walk and of the typed column gathering.

Rules that every kernel here keeps:

- the file is a read-only ``uint8[::1]`` (:func:`as_bytes`), so that there is one
  specialisation per kernel whatever the caller had;
- every load is preceded by a hand-written bounds check, because compiled code
  has none: that a record lies in the file is checked where it is found, that a
  field lies in its record here;
- byte positions that come from the file are uint64 and so are the constants
  they meet: numba promotes uint64 with a literal to int64, which turns kernel
  addresses negative;
- loads are written byte by byte: records lie at any offset, and LLVM joins the
  bytes into one load when the index is unsigned.

All of them run uncompiled under ``NUMBA_DISABLE_JIT=1``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

U0 = np.uint64(0)
U1 = np.uint64(1)
U2 = np.uint64(2)
U3 = np.uint64(3)
U4 = np.uint64(4)
U5 = np.uint64(5)
U6 = np.uint64(6)
U7 = np.uint64(7)
U8 = np.uint64(8)
U16 = np.uint64(16)
U24 = np.uint64(24)
U32 = np.uint64(32)
U40 = np.uint64(40)
U48 = np.uint64(48)
U56 = np.uint64(56)
LOW16 = np.uint64(0xFFFF)
LOW32 = np.uint64(0xFFFFFFFF)
FNV_START = np.uint64(0x811C9DC5)
FNV_PRIME = np.uint64(0x01000193)
GOLDEN = np.uint64(0x9E3779B1)

# Where the bytes of a string or array field are found.
PLACE_FIXED = 0  # offset, size
PLACE_REST = 1  # offset to the end of the record
PLACE_DATA_LOC = 2  # u32 at offset: low half offset from the record, high half length
PLACE_REL_LOC = 3  # the same, counted from the end of the u32

PROBES = 64  # slots looked at before a string counts as new: bounds crafted collisions
BLOCK = 2048  # rows gathered field after field while their records are in the cache


def as_bytes(data: Any) -> NDArray[np.uint8]:
    """:return: read-only uint8[n] over any contiguous buffer, without a copy."""
    array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    out = np.ascontiguousarray(array).reshape(-1).view(np.uint8).view(np.ndarray)
    out.flags.writeable = False
    return out


@njit(cache=True, inline="always")
def load16(buf: Any, at: Any, big: Any) -> Any:
    """:return: the u16 at byte ``at`` as uint64; the caller has checked the bounds."""
    a = np.uint64(buf[at])
    b = np.uint64(buf[at + U1])
    if big:
        return (a << U8) | b
    return a | (b << U8)


@njit(cache=True, inline="always")
def load32(buf: Any, at: Any, big: Any) -> Any:
    """:return: the u32 at byte ``at`` as uint64; the caller has checked the bounds."""
    a = np.uint64(buf[at])
    b = np.uint64(buf[at + U1])
    c = np.uint64(buf[at + U2])
    d = np.uint64(buf[at + U3])
    if big:
        return (a << U24) | (b << U16) | (c << U8) | d
    return a | (b << U8) | (c << U16) | (d << U24)


@njit(cache=True, inline="always")
def load64(buf: Any, at: Any, big: Any) -> Any:
    """:return: the u64 at byte ``at``; the caller has checked the bounds."""
    a = np.uint64(buf[at])
    b = np.uint64(buf[at + U1])
    c = np.uint64(buf[at + U2])
    d = np.uint64(buf[at + U3])
    e = np.uint64(buf[at + U4])
    f = np.uint64(buf[at + U5])
    g = np.uint64(buf[at + U6])
    h = np.uint64(buf[at + U7])
    if big:
        return (
            (a << U56)
            | (b << U48)
            | (c << U40)
            | (d << U32)
            | (e << U24)
            | (f << U16)
            | (g << U8)
            | h
        )
    return (
        a | (b << U8) | (c << U16) | (d << U24) | (e << U32) | (f << U40) | (g << U48) | (h << U56)
    )


# Column gathering


@njit(cache=True)
def group_rows(slot: Any, next_row: Any, rows: Any) -> None:
    """Stable counting sort of row numbers by slot.

    :param slot: int32[n], the group of each row; negative rows are left out
    :param next_row: int64[groups], where each group starts in ``rows``; advanced
    :param rows: uint32[sum of the groups], written
    """
    for i in range(slot.shape[0]):
        s = slot[i]
        if s >= 0:
            rows[next_row[s]] = i
            next_row[s] += 1


@njit(cache=True)
def count_slots(slot: Any, counts: Any) -> None:
    """Add the number of rows of each slot to ``counts`` (int64[groups])."""
    for i in range(slot.shape[0]):
        s = slot[i]
        if s >= 0:
            counts[s] += 1


@njit(cache=True)
def gather_header(
    rows: Any,
    seq: Any,
    ts: Any,
    cpu: Any,
    pid: Any,
    tid: Any,
    comm: Any,
    out64: Any,
    out32: Any,
) -> None:
    """Gather the leading event columns of one event.

    :param rows: uint32[n]
    :param pid: int32[all rows], or int32[0] when the container has none
    :param comm: uint32[all rows] codes
    :param out64: uint64[2, n]: seq, ts
    :param out32: uint32[4, n]: cpu, tid, comm code, pid (left alone without one)
    """
    with_pid = pid.shape[0] > 0
    for i in range(rows.shape[0]):
        r = rows[i]
        out64[0, i] = seq[r]
        out64[1, i] = ts[r]
        out32[0, i] = cpu[r]
        out32[1, i] = np.uint32(tid[r])
        out32[2, i] = comm[r]
        if with_pid:
            out32[3, i] = np.uint32(pid[r])


@njit(cache=True)
def gather_integers(
    buf: Any,
    rec_off: Any,
    rec_len: Any,
    rows: Any,
    offset: Any,
    size: Any,
    column: Any,
    big: Any,
    out8: Any,
    out16: Any,
    out32: Any,
    out64: Any,
) -> None:
    """Gather all integer fields of one event, a block of rows at a time.

    A field that does not lie in its record reads as 0; the caller nulls it.

    :param buf: uint8[bytes], read-only
    :param rec_off: int64[all rows], where each record starts
    :param rec_len: int64[all rows], bytes of each record
    :param rows: uint32[n]
    :param offset: int64[fields], byte offset in the record
    :param size: int64[fields], 1, 2, 4 or 8
    :param column: int64[fields], which column of its width the field goes to
    :param big: records are big-endian
    :param out8: uint8[columns of width 1, n]; out16, out32, out64 alike
    """
    n = rows.shape[0]
    for lo in range(0, n, BLOCK):
        hi = min(lo + BLOCK, n)
        for f in range(offset.shape[0]):
            off = offset[f]
            width = size[f]
            c = column[f]
            for i in range(lo, hi):
                r = rows[i]
                value = U0
                if off + width <= rec_len[r]:
                    at = np.uint64(rec_off[r] + off)
                    if width == 8:
                        value = load64(buf, at, big)
                    elif width == 4:
                        value = load32(buf, at, big)
                    elif width == 2:
                        value = load16(buf, at, big)
                    else:
                        value = np.uint64(buf[at])
                if width == 8:
                    out64[c, i] = value
                elif width == 4:
                    out32[c, i] = np.uint32(value)
                elif width == 2:
                    out16[c, i] = np.uint16(value)
                else:
                    out8[c, i] = np.uint8(value)


@njit(cache=True)
def locate_bytes(
    buf: Any,
    rec_off: Any,
    rec_len: Any,
    rows: Any,
    place: Any,
    offset: Any,
    size: Any,
    cut: Any,
    big: Any,
    start: Any,
    length: Any,
) -> int:
    """Find the bytes of a string or array field in every record.

    :param rows: uint32[n]
    :param place: one of the ``PLACE_*`` codes
    :param offset: byte offset of the field in the record
    :param size: bytes of the field
    :param cut: end the value at its first NUL
    :param start: int64[n], written: file offset of the value
    :param length: int64[n], written: bytes of the value, -1 when it is not in the record
    :return: number of values that are not in their record
    """
    bad = 0
    for i in range(rows.shape[0]):
        r = rows[i]
        base = rec_off[r]
        have = rec_len[r]
        at = offset
        count = size
        good = offset + size <= have
        if place == PLACE_REST:
            good = offset <= have
            count = have - offset
        elif place != PLACE_FIXED and good:
            word = load32(buf, np.uint64(base + offset), big)
            at = np.int64(word & LOW16)
            count = np.int64(word >> U16)
            if place == PLACE_REL_LOC:
                at += offset + 4
            good = at + count <= have
        if not good:
            bad += 1
            start[i] = 0
            length[i] = -1
            continue
        begin = np.uint64(base + at)
        if cut:
            k = 0
            while k < count and buf[begin + np.uint64(k)] != 0:
                k += 1
            count = k
        start[i] = base + at
        length[i] = count
    return bad


@njit(cache=True)
def intern_slot(table: Any, h: Any, number: Any) -> None:
    """Enter string ``number`` of hash ``h``; left out where too many collide."""
    mask = table.shape[0] - 1
    where = np.int64(h) & mask
    for _ in range(PROBES):
        if table[where] < 0:
            table[where] = number
            return
        where = (where + 1) & mask


@njit(cache=True)
def intern_slices(buf: Any, start: Any, length: Any, code: Any) -> Any:
    """Number the distinct byte strings in order of first appearance.

    A string may get a second number where many hashes collide.

    :param start: int64[n], file offsets that the caller has checked
    :param length: int64[n], bytes, or -1 for none
    :param code: uint32[n], written: number of the string; rows with none get the
        number of distinct strings
    :return: int64[distinct], a row that holds each string
    """
    n = start.shape[0]
    size = 1024
    table = np.full(size, -1, np.int64)
    reps = np.empty(512, np.int64)
    hashes = np.empty(512, np.uint64)
    found = 0
    last = -1
    for i in range(n):
        count = length[i]
        if count < 0:
            continue
        begin = np.uint64(start[i])
        # Runs of the same value are the common case: compare before hashing.
        if last >= 0 and length[reps[last]] == count:
            other = np.uint64(start[reps[last]])
            k = 0
            while k < count and buf[begin + np.uint64(k)] == buf[other + np.uint64(k)]:
                k += 1
            if k == count:
                code[i] = last
                continue
        h = FNV_START
        for k in range(count):
            h = ((h ^ np.uint64(buf[begin + np.uint64(k)])) * FNV_PRIME) & LOW32
        where = np.int64(h) & (size - 1)
        last = -1
        probes = 0
        while table[where] >= 0 and probes < PROBES:
            c = table[where]
            if hashes[c] == h and length[reps[c]] == count:
                other = np.uint64(start[reps[c]])
                k = 0
                while k < count and buf[begin + np.uint64(k)] == buf[other + np.uint64(k)]:
                    k += 1
                if k == count:
                    last = c
                    break
            where = (where + 1) & (size - 1)
            probes += 1
        if last < 0:
            if found == reps.shape[0]:
                size *= 2
                reps = np.concatenate((reps, np.empty(found, np.int64)))
                hashes = np.concatenate((hashes, np.empty(found, np.uint64)))
                table = np.full(size, -1, np.int64)
                for c in range(found):
                    intern_slot(table, hashes[c], c)
            intern_slot(table, h, found)
            reps[found] = i
            hashes[found] = h
            last = found
            found += 1
        code[i] = last
    for i in range(n):
        if length[i] < 0:
            code[i] = found
    return reps[:found].copy()


@njit(cache=True)
def gather_runs(buf: Any, start: Any, offsets: Any, width: Any, big: Any, flat: Any) -> None:
    """Gather runs of words.

    :param start: int64[n], byte offset of each run; the caller has checked the bounds
    :param offsets: int64[n + 1], where each run goes in ``flat``
    :param width: bytes of a word, 4 or 8
    :param flat: uint64[offsets[n]], written
    """
    for i in range(start.shape[0]):
        at = np.uint64(start[i])
        for k in range(offsets[i], offsets[i + 1]):
            if width == 8:
                flat[k] = load64(buf, at, big)
                at += U8
            else:
                flat[k] = load32(buf, at, big)
                at += U4


# Task names


@njit(cache=True, inline="always")
def tid_hash(tid: Any, mask: Any) -> Any:
    """:return: int64 home slot of a thread id in a table of ``mask + 1`` slots."""
    h = ((np.uint64(tid) & LOW32) * GOLDEN) & LOW32
    return np.int64(h >> U7) & mask


@njit(cache=True)
def tid_table(tids: Any, keys: Any, values: Any) -> None:
    """Fill an open-addressing table.

    :param tids: int32[m], distinct
    :param keys: int32[power of two > m], written where ``values`` is not negative
    :param values: int32[same], all -1; written with positions in ``tids``
    """
    mask = keys.shape[0] - 1
    for i in range(tids.shape[0]):
        where = tid_hash(tids[i], mask)
        while values[where] >= 0:
            where = (where + 1) & mask
        keys[where] = tids[i]
        values[where] = i


@njit(cache=True)
def comm_asof(
    tid: Any,
    seq: Any,
    keys: Any,
    values: Any,
    first: Any,
    since: Any,
    name: Any,
    unknown: Any,
    code: Any,
) -> None:
    """Look up the last name each thread had got at or before a point of the capture.

    :param tid: int32[n]
    :param seq: uint64[n]
    :param keys: the table of :func:`tid_table`; values alike
    :param first: int64[distinct tids + 1], the range of each tid in ``since``
    :param since: uint64[m], seq a name holds from; ascending in each range
    :param name: uint32[m], the name's code
    :param unknown: uint32, code of no name
    :param code: uint32[n], written
    """
    mask = keys.shape[0] - 1
    for i in range(tid.shape[0]):
        t = tid[i]
        out = unknown
        where = tid_hash(t, mask)
        while values[where] >= 0 and keys[where] != t:
            where = (where + 1) & mask
        v = values[where]
        if v >= 0:
            lo = first[v]
            hi = first[v + 1]
            s = seq[i]
            while lo < hi:  # find the first entry later than s
                mid = (lo + hi) >> 1
                if since[mid] <= s:
                    lo = mid + 1
                else:
                    hi = mid
            if lo > first[v]:
                out = name[lo - 1]
        code[i] = out
