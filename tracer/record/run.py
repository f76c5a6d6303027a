# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmtrace record``: set the probes, record, and remove the probes whatever happens."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tracer.enums import from_btf
from tracer.errors import MmtraceError, UsageError
from tracer.files import refuse_existing
from tracer.kernelfiles import RUNNING_BTF, load_kernel
from tracer.probes import MORE, OK, SPECS, STATIC, ProbeDefinition, resolve
from tracer.record import preflight
from tracer.record.pages import PageRecorder
from tracer.record.tracefs import PREFIX, Probes, Tracefs, lost_events
from tracer.record.watchdog import Watchdog

ENUMS: Final = "kernel.enums.json"
DEFAULT_NAME: Final = {
    preflight.PERF: "perf.data",
    preflight.TRACE_CMD: "trace.dat",
    preflight.TRACEFS: "capture.raw",
}
_POLL: Final = 0.1  # seconds
_PATIENCE: Final = 0.5  # seconds
_GRACE: Final = 10.0  # seconds that an interrupted command gets to end


@dataclass(frozen=True)
class Request:
    """What to record.

    The whole system is recorded in every case: reclaim and aging of a process
    run in other tasks. Command, pid and duration say only for how long.

    :ivar tool: ``perf``, ``trace-cmd`` or ``tracefs``
    :ivar pid: record until this process ends
    :ivar duration: seconds at most
    :ivar buffer: KiB of each CPU's buffer, None to choose
    :ivar everything: until interrupted
    """

    out: Path | None = None
    tool: str = preflight.TRACEFS
    command: Sequence[str] = ()
    pid: int | None = None
    duration: float | None = None
    everything: bool = False
    buffer: int | None = None
    more: bool = False

    @property
    def path(self) -> Path:
        """Capture to write."""
        return self.out or Path(DEFAULT_NAME[self.tool])


@dataclass
class Outcome:
    """What became of a recording.

    :ivar lost: events that buffers lost, None when only the capture tells
    :ivar missed: hits that a probe could not record
    :ivar status: of the command, None without one
    :ivar refused: probe lines that the kernel refused, with its reason
    :ivar left: events that could not be removed
    """

    path: Path
    probes: int = 0
    events: list[str] = field(default_factory=list)
    seconds: float = 0.0
    size: int = 0
    lost: int | None = None
    missed: int = 0
    status: int | None = None
    interrupted: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(request: Request) -> None:
    """:raises UsageError: when the request says not what or for how long to record."""
    given = [bool(request.command), request.pid is not None]
    if sum(given) > 1:
        raise UsageError("A command and --pid exclude each other.")
    if not any(given) and request.duration is None and not request.everything:
        raise UsageError(
            "Nothing says what to record.", "Give -- COMMAND, --pid, --duration SECONDS or -a."
        )
    if request.pid is not None and not Path(f"/proc/{request.pid}").exists():
        raise UsageError(f"There is no process {request.pid}.")
    refuse_existing(request.path, False)


def record(request: Request) -> Outcome:
    """Record on the running kernel.

    :raises MmtraceError: when something is missing, before anything is changed
    """
    check(request)
    fs = preflight.usable_tracefs()
    if request.tool != preflight.TRACEFS:
        preflight.program(request.tool)
    btf, functions = load_kernel()
    specs = (*SPECS, *MORE) if request.more else SPECS
    found = [d for d in resolve(btf, functions, specs) if d.status == OK]
    # Before the recording: a killed recorder writes nothing more.
    note = write_enums(request.path, from_btf(btf, RUNNING_BTF.name, platform.release()).dumps())
    outcome = record_with(request, fs, found)
    outcome.notes += [note] if note else []
    return outcome


def write_enums(capture: Path, text: str) -> str:
    """The kernel's numbers beside the capture, where ingest looks. :return: why not, or ""."""
    path = capture.absolute().parent / ENUMS
    try:
        if path.exists() and path.read_text() != text:
            return f"{path} is of another kernel and stays; ingest with --btf {RUNNING_BTF}."
        path.write_text(text)
    except OSError as e:
        raise MmtraceError(f"Cannot write {path}: {e.strerror}.") from None
    return ""


def record_with(request: Request, fs: Tracefs, found: Sequence[ProbeDefinition]) -> Outcome:
    """Record with given probes.

    :param fs: tracing directory
    :param found: probes to set, none for static events only
    """
    cpus = os.cpu_count() or 1
    buffer = preflight.buffer_kb(request.buffer, preflight.available_kb(), cpus)
    name = f"{PREFIX}{os.getpid()}"
    probes = Probes(fs, name)
    pages = PageRecorder(fs, name, request.path) if request.tool == preflight.TRACEFS else None

    def clean() -> None:
        if pages is not None:
            pages.salvage()
            pages.remove()
        probes.remove()

    watchdog = Watchdog(clean)
    outcome = Outcome(request.path)
    try:
        with _terminating():
            _set(probes, found, outcome)
            events = [f"{name}:{e}" for e in probes.defined()] + _static(fs)
            outcome.events = events
            if pages is not None:
                _record_pages(request, pages, buffer, events, outcome)
            else:
                _record_program(request, watchdog, buffer, events, outcome)
    finally:
        if pages is not None:
            pages.finish()
            pages.remove()
        outcome.missed = probes.missed()
        outcome.left = probes.remove()
        watchdog.dismiss()
    outcome.size = _size(request.path)
    return outcome


