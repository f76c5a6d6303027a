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
from numpy.typing import NDArray

from tracer.jit import entry, inlined, inner

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
U255 = np.uint64(255)
LOW16 = np.uint64(0xFFFF)
LOW32 = np.uint64(0xFFFFFFFF)
LAST64 = np.uint64(0xFFFFFFFFFFFFFFFF)
LAST32 = np.uint32(0xFFFFFFFF)
FNV_START = np.uint64(0x811C9DC5)
FNV_PRIME = np.uint64(0x01000193)
GOLDEN = np.uint64(0x9E3779B1)

# Where the bytes of a string or array field are found.
PLACE_FIXED = 0  # offset, size
PLACE_REST = 1  # offset to the end of the record
PLACE_DATA_LOC = 2  # u32 at offset: low half offset from the record, high half length
PLACE_REL_LOC = 3  # the same, counted from the end of the u32

PROBES = 64  # slots looked at before a string counts as new: bounds crafted collisions
# Slots looked at in the tables of ids and tids. They are half empty, so that only
# numbers made to collide get there; those are not found.
MAX_CHAIN = 1024
BLOCK = 512  # rows gathered field after field while their records are in the cache


def as_bytes(data: Any) -> NDArray[np.uint8]:
    """:return: read-only uint8[n] over any contiguous buffer, without a copy."""
    array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    out = np.ascontiguousarray(array).reshape(-1).view(np.uint8).view(np.ndarray)
    out.flags.writeable = False
    return out


@inner
def load16(buf: Any, at: Any, big: Any) -> Any:
    """:return: the u16 at byte ``at`` as uint64; the caller has checked the bounds."""
    a = np.uint64(buf[at])
    b = np.uint64(buf[at + U1])
    if big:
        return (a << U8) | b
    return a | (b << U8)


@inner
def load32(buf: Any, at: Any, big: Any) -> Any:
    """:return: the u32 at byte ``at`` as uint64; the caller has checked the bounds."""
    a = np.uint64(buf[at])
    b = np.uint64(buf[at + U1])
    c = np.uint64(buf[at + U2])
    d = np.uint64(buf[at + U3])
    if big:
        return (a << U24) | (b << U16) | (c << U8) | d
    return a | (b << U8) | (c << U16) | (d << U24)


@inner
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


@entry
def group_rows(order: Any, slot: Any, next_row: Any, rows: Any) -> None:
    """Stable counting sort of row numbers by slot.

    :param order: int64[n], row numbers in the order they are wanted; empty for 0..n-1
    :param slot: int32[n], the group of each row; negative rows are left out
    :param next_row: int64[groups], where each group starts in ``rows``; advanced
    :param rows: uint32[sum of the groups], written
    """
    sorted_rows = order.shape[0] == 0
    for k in range(slot.shape[0]):
        i = k if sorted_rows else order[k]
        s = slot[i]
        if s >= 0:
            rows[next_row[s]] = i
            next_row[s] += 1


@entry
def count_slots(slot: Any, counts: Any) -> None:
    """Add the number of rows of each slot to ``counts`` (int64[groups])."""
    for i in range(slot.shape[0]):
        s = slot[i]
        if s >= 0:
            counts[s] += 1


@entry
def check_rows(rec_off: Any, rec_len: Any, size: Any) -> bool:
    """:return: whether every record lies in a buffer of ``size`` bytes."""
    for i in range(rec_off.shape[0]):
        if rec_off[i] < 0 or rec_len[i] < 0 or rec_off[i] > size - rec_len[i]:
            return False
    return True


@entry
def length_range(rec_len: Any, rows: Any) -> Any:
    """:return: (least, most, sum) of the lengths of some rows; rows: uint32[n > 0]."""
    least = rec_len[rows[0]]
    most = least
    total = 0
    for i in range(rows.shape[0]):
        n = rec_len[rows[i]]
        least = min(least, n)
        most = max(most, n)
        total += n
    return least, most, total


@entry
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


