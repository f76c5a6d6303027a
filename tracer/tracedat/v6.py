# SPDX-License-Identifier: GPL-2.0-or-later
"""trace.dat of version 6: the metadata blob, options, then a table of CPU data.

Layout: trace-cmd.dat.v6(5).
"""

from __future__ import annotations

from typing import Final

from tracer import tracingdata
from tracer.decode import Diagnostic
from tracer.errors import CaptureError
from tracer.tracedat import model
from tracer.tracedat.cursor import Cursor, note
from tracer.tracedat.model import Buffer, Contents, CpuData

# Ten bytes tell what comes next.
TAG_OPTIONS: Final = b"options  \0"
TAG_LATENCY: Final = b"latency  \0"
TAG_FLYRECORD: Final = b"flyrecord\0"
MAX_CPUS: Final = 1 << 16  # the kernel's NR_CPUS stops at 8192


def read(data: bytes | memoryview) -> Contents:
    """Read everything but the events.

    :raises CaptureError: when the file ends before the first CPU's data is known
    """
    meta = tracingdata.parse(data)
    out = Contents(meta, problems=meta.problems)
    start = meta.end
    if any(p.code == "damaged-metadata" for p in meta.problems):
        start = _find_tag(data, meta.end)
    cur = Cursor(data, start, big_endian=meta.big_endian)
    cpus = cur.u32("number of CPUs")
    tag = cur.take(len(TAG_OPTIONS), "the tag behind the metadata")
    if tag == TAG_OPTIONS:
        _read_options(cur, out)
        tag = cur.take(len(TAG_OPTIONS), "the tag behind the options")
    count = out.options.get(model.CPUCOUNT, [b""])[0]
    out.nr_cpus = cpus or int.from_bytes(count[:4], "big" if meta.big_endian else "little")
    top = Buffer("", clock=_clock(out))
    out.buffers.append(top)
    if tag == TAG_LATENCY:
        top.text = cur.take(cur.left)
        return out
    if tag != TAG_FLYRECORD:
        raise CaptureError(f"The trace.dat has neither pages nor text, but {bytes(tag)!r}.")
    _read_table(cur, cpus, top, out)
    for option in out.options.get(model.BUFFER, []):
        _read_instance(data, option, cpus, out)
    return out


def _find_tag(data: bytes | memoryview, start: int) -> int:
    """Find the end of damaged metadata by what follows it.

    :return: offset of the number of CPUs, which lies before the first tag
    :raises CaptureError: when there is none
    """
    whole = bytes(data)
    found = [whole.find(tag, start + 4) for tag in (TAG_OPTIONS, TAG_FLYRECORD)]
    found = [at for at in found if at >= 0]
    if not found:
        raise CaptureError(
            "The trace.dat ends inside its event formats.",
            "The events may still be in the recorder's trace.dat.cpu* files.",
        )
    return min(found) - 4


def _clock(out: Contents) -> str:
    text = out.text_option(model.TRACECLOCK)
    return text.partition("[")[2].partition("]")[0]


def _read_options(cur: Cursor, out: Contents) -> None:
    """u16 id, u32 size, bytes; id 0 has no size and ends them."""
    while ident := cur.u16("an option's id"):
        out.options.setdefault(ident, []).append(cur.sized(4, f"option {ident}"))


def _read_table(cur: Cursor, cpus: int, buffer: Buffer, out: Contents) -> None:
    """{u64 offset, u64 size} of every CPU."""
    for cpu in range(cpus):
        if cur.left < 16 or cpu >= MAX_CPUS:
            message = f"The table of CPU data ends at CPU {cpu} of {cpus}; the others are lost."
            note(out.problems, Diagnostic("truncated-data", "loss", cur.offset, None, message))
            return
        buffer.cpus.append(CpuData(cpu, cur.u64(), cur.u64()))


def _read_instance(data: bytes | memoryview, option: bytes, cpus: int, out: Contents) -> None:
    """BUFFER option: u64 offset of another flyrecord block, name."""
    cur = Cursor(option, big_endian=out.meta.big_endian)
    offset = None
    try:
        offset = cur.u64("a buffer's offset")
        buffer = Buffer(cur.cstr("a buffer's name"), clock=out.buffers[0].clock)
        at = Cursor(data, offset, big_endian=out.meta.big_endian)
        if at.take(len(TAG_FLYRECORD), "a buffer's tag") != TAG_FLYRECORD:
            raise CaptureError(f"Buffer {buffer.name[:80]!r} has no pages where it says.")
        _read_table(at, cpus, buffer, out)
    except CaptureError as err:
        row = Diagnostic("bad-buffer", "loss", offset, None, f"{err.message} It is left out.")
        note(out.problems, row)
        return
    out.buffers.append(buffer)
