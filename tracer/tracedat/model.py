# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trace.dat says about itself, the same for both versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tracer.decode import Diagnostic
from tracer.tracingdata import TracingData

# Option ids, trace-cmd.dat.v7(5). Version 6 has those below 15, BUFFER with other contents.
DONE: Final = 0
DATE: Final = 1
CPUSTAT: Final = 2
BUFFER: Final = 3
TRACECLOCK: Final = 4
UNAME: Final = 5
OFFSET: Final = 7
CPUCOUNT: Final = 8
VERSION: Final = 9
TRACEID: Final = 11
TIME_SHIFT: Final = 12
TSC2NSEC: Final = 14
HEADER_INFO: Final = 16
FTRACE_EVENTS: Final = 17
EVENT_FORMATS: Final = 18
KALLSYMS: Final = 19
PRINTK: Final = 20
CMDLINES: Final = 21
BUFFER_TEXT: Final = 22
KNOWN_OPTIONS: Final = frozenset(range(26))


@dataclass(frozen=True)
class CpuData:
    """Where one CPU's pages lie in the file, bytes."""

    cpu: int
    offset: int
    size: int


@dataclass
class Buffer:
    """One trace instance; ``name`` is empty for the top one.

    :ivar text: the tracefs text, in a file that has no binary pages
    """

    name: str
    clock: str = ""
    page_size: int = 0
    cpus: list[CpuData] = field(default_factory=list)
    compressed: bool = False
    text: bytes | None = None


@dataclass
class Contents:
    """A trace.dat without its events.

    :ivar options: option id to the bytes of each such option, in file order
    :ivar codec: ``none``, ``zlib`` or ``zstd``
    """

    meta: TracingData
    options: dict[int, list[bytes]] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    codec: str = "none"
    nr_cpus: int | None = None
    problems: list[Diagnostic] = field(default_factory=list)

    def text_option(self, ident: int) -> str:
        """:return: the first option of that id as text without its NUL, or ""."""
        found = self.options.get(ident)
        return found[0].partition(b"\0")[0].decode("utf-8", "replace").strip() if found else ""
