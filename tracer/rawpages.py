# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw ring-buffer pages, as read from per_cpu/cpuN/trace_pipe_raw.

The pages say neither which CPU they are of nor what their events look like:
the CPU comes from the file's name, the formats from a copy of tracefs beside
the pages or from another capture of the same kernel.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tracer import tracingdata
from tracer.capture import Capture, Provenance
from tracer.compression import unwrap
from tracer.decode import Diagnostic, diagnostics_frame
from tracer.errors import CaptureError
from tracer.eventformat import EventFormat
from tracer.record import RECORDING
from tracer.ringbuffer import OK, PageLayout, Stream, page_layout
from tracer.tracedat import frames
from tracer.tracedat.records import Walk
from tracer.tracingdata import TracingData

PAGE_SIZES: Final = tuple(4096 << i for i in range(9))
SNIFFED: Final = 1 << 20  # bytes of each file that tell byte order and page size
MAX_SIDE_FILE: Final = 64 << 20  # bytes of one metadata file
MAX_SIDE_FILES: Final = 20000

# Facts in RECORDING to the type of their value; lists hold texts.
RECORDING_KEYS: Final[dict[str, type]] = {
    "arch": str,
    "page_size": int,
    "hostname": str,
    "recorder": str,
    "cmdline": list,
    "probe_set": list,
}

_CPU = re.compile(r"cpu(\d{1,5})")
_META_FIELDS: Final = 4  # u32 meta page size, struct size, sub-buffer size, number


@dataclass
class Side:
    """What lies beside the pages.

    :ivar recording: what ``mmtrace record`` knew of itself, see :data:`RECORDING_KEYS`
    :ivar files: names that were used
    """

    meta: TracingData = field(default_factory=TracingData)
    release: str | None = None
    clock: str | None = None
    recording: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shape:
    """How the pages are laid out and ordered."""

    layout: PageLayout
    big_endian: bool
    skip: int = 0  # bytes of a mapped buffer's meta page


def read(data: bytes, path: str, formats: Mapping[str, EventFormat] | None = None) -> Capture:
    """Read one CPU's pages.

    :param data: the file
    :param path: its name, which tells the CPU; formats are looked for beside it
    :param formats: event formats of another capture of the same kernel
    :raises CaptureError: when there are no formats at all
    """
    name = Path(path).absolute()
    cpu = _cpu_of(name) if path != "-" else None
    side = find_side_files(name.parent) if path != "-" else Side()
    out = read_pages([(cpu or 0, data)], side, formats, path)
    if cpu is None:
        _diagnose(out, "cpu-guessed", "The file's name has no CPU number; it is taken as CPU 0.")
    elif others := _sisters(name):
        text = f"Files of other CPUs ({others}) lie beside it; name the directory to read them all."
        _diagnose(out, "other-cpus", text)
    return out


def read_directory(path: Path, formats: Mapping[str, EventFormat] | None = None) -> Capture:
    """Read every CPU's pages in a directory, such as a copy of per_cpu/.

    :param path: searched for ``*trace_pipe_raw`` at any depth
    :param formats: event formats of another capture of the same kernel
    :raises CaptureError: when there are no pages or no formats
    """
    pages: list[tuple[int, bytes]] = []
    found = sorted(path.rglob("*trace_pipe_raw*"), key=lambda p: (_cpu_of(p) or 0, str(p)))
    for file in (p for p in found if p.is_file()):
        cpu = _cpu_of(file)
        data = unwrap(file.read_bytes(), str(file)).data
        pages.append((len(pages) if cpu is None else cpu, data))
    if not any(data for _, data in pages):
        raise CaptureError(f"{path} has no trace_pipe_raw with pages in it.")
    return read_pages(pages, find_side_files(path), formats, str(path))


