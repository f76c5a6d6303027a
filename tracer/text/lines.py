# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of trace text to task, CPU, time, event name and body.

All three printers share the line: task name, thread id, ``[cpu]``, time,
``event: text``. A task name may hold anything, this very syntax included, so
the line is taken apart around the last ``[cpu]`` that leaves at most 16 bytes
of name: the printers pad the name to 16.

See trace_print_context() in kernel/trace/trace_output.c and
perf_sample__fprintf_start() in tools/perf/builtin-script.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracer.jit import kernel

# What a line is.
OTHER, EVENT, SYS_ENTER, SYS_EXIT, FUNCTION, COMMENT, LOSS, BLANK = range(8)

# Columns of Lines.at, byte offsets.
COMM, COMM_END, NAME, NAME_END, BODY, BODY_END = range(6)
# Columns of Lines.number.
TID, PID, CPU, DIGITS = range(4)

MAX_COMM: Final = 16  # bytes the name is padded to
HEADER: Final = 96  # bytes of a line in which its [cpu] and time lie
NS_DIGITS: Final = 9

_SPACE: Final = 32
_DASH: Final = 45
_DOT: Final = 46
_SLASH: Final = 47
_ZERO: Final = 48
_COLON: Final = 58
_OPEN: Final = 40
_CLOSE: Final = 41
_BRACKET: Final = 91
_UNBRACKET: Final = 93
_NEWLINE: Final = 10
_RETURN: Final = 13
_HASH: Final = 35
_LESS: Final = 60
_LETTER_S: Final = 115
_LETTER_Y: Final = 121
_UNDERSCORE: Final = 95
_CPU_COLON: Final = np.frombuffer(b"CPU:", np.uint8)
_LOST_RECORD: Final = np.frombuffer(b"PERF_RECORD_LOST", np.uint8)


@dataclass(frozen=True)
class Lines:
    """Every line of a text, as arrays of one length n.

    :ivar state: uint8, what the line is
    :ivar at: int64[n, 6], byte offsets, columns ``COMM`` to ``BODY_END``
    :ivar number: int64[n, 4], columns ``TID`` to ``DIGITS``; PID and CPU are -1
        when not printed, DIGITS counts those behind the time's point
    :ivar ts: uint64, ns; the bare number when it has no point
    """

    state: NDArray[np.uint8]
    at: NDArray[np.int64]
    number: NDArray[np.int64]
    ts: NDArray[np.uint64]


@kernel
def is_digit(c: Any) -> Any:
    """:return: whether a byte is 0 to 9."""
    return _ZERO <= c < _ZERO + 10


@kernel
def starts_with(buf: Any, at: Any, end: Any, word: Any) -> Any:
    """:return: whether ``buf[at:end]`` starts with ``word`` (uint8[k])."""
    same = 0
    while same < word.shape[0] and at + same < end and buf[at + same] == word[same]:
        same += 1
    return same == word.shape[0]


