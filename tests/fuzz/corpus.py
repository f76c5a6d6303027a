# SPDX-License-Identifier: GPL-2.0-or-later
"""The captures that are damaged, and which of their bytes are event data."""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.conftest import FIXTURES, content
from tracer.tracedat.reader import open_file


@dataclass(frozen=True)
class Subject:
    """One capture of the corpus.

    :ivar hot: its headers and metadata
    :ivar plain: ranges in which each byte belongs to one event and to nothing else
    """

    name: str
    data: bytes
    hot: range
    plain: tuple[range, ...]

    @property
    def is_perf(self) -> bool:
        return ".perf.data" in self.name

    @property
    def grain(self) -> int:
        """Bytes whose multiples can be missing unnoticed; 0 where the file says how much it has."""
        return {"txt": 1, "trace_pipe_raw": 4096}.get(
            self.name.rpartition(".")[2], 8 if ".pipe." in self.name else 0
        )


FORMATS: Final = (
    "pageout.zstd.perf.data", "pageout.pipe.perf.data", "pageout.pipe.zstd.perf.data",
    "pageout.lost.perf.data", "pageout.callgraph.perf.data", "pageout.cpuclock.perf.data",
    "pageout.v6.dat", "pageout.v7.zlib.dat", "pageout.v7.zstd.dat", "pageout.function.dat",
    "pageout.fgraph.dat", "pageout.ftrace.txt", "pageout.perf-script.txt",
    "pageout.cpu0.trace_pipe_raw",
)  # fmt: skip
NAMES: Final = (*(f"formats/{n}" for n in FORMATS), "linux-7.3/zap-64k.perf.data",
                "formats/pageout.callgraph.perf.data.zst")  # fmt: skip


@cache
def subject(name: str) -> Subject:
    """:return: a capture by its fixture name; ``.zst`` in the name keeps it wrapped."""
    data = (FIXTURES / name).read_bytes() if name.endswith(".zst") else content(name)
    if data.startswith(b"PERFILE2"):
        return _perf(name, data)
    if data.startswith(b"\x17\x08\x44tracing"):
        return _trace_dat(name, data)
    if name.endswith("trace_pipe_raw"):
        return Subject(name, data, range(64), (range(len(data)),))
    text = () if name.endswith(".zst") else (range(len(data)),)
    return Subject(name, data, range(min(2048, len(data))), text)


def _perf(name: str, data: bytes) -> Subject:
    (size,) = struct.unpack_from("<Q", data, 8)
    if size == 16 or "zstd" in name:
        return Subject(name, data, range(16384), ())
    offset, length = struct.unpack_from("<QQ", data, 40)
    if len(data) - offset - length > offset:
        hot = range(offset + length, len(data))
    else:
        hot = range(offset)
    return Subject(name, data, hot, (range(offset, offset + length),))


def _trace_dat(name: str, data: bytes) -> Subject:
    contents, _ = open_file(data)
    cpus = [c for b in contents.buffers for c in b.cpus if c.size]
    first = min(c.offset for c in cpus)
    hot = range(first)
    if contents.codec != "none":
        return Subject(name, data, hot, ())
    return Subject(name, data, hot, tuple(range(c.offset, c.offset + c.size) for c in cpus))


def lay_out(directory: Path) -> None:
    """Put what a reader looks for beside raw pages into a directory."""
    target = directory / "raw-format-files"
    if not target.exists():
        shutil.copytree(FIXTURES / "formats/raw-format-files", target)
