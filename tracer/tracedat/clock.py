# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw ring-buffer times to nanoseconds: TSC conversion, guest shift, offsets.

The order and rounding are trace-cmd's, timestamp_calc() in
lib/trace-cmd/trace-input.c, so that times equal those of its report.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracer.decode import Diagnostic
from tracer.errors import CaptureError
from tracer.tracedat import model
from tracer.tracedat.cursor import Cursor, note
from tracer.tracedat.model import Contents

INTERPOLATE: Final = 1  # TRACECMD_TSYNC_FLAG_INTERPOLATE
NS_CLOCKS: Final = frozenset(
    {"local", "global", "uptime", "perf", "mono", "mono_raw", "boot", "tai", "tsc2nsec"}
)
U64 = NDArray[np.uint64]


@dataclass
class Shift:
    """Corrections of one CPU, sorted by time: arrays of one length."""

    time: U64
    offset: NDArray[np.int64]
    scaling: U64
    fraction: U64


@dataclass
class Clock:
    """What to do to every time stamp of a file.

    :ivar mult: of the TSC conversion, 0 for none
    :ivar offset: ns added at the end
    :ivar shifts: per CPU, of a guest's file
    """

    mult: int = 0
    shift: int = 0
    offset: int = 0
    interpolate: bool = False
    shifts: list[Shift] = field(default_factory=list)

    @property
    def plain(self) -> bool:
        """Time stamps are used as they are."""
        return not (self.mult or self.offset or self.shifts)

    def apply(self, ts: U64, cpu: int) -> U64:
        """:return: uint64[n] ns of raw times, wrapping as trace-cmd's do."""
        if cpu < len(self.shifts) and self.shifts[cpu].time.size:
            ts = _shifted(ts, self.shifts[cpu], self.interpolate)
        if self.mult:
            ts = _scaled(ts, self.mult, self.shift)
        return ts + np.uint64(self.offset % (1 << 64)) if self.offset else ts


def clock_of(contents: Contents) -> Clock:
    """Read the options that concern time; a damaged one becomes a problem."""
    out = Clock()
    for ident, read in ((model.DATE, 1000), (model.OFFSET, 1)):
        for value in contents.options.get(ident, []):
            out.offset += _number(value, contents, ident) * read
    big_endian = contents.meta.big_endian
    for value in contents.options.get(model.TSC2NSEC, []):
        cur = Cursor(value, big_endian=big_endian)
        if cur.left >= 16:
            out.mult, out.shift = cur.u32(), cur.u32()
    for value in contents.options.get(model.TIME_SHIFT, []):
        try:
            _read_shift(Cursor(value, big_endian=big_endian), out)
        except CaptureError as err:
            out.shifts = []
            _problem(contents, f"The guest's time shift is not applied: {err.message}")
    if out.shift > 63:
        _problem(contents, f"The TSC conversion shifts by {out.shift} and is not applied.")
        out.mult = out.shift = 0
    return out


def _problem(contents: Contents, text: str) -> None:
    note(contents.problems, Diagnostic("bad-clock", "warning", None, None, text))


def _number(value: bytes, contents: Contents, ident: int) -> int:
    """:return: a decimal or 0x number with sign, 0 when it is none."""
    text = value.partition(b"\0")[0].strip()[:32].decode("ascii", "replace")
    try:
        return int(text, 16 if "x" in text.lower() else 10)
    except ValueError:
        _problem(contents, f"Time option {ident} has no number, but {text!r}.")
        return 0


def _read_shift(cur: Cursor, out: Clock) -> None:
    """u64 peer, u32 flags, u32 cpus, then per CPU u32 n, n times, n offsets, n scalings.

    Newer files have n fraction bits for each CPU at the end.
    """
    cur.skip(8, "the peer's id")
    out.interpolate = bool(cur.u32("flags") & INTERPOLATE)
    cpus = cur.u32("number of CPUs")
    columns: list[list[Any]] = []
    for _ in range(min(cpus, cur.left // 4)):
        n = cur.u32("number of corrections")
        columns.append([_words(cur, n) for _ in range(3)])
    fractions = cur.left > 0
    for time, offset, scaling in columns:
        fraction = _words(cur, time.size) if fractions else np.zeros(time.size, np.uint64)
        _, keep = np.unique(time, return_index=True)
        out.shifts.append(
            Shift(time[keep], offset.view(np.int64)[keep], scaling[keep], fraction[keep])
        )


def _words(cur: Cursor, n: int) -> U64:
    order = ">u8" if cur.big_endian else "<u8"
    raw: U64 = np.frombuffer(cur.take(8 * n, "time corrections"), order)
    out: U64 = np.array(raw, np.uint64)
    return out


def _shifted(ts: U64, shift: Shift, interpolate: bool) -> U64:
    """Move a guest's times to its host's clock; 64-bit arithmetic that wraps."""
    n = shift.time.size
    if n == 1:
        return ts + np.uint64(int(shift.offset[0]) % (1 << 64))
    # The two corrections around each time, the outermost two beyond the ends.
    low = np.clip(np.searchsorted(shift.time, ts, side="right") - 1, 0, n - 2)
    high = low + 1
    correction = shift.offset[low]
    if interpolate:
        span = (shift.time[high] - shift.time[low]).view(np.int64)
        run = (ts - shift.time[low]).view(np.int64)
        top = run * (shift.offset[high] - shift.offset[low]) + span // 2
        # C divides towards zero.
        quotient = np.abs(top) // span
        correction = correction + np.where(top < 0, -quotient, quotient)
    scaled = (ts * shift.scaling[low]) >> np.minimum(shift.fraction[low], np.uint64(63))
    return scaled + correction.view(np.uint64)


def _scaled(ts: U64, mult: int, shift: int) -> U64:
    """:return: (ts * mult) >> shift, the product having 96 bits."""
    low = (ts & np.uint64(0xFFFFFFFF)) * np.uint64(mult)
    high = (ts >> np.uint64(32)) * np.uint64(mult)
    # high << (32 - shift) loses nothing but what leaves the top.
    if shift <= 32:
        return (low >> np.uint64(shift)) + (high << np.uint64(32 - shift))
    return (high + (low >> np.uint64(32))) >> np.uint64(shift - 32)