@entry
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
            at = offset[f]
            end = at + size[f]
            c = column[f]
            if size[f] == 8:
                for i in range(lo, hi):
                    r = rows[i]
                    good = end <= rec_len[r]
                    out64[c, i] = load64(buf, np.uint64(rec_off[r] + at), big) if good else U0
            elif size[f] == 4:
                for i in range(lo, hi):
                    r = rows[i]
                    good = end <= rec_len[r]
                    value = load32(buf, np.uint64(rec_off[r] + at), big) if good else U0
                    out32[c, i] = np.uint32(value)
            elif size[f] == 2:
                for i in range(lo, hi):
                    r = rows[i]
                    good = end <= rec_len[r]
                    value = load16(buf, np.uint64(rec_off[r] + at), big) if good else U0
                    out16[c, i] = np.uint16(value)
            else:
                for i in range(lo, hi):
                    r = rows[i]
                    good = end <= rec_len[r]
                    out8[c, i] = buf[np.uint64(rec_off[r] + at)] if good else 0


@entry
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


@inner
def same_bytes(buf: Any, a: Any, b: Any, count: Any) -> Any:
    """:return: whether ``count`` bytes at offset a and at offset b are equal."""
    k = 0
    while k < count and buf[np.uint64(a + k)] == buf[np.uint64(b + k)]:
        k += 1
    return k == count


@entry
def intern_slices(
    buf: Any, start: Any, length: Any, code: Any, table: Any, reps: Any, hashes: Any
) -> Any:
    """Number the distinct byte strings in order of first appearance.

    A string may get a second number where many hashes collide.

    :param start: int64[n], file offsets that the caller has checked
    :param length: int64[n], bytes, or -1 for none
    :param code: uint32[n], written: number of the string; rows with none get the
        number of distinct strings
    :param table: int32[power of two], all -1: a hash table of strings, by number
    :param reps: int64[size of table / 2], written: a row that holds each string
    :param hashes: uint64[size of table / 2], scratch
    :return: number of distinct strings, or -1 when there are too many for ``reps``
    """
    mask = table.shape[0] - 1
    found = 0
    last = 0
    for i in range(start.shape[0]):
        count = length[i]
        if count < 0:
            continue
        # Runs of the same value are the common case: compare before hashing.
        r = reps[last]
        if found and length[r] == count and same_bytes(buf, start[i], start[r], count):
            code[i] = last
            continue
        h = FNV_START
        for k in range(count):
            h = ((h ^ np.uint64(buf[np.uint64(start[i] + k)])) * FNV_PRIME) & LOW32
        where = np.int64(h) & mask
        last = -1
        probes = 0
        while last < 0 and table[where] >= 0 and probes < PROBES:
            c = table[where]
            r = reps[c]
            if hashes[c] == h and length[r] == count and same_bytes(buf, start[i], start[r], count):
                last = c
            where = (where + 1) & mask
            probes += 1
        if last < 0:
            if found == reps.shape[0]:
                return -1
            if table[where] < 0:
                table[where] = found
            reps[found] = i
            hashes[found] = h
            last = found
            found += 1
        code[i] = last
    for i in range(start.shape[0]):
        if length[i] < 0:
            code[i] = found
    return found


@entry
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


@inner
def tid_hash(tid: Any, mask: Any) -> Any:
    """:return: int64 home slot of a thread id in a table of ``mask + 1`` slots."""
    h = ((np.uint64(tid) & LOW32) * GOLDEN) & LOW32
    return np.int64(h >> U7) & mask


@entry
def tid_table(tids: Any, keys: Any, values: Any) -> None:
    """Fill an open-addressing table.

    :param tids: int32[m], distinct
    :param keys: int32[power of two > m], written where ``values`` is not negative
    :param values: int32[same], all -1; written with positions in ``tids``
    """
    mask = keys.shape[0] - 1
    for i in range(tids.shape[0]):
        where = tid_hash(tids[i], mask)
        left = MAX_CHAIN
        while values[where] >= 0 and left > 0:
            where = (where + 1) & mask
            left -= 1
        if values[where] < 0:
            keys[where] = tids[i]
            values[where] = i


@entry
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
        left = MAX_CHAIN
        while values[where] >= 0 and keys[where] != t and left > 0:
            where = (where + 1) & mask
            left -= 1
        v = values[where]
        if v >= 0 and keys[where] == t:
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


# perf.data

