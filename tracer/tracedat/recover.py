# SPDX-License-Identifier: GPL-2.0-or-later
"""Version 7 files whose options are lost: find metadata and pages by walking the sections.

The options that say where CPU data lies are written last, so a recorder that
died, or a copy that was cut, leaves data that nothing points at.
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from tracer.decode import Diagnostic
from tracer.errors import CaptureError
from tracer.ringbuffer import PageLayout
from tracer.tracedat import model
from tracer.tracedat.cursor import Cursor, note
from tracer.tracedat.model import Buffer, Contents, CpuData
from tracer.tracedat.v7 import COMPRESSED, MAX_BUFFERS, METADATA, OPTIONS, Reader, Section

_ACTIVE = re.compile(
    r"^CPU: (\d{1,5})$.*?^entries: (\d+)$.*?(?:^read events: (\d+)$|\Z)", re.M | re.S
)


def sections(reader: Reader) -> None:
    """Read the options and metadata that the options found so far did not lead to."""
    for at, section in reader.walk():
        try:
            if section.id == OPTIONS:
                reader.read_options(at)
            elif section.id in METADATA:
                reader.read_metadata(at, section.id)
        except CaptureError as err:
            text = f"Section {section.id}: {err.message}"
            note(
                reader.out.problems,
                Diagnostic("damaged-metadata", "warning", at, section.size, text),
            )


def buffers(reader: Reader, layout: PageLayout) -> None:
    """Find CPU data that no option describes."""
    for _, section in reader.walk():
        if section.id != model.BUFFER:
            continue
        # A recorder that died has not written the section's size.
        end = section.body + section.size if section.size else len(reader.data)
        end = min(end, len(reader.data))
        missing = section.body + section.size - end
        if section.size and missing > 0 and not section.flags & COMPRESSED:
            text = "The file ends inside its CPU data; the events behind are lost."
            note(reader.out.problems, Diagnostic("truncated-data", "loss", end, missing, text))
        find = _packed if section.flags & COMPRESSED else _pages
        ranges = find(reader, section, end, layout.size)
        cpus = _cpus(reader.out, len(ranges))
        reader.out.buffers.append(
            Buffer(
                "",
                clock=reader.out.text_option(model.TRACECLOCK).partition("[")[2].partition("]")[0],
                page_size=layout.size,
                cpus=[CpuData(c, at, size) for c, (at, size) in zip(cpus, ranges, strict=True)],
                compressed=bool(section.flags & COMPRESSED),
            )
        )
        note(
            reader.out.problems,
            Diagnostic(
                "cpu-guessed",
                "warning",
                section.body,
                end - section.body,
                "The file is cut before its table of CPU data; which CPU recorded which "
                "events was told from their order.",
            ),
        )
        if not section.size or len(reader.out.buffers) >= MAX_BUFFERS:
            return


def _align(at: int, size: int) -> int:
    return -(-at // size) * size


def _packed(reader: Reader, section: Section, end: int, page: int) -> list[tuple[int, int]]:
    """:return: (offset of the chunk count, bytes behind it) of each run of chunks."""
    found = []
    at = _align(section.body, page)
    while at + 12 <= end:
        cur = Cursor(reader.data, at, end, big_endian=reader.out.meta.big_endian)
        count = cur.u32()
        try:
            while count:
                packed, unpacked = cur.u32(), cur.u32()
                if not packed or not unpacked:
                    break
                cur.skip(packed)
                count -= 1
        except CaptureError:
            cur.pos = end
        found.append((at, cur.pos - at - 4))
        at = _align(cur.pos, page)
    return found


def _pages(reader: Reader, section: Section, end: int, page: int) -> list[tuple[int, int]]:
    """:return: (offset, size) of each run of pages whose time does not go back."""
    start = _align(section.body, page)
    count = max(0, end - start) // page
    order = ">u8" if reader.out.meta.big_endian else "<u8"
    words = np.frombuffer(reader.data, order, count * page // 8, start) if count else np.empty(0)
    stamps = words.reshape(count, page // 8)[:, 0] if count else words
    breaks = np.flatnonzero(stamps[1:] < stamps[:-1]) + 1
    edges = [0, *breaks.tolist(), count]
    found = [
        (start + low * page, (high - low) * page) for low, high in pairwise(edges) if low < high
    ]
    if found and start + count * page < end:
        at = found[-1][0]
        found[-1] = (at, end - at)
    return found


def _cpus(contents: Contents, count: int) -> list[int]:
    """:return: CPU numbers for runs of pages: those that recorded something come first."""
    text = b"\n".join(contents.options.get(model.CPUSTAT, [])).replace(b"\0", b"\n")
    stats = _ACTIVE.findall(text.decode("ascii", "replace"))
    active = [int(cpu) for cpu, entries, read in stats if int(entries) or int(read or 0)]
    others = (cpu for cpu in range(count + len(active)) if cpu not in set(active))
    return [*active, *others][:count]