@kernel
def read_task(buf: Any, start: Any, last: Any) -> Any:
    """Read ``comm-tid``, ``comm tid`` or ``comm pid/tid``, with an optional ``(tgid)``, leftwards.

    :param last: offset of the last byte before the CPU or the time
    :return: end of the name or -1 when this is no task, tid, pid or -1
    """
    at = last
    pid = -1
    while at > start and buf[at] == _SPACE:
        at -= 1
    if buf[at] == _CLOSE:
        # The thread group, or dashes where the kernel did not know it.
        at -= 1
        scale = 1
        group = 0
        digits = 0
        while at > start and (is_digit(buf[at]) or buf[at] == _DASH or buf[at] == _SPACE):
            if is_digit(buf[at]) and digits < 10:
                group += scale * int(buf[at] - _ZERO)
                scale *= 10
                digits += 1
            at -= 1
        if at <= start or buf[at] != _OPEN:
            return -1, 0, -1
        if digits > 0:
            pid = group
        at -= 1
        while at > start and buf[at] == _SPACE:
            at -= 1
    tid = 0
    scale = 1
    digits = 0
    while at >= start and is_digit(buf[at]) and digits < 10:
        tid += scale * int(buf[at] - _ZERO)
        scale *= 10
        digits += 1
        at -= 1
    if digits == 0 or at <= start:
        return -1, 0, -1
    if buf[at] == _SLASH:
        pid = 0
        scale = 1
        digits = 0
        at -= 1
        while at >= start and is_digit(buf[at]) and digits < 10:
            pid += scale * int(buf[at] - _ZERO)
            scale *= 10
            digits += 1
            at -= 1
        if digits == 0 or at <= start or buf[at] != _SPACE:
            return -1, 0, -1
    if buf[at] == _SPACE:
        while at > start and buf[at] == _SPACE:
            at -= 1
        at += 1
    elif buf[at] != _DASH:
        return -1, 0, -1
    if at - start > MAX_COMM or tid >= 1 << 31 or pid >= 1 << 31:
        return -1, 0, -1
    return at, tid, pid


@kernel
def read_time(buf: Any, at: Any, end: Any) -> Any:
    """Read ``12.345678:`` or ``12345:``.

    :return: offset behind the colon or -1 when this is no time, ns, digits behind the point
    """
    whole = np.uint64(0)
    start = at
    while at < end and is_digit(buf[at]) and at - start < 20:
        whole = whole * np.uint64(10) + np.uint64(buf[at] - _ZERO)
        at += 1
    if at == start or at >= end:
        return -1, np.uint64(0), 0
    digits = 0
    if buf[at] == _DOT:
        at += 1
        while at < end and is_digit(buf[at]) and digits < NS_DIGITS:
            whole = whole * np.uint64(10) + np.uint64(buf[at] - _ZERO)
            digits += 1
            at += 1
        for _ in range(NS_DIGITS - digits):
            whole *= np.uint64(10)
        if digits == 0:
            return -1, np.uint64(0), 0
    if at >= end or buf[at] != _COLON or (at + 1 < end and buf[at + 1] != _SPACE):
        return -1, np.uint64(0), 0
    return at + 1, whole, digits


@kernel
def find_header(buf: Any, start: Any, end: Any) -> Any:
    """Take the left half of a line apart.

    :return: (offset behind the time or -1, end of the name, tid, pid, cpu, ns, digits)
    """
    found = (np.int64(-1), np.int64(0), 0, -1, -1, np.uint64(0), 0)
    limit = min(end, start + HEADER)
    for p in range(start + 1, limit):
        if buf[p] != _BRACKET or buf[p - 1] != _SPACE:
            continue
        cpu = 0
        q = p + 1
        while q < end and is_digit(buf[q]) and q - p < 7:
            cpu = cpu * 10 + int(buf[q] - _ZERO)
            q += 1
        if q == p + 1 or q + 1 >= end or buf[q] != _UNBRACKET or buf[q + 1] != _SPACE:
            continue
        name_end, tid, pid = read_task(buf, start, p - 1)
        if name_end < 0:
            continue
        q += 2
        while q < end and buf[q] == _SPACE:
            q += 1
        if q < end and not is_digit(buf[q]):
            # Flags: irqs off, need resched, context, preempt depth, migration.
            while q < end and buf[q] != _SPACE:
                q += 1
            while q < end and buf[q] == _SPACE:
                q += 1
        behind, ns, digits = read_time(buf, q, end)
        if behind >= 0:
            found = (np.int64(behind), np.int64(name_end), tid, pid, cpu, ns, digits)
    if found[0] >= 0:
        return found
    # perf script without a CPU: the time follows the thread id.
    for p in range(start + 2, limit):
        if buf[p - 1] != _SPACE or not is_digit(buf[p]):
            continue
        behind, ns, digits = read_time(buf, p, end)
        if behind < 0 or digits == 0:
            continue
        name_end, tid, pid = read_task(buf, start, p - 1)
        if name_end >= 0:
            return (np.int64(behind), np.int64(name_end), tid, pid, -1, ns, digits)
    return found


