# SPDX-License-Identifier: GPL-2.0-or-later
"""A child process that cleans up when the recorder dies without doing so itself.

It waits at a pipe whose other end only the recorder holds: the kernel closes that end
however the recorder ends, by SIGKILL too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

_DONE = b"done\n"
_GRACE = 10.0  # seconds that a recording program gets to finish its file


class Watchdog:
    """Started before the first change to the system.

    Start it before there are threads: it is a fork of the recorder.

    :param clean: removes what the recorder set; must not mind being called late or twice
    """

    def __init__(self, clean: Callable[[], None]) -> None:
        self._read, self._write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._write)
                _watch(self._read, clean)
            finally:
                os._exit(0)
        os.close(self._read)

    def tell(self, pid: int) -> None:
        """Name a recording program that must end before the probes can be removed."""
        os.write(self._write, f"{pid}\n".encode())

    def dismiss(self) -> None:
        """All is removed: let the child go."""
        with suppress(OSError):
            os.write(self._write, _DONE)
        os.close(self._write)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _watch(fd: int, clean: Callable[[], None]) -> None:
    os.setsid()  # ^C is for the recorder
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _let_go_of_terminal()
    told = b""
    while piece := os.read(fd, 4096):
        told += piece
    if told.endswith(_DONE):
        return
    _stop([int(pid) for pid in told.split()])
    clean()


def _let_go_of_terminal() -> None:
    """A reader of the recorder's output must see it end."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def _stop(pids: list[int]) -> None:
    """Ask recording programs to finish, and wait: an event in use cannot be removed."""
    until = time.monotonic() + _GRACE
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    while time.monotonic() < until and any(map(_runs, pids)):
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
