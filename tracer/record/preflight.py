# SPDX-License-Identifier: GPL-2.0-or-later
"""What must be true before a recording starts; each refusal says what to do about it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from tracer.errors import MmtraceError, UsageError
from tracer.record.tracefs import Tracefs, find_tracefs

PERF: Final = "perf"
TRACE_CMD: Final = "trace-cmd"
TRACEFS: Final = "tracefs"
DEFAULT_KB: Final = 16 << 10  # of each CPU's buffer, when memory allows
MIN_KB: Final = 64
_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30}
_PACKAGES: Final = {PERF: "linux-perf", TRACE_CMD: "trace-cmd"}
LOCKDOWN: Final = Path("/sys/kernel/security/lockdown")


def parse_size(text: str) -> int:
    """``16M`` to KiB. :raises UsageError: when it is no size, or too small."""
    found = re.fullmatch(r"(\d{1,12})([kmg]?)(?:i?b)?", text.strip().lower())
    if not found:
        raise UsageError(f"--buffer {text} is no size.", "Write it as 512K, 16M or 1G.")
    kb = (int(found[1]) << _UNITS[found[2]]) >> 10
    if kb < MIN_KB:
        raise UsageError(f"--buffer {text} is less than {MIN_KB}K.", "Bytes need no unit.")
    return kb


def available_kb(meminfo: str | None = None) -> int:
    """:return: MemAvailable in KiB, 0 when unknown."""
    if meminfo is None:
        meminfo = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.M)
    return int(found[1]) if found else 0


def buffer_kb(asked: int | None, available: int, cpus: int) -> int:
    """Size of each CPU's buffer.

    :param asked: KiB, None for as much as does no harm
    :param available: KiB of memory
    :return: KiB
    :raises MmtraceError: when the buffers would take more than half of the memory
    """
    room = available // 2 // cpus
    if asked is None:
        asked = max(MIN_KB, min(DEFAULT_KB, room // 2))
    if available and asked > room:
        raise MmtraceError(
            f"{cpus} buffers of {asked >> 10} MiB need more than half of the "
            f"{available >> 10} MiB of memory available.",
            f"Take at most --buffer {max(room, MIN_KB)}K.",
        )
    return asked


def usable_tracefs(need_kprobes: bool = True) -> Tracefs:
    """The tracing directory, when this process may set probes in it.

    :raises MmtraceError: with the reason and the remedy
    """
    fs = find_tracefs()
    if lockdown() == "confidentiality":
        raise MmtraceError(
            "Kernel lockdown (confidentiality) forbids kprobes.",
            "Boot with lockdown=integrity, or without Secure Boot.",
        )
    if not fs.exists("kprobe_events"):
        if not need_kprobes:
            return fs
        raise MmtraceError(
            "This kernel has no kprobe events (CONFIG_KPROBE_EVENTS).",
            "Record on a distribution's kernel, or in a virtual machine with one.",
        )
    if not os.access(fs.root / "kprobe_events", os.W_OK):
        raise MmtraceError(
            f"{fs.root}/kprobe_events may not be written.",
            "Record as root: sudo mmtrace record ...",
        )
    if fs.exists("../debug/kprobes/enabled") and fs.read("../debug/kprobes/enabled")[:1] == "0":
        raise MmtraceError(
            "Kprobes are switched off.", "As root: echo 1 > /sys/kernel/debug/kprobes/enabled"
        )
    return fs


def lockdown() -> str:
    """:return: the kernel's lockdown mode, ``none`` when it has none."""
    try:
        found = re.search(r"\[(\w+)\]", LOCKDOWN.read_text())
    except OSError:
        found = None
    return found[1] if found else "none"


def program(name: str) -> str:
    """:return: path of perf or trace-cmd. :raises MmtraceError: when it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise MmtraceError(
            f"{name} is not installed.",
            f"Install {_PACKAGES[name]}, or record without it: --with tracefs",
        )
    return path