@kernel
def read_name(buf: Any, start: Any, end: Any) -> Any:
    """Find the event's name behind the time.

    :return: state, start and end of the name, start of the body
    """
    at = start
    while at < end and buf[at] == _SPACE:
        at += 1
    name = at
    number = True
    while at < end:
        c = buf[at]
        if c == _COLON and (at + 1 >= end or buf[at + 1] == _SPACE):
            return EVENT, name, at, at + 1
        if c in (_SPACE, _OPEN):
            is_sys = (
                at - name > 4
                and buf[name] == _LETTER_S
                and buf[name + 1] == _LETTER_Y
                and buf[name + 2] == _LETTER_S
                and buf[name + 3] == _UNDERSCORE
            )
            if c == _OPEN:
                return (SYS_ENTER if is_sys else OTHER), name, at, at + 1
            if starts_with(buf, name, at, _LOST_RECORD):
                return LOSS, name, at, at + 1
            if is_sys and at + 2 < end and buf[at + 1] == _DASH:
                return SYS_EXIT, name, at, at + 3
            if at + 2 < end and buf[at + 1] == _LESS and buf[at + 2] == _DASH:
                return FUNCTION, name, at, at + 3
            if not number or at == name:
                return OTHER, name, at, at
            # perf prints the sample's period before the name.
            while at < end and buf[at] == _SPACE:
                at += 1
            name = at
            number = False
            continue
        number = number and is_digit(c)
        at += 1
    return OTHER, name, end, end


@kernel
def parse_lines(buf: Any, state: Any, at: Any, number: Any, ts: Any) -> Any:
    """Fill the arrays of :class:`Lines`.

    :param buf: uint8[bytes], read-only
    :return: lines found; the arrays have room for one more than there are line ends
    """
    n = 0
    start = 0
    size = buf.shape[0]
    while start < size:
        stop = start
        while stop < size and buf[stop] != _NEWLINE:
            stop += 1
        end = stop
        while end > start and (buf[end - 1] == _RETURN or buf[end - 1] == _SPACE):
            end -= 1
        first = start
        while first < end and buf[first] == _SPACE:
            first += 1
        state[n] = OTHER
        at[n, COMM] = first
        at[n, COMM_END] = end
        if first == end:
            state[n] = BLANK
        elif buf[first] == _HASH:
            state[n] = COMMENT
        elif starts_with(buf, first, end, _CPU_COLON):
            state[n] = LOSS
        else:
            behind, name_end, tid, pid, cpu, ns, digits = find_header(buf, start, end)
            if behind >= 0:
                what, name, stop_name, body = read_name(buf, behind, end)
                while body < end and buf[body] == _SPACE:
                    body += 1
                state[n] = what
                at[n, COMM_END] = max(name_end, first)
                at[n, NAME] = name
                at[n, NAME_END] = stop_name
                at[n, BODY] = body
                at[n, BODY_END] = end
                number[n, TID] = tid
                number[n, PID] = pid
                number[n, CPU] = cpu
                number[n, DIGITS] = digits
                ts[n] = ns
        n += 1
        start = stop + 1
    return n


def split(buf: NDArray[np.uint8], count: int) -> Lines:
    """Take every line apart.

    :param buf: uint8[bytes], read-only
    :param count: line ends in it
    """
    room = count + 1
    state = np.empty(room, np.uint8)
    at = np.empty((room, 6), np.int64)
    number = np.empty((room, 4), np.int64)
    ts = np.empty(room, np.uint64)
    # A time of 20 digits wraps; uncompiled, numpy would warn.
    with np.errstate(over="ignore"):
        n = int(parse_lines(buf, state, at, number, ts))
    return Lines(state[:n], at[:n], number[:n], ts[:n])