# Columns of the layout table of read_records(): one row per attribute. Places are
# bytes from the start of a SAMPLE, or back from the end of another record; 0 when
# the field is not recorded.
L_SLOT = 0  # frame number of its samples, or REFUSED
L_HEAD = 1  # bytes of header and fixed fields
L_ID = 2
L_TID = 3
L_TIME = 4
L_CPU = 5
L_READ_FORMAT = 6
L_USER_REGS = 7  # registers in the mask
L_INTR_REGS = 8
L_HW_INDEX = 9  # 1 when the branch stack has it
L_COUNTERS = 10  # 1 when the branch stack has them
L_END_SIZE = 11  # bytes of the sample_id behind other records, 0 for none
L_END_ID = 12
L_END_TID = 13
L_END_TIME = 14
L_END_CPU = 15
L_EVENT = 16  # common_type its samples must have, or -1
L_FIELDS = 17  # variable fields that are recorded
L_FIELD = 18  # and their T_* numbers from here on, in disk order
L_COLUMNS = L_FIELD + 15

# States of a record: frame number of a good sample, or one of these.
NO_ID = -1  # sample whose id belongs to no attribute
DAMAGED = -2  # sample whose fields do not lie in it
REFUSED = -3  # sample of an attribute whose layout is not known
CONFLICT = -4  # sample whose id and whose common_type name different tracepoints
BARE = -5  # record of perf itself, or too short for its sample_id
WITH_ID = -16  # and below: WITH_ID - a, another record with the sample_id of attribute a

# Positions in SAMPLE_TAIL of tracer.perfdata.format; the others are one word.
T_READ = 0
T_CALLCHAIN = 1
T_RAW = 2
T_BRANCH = 3
T_REGS_USER = 4
T_STACK = 5
T_REGS_INTR = 9
T_AUX = 14
TAIL_FIELDS = 15


@entry
def walk_records(buf: Any, start: Any, end: Any, big: Any, off: Any, kind: Any, counts: Any) -> Any:
    """Hop from record to record; stop where a size is impossible.

    See perf_session__process_event() and the blobs that TRACING_DATA and
    AUXTRACE records put behind themselves in tools/perf/util/session.c.

    :param start: byte of the first record
    :param end: byte behind the last one, in ``buf``
    :param off: int64[records], written; int64[0] to count only
    :param kind: uint8[records], written: type, 255 for 255 and more
    :param counts: int64[256], records of each kind are added
    :return: (number of records, byte where the walk stopped: ``end`` when all is well)
    """
    n = 0
    p = np.uint64(start)
    limit = np.uint64(end)
    while p + U8 <= limit:
        size = load16(buf, p + U6, big)
        if size < U8 or size > limit - p:
            break
        number = load32(buf, p, big)
        blob = U0
        if number == 66 and size >= 12:
            blob = (load32(buf, p + U8, big) + U7) & ~U7
        elif number == 71 and size >= 16:
            blob = load64(buf, p + U8, big)
        number = min(number, U255)
        if n < off.shape[0]:
            off[n] = p
            kind[n] = number
        counts[np.int64(number)] += 1
        n += 1
        p += size
        if blob > limit - p:
            break
        p += blob
    return n, np.int64(p)


@inner
def id_hash(ident: Any, mask: Any) -> Any:
    """:return: int64 home slot of a u64 id in a table of ``mask + 1`` slots."""
    h = (((ident ^ (ident >> U32)) & LOW32) * GOLDEN) & LOW32
    return np.int64(h >> U7) & mask


@entry
def find_id(keys: Any, values: Any, ident: Any) -> Any:
    """:return: what :func:`id_table` holds for a u64 id, or -1."""
    mask = keys.shape[0] - 1
    where = id_hash(ident, mask)
    for _ in range(MAX_CHAIN):
        if values[where] < 0:
            return -1
        if keys[where] == ident:
            return values[where]
        where = (where + 1) & mask
    return -1


@entry
def id_table(ids: Any, owner: Any, keys: Any, values: Any) -> None:
    """Fill an open-addressing table; the first owner of an id keeps it.

    :param ids: uint64[m]
    :param owner: int32[m], not negative
    :param keys: uint64[power of two > m], written where ``values`` is not negative
    :param values: int32[same], all -1
    """
    mask = keys.shape[0] - 1
    for i in range(ids.shape[0]):
        where = id_hash(ids[i], mask)
        left = MAX_CHAIN
        while values[where] >= 0 and keys[where] != ids[i] and left > 0:
            where = (where + 1) & mask
            left -= 1
        if values[where] < 0:
            keys[where] = ids[i]
            values[where] = owner[i]