def _set(probes: Probes, found: Sequence[ProbeDefinition], outcome: Outcome) -> None:
    outcome.probes = probes.define(d.line(probes.group) for d in found)
    outcome.refused = probes.refused
    if found and not outcome.probes:
        reason = next(iter(probes.refused.values()))
        raise MmtraceError(
            f"The kernel refuses every probe: {reason}.",
            "Run mmtrace doctor, and compare mmtrace probes with /proc/kallsyms.",
        )


def _static(fs: Tracefs) -> list[str]:
    return [e for e in STATIC if fs.exists(f"events/{e.replace(':', '/')}/enable")]


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM and SIGHUP end a recording as ^C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- with tracefs alone ---------------------------------------------------------------


def _record_pages(
    request: Request, pages: PageRecorder, buffer: int, events: Sequence[str], outcome: Outcome
) -> None:
    pages.prepare(buffer, events)
    pages.start()
    began = time.monotonic()
    try:
        _wait(request, outcome, lambda: pages.error is not None)
    except KeyboardInterrupt:
        outcome.interrupted = True
    outcome.seconds = time.monotonic() - began
    pages.finish()
    outcome.lost = lost_events(pages.fs, pages.instance)
    if pages.error is not None:
        outcome.notes.append(f"Recording ended early: {pages.error.strerror}.")


def _wait(request: Request, outcome: Outcome, failed: Callable[[], bool]) -> None:
    """Until the command or process ends, time is up, or the pages cannot be written."""
    until = None if request.duration is None else time.monotonic() + request.duration
    child = _spawn(request.command) if request.command else None
    try:
        while (until is None or time.monotonic() < until) and not failed():
            if child is not None and child.poll() is not None:
                break
            if request.pid is not None and not Path(f"/proc/{request.pid}").exists():
                break
            time.sleep(_POLL)
    finally:
        if child is not None:
            outcome.status = _end(child)


def _spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # After vfork() the child runs in the recorder's address space until it executes, and
    # nothing in the trace says that its own one is new: ingest would take it for an old one.
    subprocess._USE_VFORK = False  # type: ignore[misc]  # documented, for fork()
    try:
        return subprocess.Popen(list(command))
    except OSError as e:
        raise MmtraceError(f"Cannot run {command[0]}: {e.strerror}.") from None


def _end(child: subprocess.Popen[bytes]) -> int:
    """Wait for a child, asking it to end when it still runs; ^C has asked it already."""
    with suppress(subprocess.TimeoutExpired):
        return child.wait(_PATIENCE)
    if child.poll() is None:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)
    try:
        return child.wait(_GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


# --- with perf or trace-cmd ------------------------------------------------------------


def arguments(request: Request, buffer: int, events: Sequence[str]) -> list[str]:
    """The recording program's command line."""
    out, tool = str(request.path), request.tool
    chosen = [word for event in events for word in ("-e", event)]
    if tool == preflight.PERF:
        # perf takes a power of two.
        words = ["record", "-q", "-a", "-m", f"{1 << (buffer.bit_length() - 1)}K", "-o", out]
    else:
        words = ["record", "-q", "-b", str(buffer), "-o", out]
    tail = list(request.command) or ["sleep", _seconds(request)]
    return [preflight.program(tool), *words, *chosen, "--", *tail]


def _seconds(request: Request) -> str:
    return "infinity" if request.duration is None else f"{request.duration:g}"


def _record_program(
    request: Request, watchdog: Watchdog, buffer: int, events: Sequence[str], outcome: Outcome
) -> None:
    began = time.monotonic()
    child = _spawn(arguments(request, buffer, events))
    watchdog.tell(child.pid)
    try:
        _follow(request, child)
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        outcome.status = _end(child)
    outcome.seconds = time.monotonic() - began
    if not request.path.exists():
        raise MmtraceError(
            f"{request.tool} ended with status {outcome.status} and wrote no capture.",
            "Its message is above; --with tracefs needs no other program.",
        )


def _follow(request: Request, child: subprocess.Popen[bytes]) -> None:
    """Until the program ends by itself, or its command has had its time."""
    until = None if request.duration is None else time.monotonic() + request.duration
    while child.poll() is None:
        over = request.pid is not None and not Path(f"/proc/{request.pid}").exists()
        if over or (request.command and until is not None and time.monotonic() > until):
            return
        time.sleep(_POLL)


def _size(path: Path) -> int:
    """:return: bytes of a file or of all files in a directory."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size if path.exists() else 0
