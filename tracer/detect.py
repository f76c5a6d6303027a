# SPDX-License-Identifier: GPL-2.0-or-later
"""What a file is, by its content; names decide nothing."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from tracer.compression import wrapper
from tracer.errors import CaptureError
from tracer.store import is_store

# Containers mmtrace reads.
PERF: Final = "perf.data"
PERF_DIR: Final = "perf.data directory"
TRACE_DAT: Final = "trace.dat"
RAW: Final = "raw ring-buffer pages"
RAW_DIR: Final = "raw ring-buffer directory"
TEXT: Final = "text"

HEAD: Final = 1 << 16  # bytes that detection looks at

# (offset, bytes, kind). perf_header in tools/perf/util/header.c; trace-cmd.dat.5.
_CAPTURES: Final = (
    (0, b"PERFILE2", PERF),
    (0, b"2ELIFREP", PERF),
    (0, b"PERFFILE", PERF),
    (0, b"ELIFFREP", PERF),
    (0, b"\x17\x08\x44tracing", TRACE_DAT),
)
# (offset, bytes, what it is, what to do)
_OTHERS: Final = (
    (0, b"\x7fELF", "an ELF file", "A kernel image or its BTF goes with --btf."),
    (0, b"\x9f\xeb\x01", "BTF", "It goes with --btf, beside the capture."),
    (0, b"\xeb\x9f\x01", "BTF", "It goes with --btf, beside the capture."),
    (0, b"PAR1", "a parquet file", "Name the store directory it lies in."),
    (0, b"PK\x03\x04", "a zip archive", "Unpack it and name the capture inside."),
    (0, b"BZh", "a bzip2 file", "Unpack it with bunzip2 first."),
    (257, b"ustar", "a tar archive", "Unpack it and name the capture inside."),
    (0, b"070701", "a cpio archive", "Unpack it and name the capture inside."),
    (0, b"SQLite format 3", "an SQLite database", "Name the perf.data it was made from."),
    (0, b"version https://git-lfs", "a Git LFS pointer", "Fetch the file with: git lfs pull"),
    (0, b"<!DOCTYPE html", "an HTML page", "Name the capture it was made from."),
    (0, b"<html", "an HTML page", "Name the capture it was made from."),
)
READS: Final = (
    "mmtrace reads perf.data (file, pipe, directory), trace.dat, trace_pipe_raw pages, "
    "and the text of tracefs, trace-cmd report and perf script."
)


def kind_of(head: bytes, size: int, name: str) -> str:
    """Tell which capture container some bytes are.

    :param head: the first :data:`HEAD` bytes, or all there are
    :param size: bytes in the whole file
    :param name: its name, for messages
    :return: one of the container constants of this module
    :raises CaptureError: when it is none of them, saying what it is instead
    """
    if not size:
        raise CaptureError(f"{name} is empty.", "Was the recorder still running?")
    for at, magic, kind in _CAPTURES:
        if head.startswith(magic, at):
            return kind
    for at, magic, what, remedy in _OTHERS:
        if head.startswith(magic, at):
            raise CaptureError(f"{name} is {what}, not a capture.", remedy)
    if _is_ring_buffer(head, size):
        return RAW
    if _is_text(head):
        if head.lstrip()[:1] in b"{[":
            raise CaptureError(f"{name} is JSON, not a capture.", READS)
        return TEXT
    raise CaptureError(f"{name} is no capture that mmtrace knows.", READS)


def kind_of_directory(path: Path) -> str:
    """Tell which kind of capture directory this is.

    :raises CaptureError: when it is none, naming captures found inside
    """
    if is_store(path):
        raise CaptureError(
            f"{path} is an mmtrace store already.", f"Replay it with: mmtrace replay {path}"
        )
    names = sorted(p.name for p in path.iterdir())
    if "data" in names and _starts(path / "data", b"PERFILE2", b"2ELIFREP"):
        return PERF_DIR
    if "per_cpu" in names or any("trace_pipe_raw" in n for n in names):
        return RAW_DIR
    inside = [n for n in names if is_capture_file(path / n)]
    if inside:
        raise CaptureError(
            f"{path} is a directory.", f"Name one of the captures in it, such as {inside[0]}."
        )
    raise CaptureError(f"{path} is a directory without a capture in it.", READS)


def is_capture_file(path: Path) -> bool:
    """:return: whether a regular file starts like a capture or like a compressed file."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as f:
            head = f.read(64)
    except OSError:
        return False
    return bool(wrapper(head)) or any(head.startswith(m, at) for at, m, _ in _CAPTURES)


def _starts(path: Path, *magics: bytes) -> bool:
    try:
        with open(path, "rb") as f:
            return f.read(8) in magics
    except OSError:
        return False


def _is_ring_buffer(head: bytes, size: int) -> bool:
    """Pages have no magic: each starts with a time stamp and a length that fits the page.

    See struct buffer_data_page in kernel/trace/ring_buffer.c. Bits 30 and 31 of
    the length say that events were lost, and sign-extend into its upper half.
    """
    return any(
        size % page == 0 and _are_pages(head, order, page)
        for order in "<>"
        for page in (4096, 8192, 16384, 32768, 65536)
    )


def _are_pages(head: bytes, order: str, page: int) -> bool:
    starts = range(0, min(len(head) - 15, 4 * page), page)
    for i, at in enumerate(starts):
        stamp, commit = struct.unpack_from(order + "QQ", head, at)
        length, flags, upper = commit & 0x7FFFFFF, commit >> 27 & 0x7, commit >> 32
        if length > page - 16 or flags or upper not in (0, 0xFFFFFFFF):
            return False
        if i == 0 and (not stamp or length < 4):
            return False
    return bool(starts)


def _is_text(head: bytes) -> bool:
    """No NUL, hardly any control bytes; bytes that are not UTF-8 may occur in a comm."""
    controls = sum(head.count(bytes((c,))) for c in range(32) if c not in b"\t\n\r\x1b")
    return b"\0" not in head and controls * 100 <= len(head)
