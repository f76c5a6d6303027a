# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's tracing directory, and one recording's private part of it.

Files: Documentation/trace/ftrace.rst, kprobetrace.rst.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.errors import MmtraceError

ROOTS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
PREFIX: Final = "mmtrace_"  # of groups and instances; the recorder's process id follows
BUSY_SECONDS: Final = 5.0  # perf may hold an event a moment longer than it lives
_LOST: Final = ("overrun", "dropped events", "commit overrun")  # ring_buffer.c counters


class Tracefs:
    """File operations below one tracing directory.

    :param root: where tracefs is mounted
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> str:
        """:return: a file's text, "" when it is not there or not readable."""
        try:
            return (self.root / name).read_text("utf-8", "replace")
        except OSError:
            return ""

    def write(self, name: str, text: str) -> None:
        """Write a control file in one piece. :raises OSError: what the kernel answers."""
        self._put(name, text, os.O_WRONLY | os.O_TRUNC)

    def append(self, name: str, text: str) -> None:
        """Add to a control file: truncating kprobe_events would remove others' probes."""
        self._put(name, text, os.O_WRONLY | os.O_APPEND)

    def _put(self, name: str, text: str, flags: int) -> None:
        fd = os.open(self.root / name, flags)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def exists(self, name: str) -> bool:
        """:return: whether a file or directory is there."""
        return (self.root / name).exists()

    def make_instance(self, name: str) -> None:
        """:raises OSError: when the kernel refuses."""
        (self.root / "instances" / name).mkdir()

    def remove_instance(self, name: str) -> None:
        """:raises OSError: while a file of it is open or an event is in use."""
        (self.root / "instances" / name).rmdir()


def find_tracefs() -> Tracefs:
    """:raises MmtraceError: when tracefs is not mounted or not readable, with the remedy."""
    for root in ROOTS:
        try:
            if (root / "events").is_dir():
                return Tracefs(root)
        except PermissionError:
            raise MmtraceError(
                f"{root} may not be read.", "Record as root: sudo mmtrace record ..."
            ) from None
    if os.geteuid() != 0 and ROOTS[0].is_dir():
        raise MmtraceError(
            f"{ROOTS[0]} may not be read.", "Record as root: sudo mmtrace record ..."
        )
    raise MmtraceError("tracefs is not mounted.", f"As root: mount -t tracefs nodev {ROOTS[0]}")


class Probes:
    """Kprobe events of one recording, in a group of their own.

    :param fs: tracing directory
    :param group: group of the events
    """

    def __init__(self, fs: Tracefs, group: str) -> None:
        self.fs = fs
        self.group = group
        self.refused: dict[str, str] = {}

    def define(self, lines: Iterable[str]) -> int:
        """Set probes; a line that the kernel refuses goes to :attr:`refused`.

        :return: how many were set
        """
        done = 0
        for line in lines:
            try:
                self.fs.append("kprobe_events", line + "\n")
                done += 1
            except OSError as e:
                self.refused[line] = _reason(self.fs, e)
        return done

    def defined(self) -> list[str]:
        """:return: events of the group that the kernel has, by its own list."""
        found = re.findall(
            rf"^[pr]\d*:{re.escape(self.group)}/(\S+)", self.fs.read("kprobe_events"), re.M
        )
        return list(dict.fromkeys(found))

    def remove(self) -> list[str]:
        """Remove the group's events, waiting for whoever still uses one.

        :return: events that are still there
        """
        until = time.monotonic() + BUSY_SECONDS
        while left := self.defined():
            for event in left:
                try:
                    self.fs.append("kprobe_events", f"-:{self.group}/{event}\n")
                except OSError:
                    continue
            if time.monotonic() > until:
                return self.defined()
            if self.defined():
                time.sleep(0.05)
        return []

    def missed(self) -> int:
        """:return: hits that the kernel could not record, by kprobe_profile."""
        rows = re.findall(r"^\s*(\S+)\s+(\d+)\s+(\d+)\s*$", self.fs.read("kprobe_profile"), re.M)
        mine = set(self.defined())
        return sum(int(miss) for name, _, miss in rows if name in mine)


def _reason(fs: Tracefs, error: OSError) -> str:
    """The last complaint of error_log, which says more than the error number."""
    found = re.findall(r"error: (.+)", fs.read("error_log"))
    return f"{error.strerror}: {found[-1]}" if found else str(error.strerror or error)


def lost_events(fs: Tracefs, instance: str) -> int:
    """:return: events that the instance's buffers lost, by per_cpu/cpuN/stats."""
    total = 0
    for stats in sorted((fs.root / "instances" / instance / "per_cpu").glob("cpu*/stats")):
        rows = dict(re.findall(r"^([a-z ]+): (\d+)", stats.read_text(), re.M))
        total += sum(int(rows.get(name, 0)) for name in _LOST)
    return total


def stale(fs: Tracefs) -> list[str]:
    """:return: groups and instances of recorders that no longer run."""
    names = set(re.findall(rf":({PREFIX}\d+)/", fs.read("kprobe_events")))
    with suppress(OSError):
        names |= {p.name for p in (fs.root / "instances").iterdir()}
    found = [m for n in names if (m := re.fullmatch(rf"{PREFIX}(\d+)", n))]
    return sorted(m[0] for m in found if not Path(f"/proc/{m[1]}").exists())