def read_pages(
    pages: Sequence[tuple[int, bytes]],
    side: Side | None = None,
    formats: Mapping[str, EventFormat] | None = None,
    path: str | None = None,
) -> Capture:
    """Read pages of several CPUs.

    :param pages: (CPU, its sub-buffers one after the other)
    :param side: formats and more of the same kernel
    :param formats: used for events that ``side`` has no format of
    :param path: for provenance
    :raises CaptureError: when there are no formats
    """
    side = side or Side()
    known = {f.id: f for f in (formats or {}).values()} | side.meta.formats
    if not known:
        raise CaptureError(
            f"{path or 'The capture'} has raw pages and no event formats.",
            "Copy /sys/kernel/tracing/events of that kernel beside it, or name another "
            "capture of the same boot with --formats-from.",
        )
    shape = _shape([data for _, data in pages], side.meta.header_page)
    streams, start = [], 0
    for cpu, data in pages:
        streams.append(
            Stream(cpu, start + shape.skip, max(0, len(data) - shape.skip), shape.layout.size)
        )
        start += len(data)
    buf = pages[0][1] if len(pages) == 1 else b"".join(data for _, data in pages)
    walk = Walk(buf, shape.layout, shape.big_endian, frames.tid_offset(known))
    records = walk.read(streams)
    events, notes = frames.event_frames(
        buf,
        records,
        known,
        side.meta.saved_cmdlines,
        shape.big_endian,
        printk=side.meta.printk,
    )
    return Capture(
        events=events,
        formats={f.key: f for f in known.values() if f.key in events},
        provenance=Provenance(
            path=path,
            container="raw ring-buffer pages",
            kernel_release=side.release,
            nr_cpus=len(pages),
            clock=side.clock,
            byte_order="big" if shape.big_endian else "little",
            long_size=shape.layout.commit_size,
            **side.recording,
            extra={"sub_buffer_size": shape.layout.size, "side_files": side.files},
        ),
        loss=walk.loss_frame(),
        diagnostics=diagnostics_frame([*side.meta.problems, *walk.diagnostics, *notes]),
        kallsyms=side.meta.kallsyms,
    )


def _cpu_of(path: Path) -> int | None:
    """:return: N of ``cpuN`` in the file's name or its directory's."""
    for part in (path.name, path.absolute().parent.name):
        if found := _CPU.findall(part):
            return int(found[-1])
    return None


def _sisters(file: Path) -> int:
    """:return: how many files there are that differ from this one in the CPU number only."""
    if not _CPU.search(file.name):
        return 0
    pattern = re.compile(_CPU.sub(lambda _: r"cpu\d+", re.escape(file.name)))
    return sum(bool(pattern.fullmatch(n)) for n in os.listdir(file.parent) if n != file.name)


def find_side_files(directory: Path) -> Side:
    """Collect formats, header_page, saved_cmdlines and the clock around the pages.

    Event formats are ``events/SYSTEM/NAME/format`` as in tracefs, or
    ``SYSTEM.NAME.format`` in one directory. Unreadable files are left out.

    :param directory: looked at with its subdirectories, then the three above it,
        since pages lie at per_cpu/cpuN/ of an instance
    """
    side = Side()
    for base in (directory, *list(directory.absolute().parents)[:3]):
        files = _side_files(base, inside=base is directory)
        for file in itertools.islice(files, MAX_SIDE_FILES):
            try:
                if file.stat().st_size <= MAX_SIDE_FILE:
                    _add_side_file(side, file, file.read_bytes())
                    side.files.append(os.path.relpath(file, directory))
            except OSError:
                continue
        if side.meta.texts:
            break
    return side


def _side_files(base: Path, inside: bool) -> Iterator[Path]:
    """Yield the files that may help: of the directory itself, or of a tracefs above it."""
    formats = ("*.format", "*/*.format", "events/*/*/format", "*/events/*/*/format")
    for pattern in formats if inside else ("events/*/*/format",):
        yield from sorted(base.glob(pattern))
    for name in _READERS:
        for prefix in ("", "*/", "events/", "*/events/") if inside else ("", "events/"):
            yield from sorted(base.glob(prefix + name))


def _add_side_file(side: Side, file: Path, text: bytes) -> None:
    if file.name == "format" or file.suffix == ".format":
        tracingdata.add_format(side.meta, _system_of(file), text, None)
    else:
        _READERS[file.name](side, text.decode("utf-8", "replace"))


def _system_of(file: Path) -> str:
    """:return: the event's system: tracefs has it in the path, a flat copy in the name."""
    if file.name == "format":
        return file.parent.parent.name
    return file.name.partition(".")[0]