@inner
def read_size(buf: Any, p: Any, avail: Any, read_format: Any, big: Any) -> Any:
    """:return: bytes of a PERF_SAMPLE_READ block at ``p``, or more than ``avail``."""
    per_value = U1
    if read_format & 4:
        per_value += U1
    if read_format & 16:
        per_value += U1
    times = U0
    if read_format & 1:
        times += U1
    if read_format & 2:
        times += U1
    if not read_format & 8:
        return (times + per_value) << U3
    if avail < U8:
        return avail + U1
    nr = load64(buf, p, big)
    if nr > avail:
        return avail + U1
    return (U1 + times + nr * per_value) << U3


@inner
def counted_size(buf: Any, p: Any, avail: Any, fixed: Any, unit: Any, big: Any) -> Any:
    """Size of a block that starts with a u64 count.

    :param fixed: bytes between the count and the entries
    :param unit: bytes of an entry
    :return: bytes of the block, or more than ``avail``
    """
    if avail < U8:
        return avail + U1
    nr = load64(buf, p, big)
    if nr > avail:
        return avail + U1
    return U8 + fixed + nr * unit


@inlined
def sample_tail(
    buf: Any,
    head: Any,
    end: Any,
    layout: Any,
    a: Any,
    big: Any,
    want: Any,
    i: Any,
    start: Any,
    length: Any,
) -> Any:
    """Step over the variable fields of a SAMPLE, in disk order.

    See evsel__parse_sample() in tools/perf/util/evsel.c.

    :param head: uint64, byte behind the fixed fields
    :param end: uint64, byte behind the record
    :param layout: int64[attributes, L_COLUMNS]; row ``a`` applies
    :param want: int64[TAIL_FIELDS], row of ``start`` a field goes to, or -1
    :param start: int64[wanted, n], column ``i`` written: where each field's content starts
    :param length: int64[wanted, n], column ``i`` written: its bytes
    :return: whether all fields lie in the record
    """
    p = head
    for k in range(layout[a, L_FIELDS]):
        field = layout[a, L_FIELD + k]
        avail = end - p
        skip = U8  # bytes of counts before the content
        size = U8  # of counts and content
        after = U0  # bytes behind the content
        used = LAST64  # bytes of the content that count
        if field == T_RAW:
            skip = U4
            size = avail + U1 if avail < U4 else U4 + load32(buf, p, big)
        elif field == T_CALLCHAIN:
            size = counted_size(buf, p, avail, U0, U8, big)
        elif field == T_READ:
            skip = U0
            size = read_size(buf, p, avail, layout[a, L_READ_FORMAT], big)
        elif field == T_BRANCH:
            skip += U8 * np.uint64(layout[a, L_HW_INDEX])
            size = counted_size(buf, p, avail, skip - U8, U24, big)
            if layout[a, L_COUNTERS] and size <= avail:
                after = ((size - skip) // U24) << U3
        elif field == T_REGS_USER:
            if avail >= U8 and load64(buf, p, big) != U0:
                size += U8 * np.uint64(layout[a, L_USER_REGS])
        elif field == T_REGS_INTR:
            if avail >= U8 and load64(buf, p, big) != U0:
                size += U8 * np.uint64(layout[a, L_INTR_REGS])
        elif field == T_STACK:
            size = counted_size(buf, p, avail, U0, U1, big)
            # Behind the bytes, if any: how many of them the kernel filled.
            after = U8 if size > U8 else U0
            if after != U0 and size <= avail and after <= avail - size:
                used = load64(buf, p + size, big)
        elif field == T_AUX:
            size = counted_size(buf, p, avail, U0, U1, big)
        else:
            skip = U0  # one word
        if size > avail or after > avail - size:
            return False
        w = want[field]
        if w >= 0:
            start[w, i] = np.int64(p + skip)
            length[w, i] = np.int64(min(size - skip, used))
        p += size + after
    return True


@inlined
def sample_state(
    buf: Any,
    p: Any,
    size: Any,
    big: Any,
    layout: Any,
    by_id: Any,
    keys: Any,
    values: Any,
    want: Any,
    i: Any,
    start: Any,
    length: Any,
) -> Any:
    """Find the attribute of the SAMPLE at ``p`` and step over its fields.

    See :func:`read_records` for the parameters.

    :return: (frame number or state, row of ``layout``)
    """
    a = 0
    if by_id:
        place = layout[0, L_ID]
        ident = load64(buf, p + np.uint64(place), big) if place + 8 <= size else U0
        # Samples that perf makes up itself have id 0.
        a = find_id(keys, values, ident) if ident != U0 else 0
        if a < 0:
            return NO_ID, 0
    what = layout[a, L_SLOT]
    if what < 0:
        return what, a
    head = np.uint64(layout[a, L_HEAD])
    good = layout[a, L_HEAD] <= size and sample_tail(
        buf, p + head, p + np.uint64(size), layout, a, big, want, i, start, length
    )
    event = layout[a, L_EVENT]
    if not good:
        what = DAMAGED
    elif event >= 0 and length[0, i] >= 2:
        found = np.int64(load16(buf, np.uint64(start[0, i]), big))
        what = what if found == event else CONFLICT
    if what < 0:
        for w in range(start.shape[0]):
            start[w, i] = 0
            length[w, i] = 0
    return what, a


@entry
def read_records(
    buf: Any,
    off: Any,
    kind: Any,
    big: Any,
    layout: Any,
    by_id: Any,
    keys: Any,
    values: Any,
    min_size: Any,
    want: Any,
    ts: Any,
    cpu: Any,
    pid: Any,
    tid: Any,
    state: Any,
    start: Any,
    length: Any,
) -> None:
    """Read time, task, CPU and frame of every record.

    :param off: int64[n] from :func:`walk_records`; kind: uint8[n] alike
    :param layout: int64[attributes > 0, L_COLUMNS]
    :param by_id: find the attribute by id; otherwise the first one applies
    :param keys: the table of :func:`id_table`; values alike
    :param min_size: int64[64], smallest size of each kernel record
    :param want: int64[TAIL_FIELDS], row of ``start`` a field goes to, or -1; RAW to row 0
    :param ts: uint64[n], written, 0 where not recorded; cpu: uint32[n], pid and
        tid: int32[n], -1 where not recorded
    :param state: int32[n], written: frame number or one of the states above
    :param start: int64[wanted, n], written: byte where each wanted field starts
    :param length: int64[wanted, n], written: its bytes, 0 when there is none
    """
    for i in range(off.shape[0]):
        for w in range(start.shape[0]):
            start[w, i] = 0
            length[w, i] = 0
        p = np.uint64(off[i])
        number = kind[i]
        size = np.int64(load16(buf, p + U6, big))
        what = BARE
        a = 0
        at_tid = 0
        at_time = 0
        at_cpu = 0
        if number == 9:
            what, a = sample_state(
                buf, p, size, big, layout, by_id, keys, values, want, i, start, length
            )
            if what >= 0:
                at_tid = layout[a, L_TID]
                at_time = layout[a, L_TIME]
                at_cpu = layout[a, L_CPU]
        elif number < 64:
            body = min_size[number]
            back = layout[0, L_END_ID]
            if by_id and back and size >= body + back:
                ident = load64(buf, p + np.uint64(size - back), big)
                a = max(0, find_id(keys, values, ident)) if ident != U0 else 0
            if size >= body + layout[a, L_END_SIZE]:
                what = WITH_ID - a
                at_tid = size - layout[a, L_END_TID] if layout[a, L_END_TID] else 0
                at_time = size - layout[a, L_END_TIME] if layout[a, L_END_TIME] else 0
                at_cpu = size - layout[a, L_END_CPU] if layout[a, L_END_CPU] else 0
        state[i] = what
        ts[i] = load64(buf, p + np.uint64(at_time), big) if at_time else U0
        cpu[i] = np.uint32(load32(buf, p + np.uint64(at_cpu), big)) if at_cpu else LAST32
        if at_tid:
            pid[i] = np.int32(load32(buf, p + np.uint64(at_tid), big))
            tid[i] = np.int32(load32(buf, p + np.uint64(at_tid) + U4, big))
        else:
            pid[i] = -1
            tid[i] = -1


@entry
def gather_u64(buf: Any, at: Any, big: Any, out: Any) -> None:
    """Load one u64 per row.

    :param at: int64[n], bytes that the caller has checked, or -1 for none
    :param out: uint64[n], written; 0 where there is none
    """
    for i in range(at.shape[0]):
        out[i] = load64(buf, np.uint64(at[i]), big) if at[i] >= 0 else U0
