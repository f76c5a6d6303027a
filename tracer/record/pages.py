# SPDX-License-Identifier: GPL-2.0-or-later
"""A tracefs instance to a directory of raw pages, as :mod:`tracer.rawpages` reads them.

Event formats are written before the first page: a capture whose recorder was
killed can be read as far as it goes.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.errors import MmtraceError
from tracer.record import RECORDING
from tracer.record.tracefs import BUSY_SECONDS, Tracefs
from tracer.versions import versions

INTERVAL: Final = 0.05  # seconds between looks at the buffers
CLOCKS: Final = ("mono", "global", "local")  # in order of preference; one clock for all CPUs
_SIDE: Final = ("saved_cmdlines", "printk_formats")


class PageRecorder:
    """Reads every CPU's buffer of one instance into files.

    :param fs: tracing directory
    :param instance: name of the instance, which is made here
    :param out: directory to write, which must not exist
    """

    def __init__(self, fs: Tracefs, instance: str, out: Path) -> None:
        self.fs = fs
        self.instance = instance
        self.out = out
        self.bytes = 0
        self.error: OSError | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._files: list[tuple[int, int]] = []  # (pipe, file)

    @property
    def _at(self) -> str:
        return f"instances/{self.instance}"

    def prepare(self, buffer_kb: int, events: Sequence[str]) -> None:
        """Make the instance, write what explains its pages, and open its buffers.

        :param buffer_kb: size of each CPU's buffer, KiB
        :param events: ``group:event``, enabled later by :meth:`start`
        :raises MmtraceError: when the kernel has no memory for the buffers
        :raises OSError: when tracefs or the file system refuse
        """
        self.events = list(events)
        self.fs.make_instance(self.instance)
        self._set_up(buffer_kb)
        self.out.mkdir()
        for event in (*self.events, "ftrace:print"):
            self._copy_format(event.replace(":", "/"))
        self._copy("events/header_page")
        (self.out / RECORDING).write_text(json.dumps(_facts(self.events), indent=1) + "\n")
        self._copy("trace_clock", f"{self._at}/trace_clock")
        (self.out / "osrelease").write_text(platform.release() + "\n")
        self._open_all()

    def _set_up(self, buffer_kb: int) -> None:
        self.fs.write(f"{self._at}/tracing_on", "0")
        try:
            self.fs.write(f"{self._at}/buffer_size_kb", str(buffer_kb))
        except OSError as e:
            raise MmtraceError(
                f"The kernel refuses buffers of {buffer_kb} KiB for each CPU ({e.strerror}).",
                "Take smaller ones: --buffer 1M",
            ) from None
        for clock in CLOCKS:
            with suppress(OSError):
                self.fs.write(f"{self._at}/trace_clock", clock)
                break

    def _copy_format(self, event: str) -> None:
        self._copy(f"events/{event}/format")

    def _copy(self, name: str, source: str | None = None) -> None:
        text = self.fs.read(source or name)
        if text:
            target = self.out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    def _sub_buffer(self) -> int:
        """:return: bytes of one page of the buffer: header and data."""
        found = re.search(r"data;\s*offset:(\d+);\s*size:(\d+)", self.fs.read("events/header_page"))
        return int(found[1]) + int(found[2]) if found else 4096

    def _open_all(self) -> None:
        self.page = self._sub_buffer()
        for directory in sorted((self.fs.root / self._at / "per_cpu").glob("cpu*")):
            target = self.out / "per_cpu" / directory.name / "trace_pipe_raw"
            target.parent.mkdir(parents=True, exist_ok=True)
            pipe = os.open(directory / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
            file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            self._files.append((pipe, file))

    def start(self) -> None:
        """Enable the events and begin to read. :raises OSError: when an event is refused."""
        for event in self.events:
            self.fs.write(f"{self._at}/events/{event.replace(':', '/')}/enable", "1")
        self.fs.write(f"{self._at}/tracing_on", "1")
        self._thread = threading.Thread(target=self._read_on, daemon=True)
        self._thread.start()

    def _read_on(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.drain()
            if self.error:
                return

    def drain(self) -> None:
        """Move what the buffers hold to the files; a full disk ends it and is kept."""
        try:
            for pipe, file in self._files:
                while piece := _page(pipe, self.page):
                    # Pages follow one another at a fixed distance.
                    os.write(file, piece.ljust(self.page, b"\0"))
                    self.bytes += self.page
        except OSError as e:
            self.error = e

    def finish(self) -> None:
        """Stop, read the rest, and write task names. May be called again."""
        with suppress(OSError):
            self.fs.write(f"{self._at}/tracing_on", "0")
            self.fs.write(f"{self._at}/events/enable", "0")
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self.error is None:
            self.drain()
        for pipe, file in self._files:
            os.close(pipe)
            os.close(file)
        self._files = []
        if self.out.is_dir():
            for name in _SIDE:
                self._copy(name)

    def salvage(self) -> None:
        """What :meth:`finish` does, in another process, after the recorder was killed."""
        if not (self.out.is_dir() and self.fs.exists(self._at)):
            return
        with suppress(OSError):
            self._open_all()
            for _, file in self._files:
                os.ftruncate(file, os.fstat(file).st_size // self.page * self.page)
        self.finish()

    def remove(self) -> None:
        """Remove the instance; nothing happens when it is gone.

        The kernel refuses while a file of it is open, and a killed recorder's files are
        closed one after the other: the watchdog may be here before the last.
        """
        until = time.monotonic() + BUSY_SECONDS
        while self.fs.exists(self._at):
            try:
                self.fs.remove_instance(self.instance)
            except OSError:
                if time.monotonic() > until:
                    return
                time.sleep(0.05)


def _facts(events: Sequence[str]) -> dict[str, object]:
    """What the pages do not say, and what no hit of an event means."""
    return {
        "arch": platform.machine(),
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "hostname": platform.node(),
        "recorder": f"mmtrace {versions()['mmtrace']}",
        "cmdline": sys.argv,
        "probe_set": list(events),
    }


def _page(pipe: int, size: int) -> bytes:
    """One page, b"" when there is none yet."""
    try:
        return os.read(pipe, size)
    except BlockingIOError:
        return b""