def _read_header_page(side: Side, text: str) -> None:
    side.meta.header_page = side.meta.header_page or text


def _read_cmdlines(side: Side, text: str) -> None:
    side.meta.saved_cmdlines |= tracingdata.parse_cmdlines(text)


def _read_clock(side: Side, text: str) -> None:
    side.clock = text.partition("[")[2].partition("]")[0] or None


def _read_kallsyms(side: Side, text: str) -> None:
    side.meta.kallsyms = text.encode()


def _read_printk(side: Side, text: str) -> None:
    side.meta.printk |= tracingdata.parse_printk(text)


def _read_release(side: Side, text: str) -> None:
    side.release = text.strip()[:256] or None


def _read_recording(side: Side, text: str) -> None:
    """Facts of a known name and type; others are left out."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(facts, dict):
        side.recording = {k: facts[k] for k, t in RECORDING_KEYS.items() if _is_fact(facts, k, t)}


def _is_fact(facts: dict[str, Any], key: str, kind: type) -> bool:
    value: Any = facts.get(key)
    if key == "page_size":
        return value in PAGE_SIZES  # addresses are computed with it
    texts = value if kind is list and isinstance(value, list) else [value]
    return type(value) is kind and all(isinstance(text, str) for text in texts)


_READERS: Final[dict[str, Callable[[Side, str], None]]] = {
    "header_page": _read_header_page,
    "saved_cmdlines": _read_cmdlines,
    "trace_clock": _read_clock,
    "osrelease": _read_release,
    "kallsyms": _read_kallsyms,
    "printk_formats": _read_printk,
    RECORDING: _read_recording,
}


def _shape(files: Sequence[bytes], header_page: str) -> Shape:
    """Tell byte order, page size and long size from header_page and the pages themselves.

    A sub-buffer size that was changed after header_page was copied shows in
    the pages: what makes sense of most records is taken.
    """
    layout = page_layout(header_page)
    # Without header_page a 32-bit kernel shows in its commit words only.
    longs = (layout.commit_size,) if header_page else (8, 4)
    # Little-endian and header_page's own size win a tie.
    sizes = (layout.size, *(s for s in PAGE_SIZES if s != layout.size))
    heads = [data[:SNIFFED] for data in files]
    best, shape = (0, 0), Shape(layout, False)
    for size, long_size, big_endian in itertools.product(sizes, longs, (False, True)):
        skip = max(_meta_page(data, size, big_endian) for data in files)
        trial = PageLayout(size, long_size, layout.data_at if header_page else 8 + long_size)
        score = _score(heads, trial, big_endian, skip)
        if score > best:
            best, shape = score, Shape(trial, big_endian, skip)
    return shape


def _score(
    files: Sequence[bytes], layout: PageLayout, big_endian: bool, skip: int
) -> tuple[int, int]:
    """:return: records in pages that make sense, and minus the pages that do not."""
    records = bad = 0
    for data in files:
        size = max(0, len(data) - skip)
        pages, _, _ = Walk(data, layout, big_endian).scan(Stream(0, skip, size, layout.size))
        records += int(pages[pages[:, 1] == OK, 0].sum())
        bad += int((pages[:, 1] != OK).sum())
    return records, -bad


def _meta_page(data: bytes, size: int, big_endian: bool) -> int:
    """:return: bytes to skip in a dump of the mapped buffer, include/uapi/linux/trace_mmap.h."""
    if len(data) < size + 4 * _META_FIELDS:
        return 0
    words = np.frombuffer(data, ">u4" if big_endian else "<u4", _META_FIELDS)
    meta, struct_size, sub_buffer, number = (int(w) for w in words)
    fits = meta >= 4096 and meta % 4096 == 0 and 32 <= struct_size <= meta and sub_buffer == size
    return meta if fits and number > 0 and len(data) <= meta + number * size else 0


def _diagnose(capture: Capture, code: str, text: str) -> None:
    row = diagnostics_frame([Diagnostic(code, "warning", None, None, text)])
    capture.diagnostics = capture.diagnostics.vstack(row)
