# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine can record and replay, what is missing, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from tracer.errors import MmtraceError
from tracer.kernelfiles import RUNNING_BTF, load_kernel
from tracer.output import size
from tracer.probes import OK, OTHER_ARCH, kernel_of, resolve
from tracer.record import preflight
from tracer.record.tracefs import find_tracefs, stale

_INGEST_KB: Final = 2 << 20  # replay of a large capture; smaller ones need far less


class Finding(NamedTuple):
    """One thing that was looked at.

    :ivar good: whether it is as it should be
    :ivar what: what was looked at
    :ivar state: how it is
    :ivar remedy: what to do, "" when nothing is needed
    """

    good: bool
    what: str
    state: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything; nothing is changed and nothing raises."""
    out: list[Finding] = []
    for look in _LOOKS:
        try:
            out += look()
        except MmtraceError as e:
            name = look.__name__.strip("_").replace("_", " ")
            out.append(Finding(False, name, e.message, e.hint))
    return out


def can_record(findings: list[Finding]) -> bool:
    """:return: whether ``mmtrace record`` would start."""
    needed = {"tracefs", "kprobes", "kernel BTF", "probes"}
    return all(f.good for f in findings if f.what in needed)


def _kernel() -> Iterator[Finding]:
    machine = platform.machine()
    good = machine in ("aarch64", "arm64", "x86_64")
    yield Finding(
        good, "kernel", f"Linux {platform.release()} on {machine}",
        "" if good else "Record on arm64 or x86-64; captures of others are not replayed.",
    )  # fmt: skip
    if machine == "x86_64":
        yield Finding(
            False, "contpte witnesses", "x86-64 has none",
            "Replay works; to hold counts against recorded ones record on arm64.",
        )  # fmt: skip


def _tracefs() -> Iterator[Finding]:
    fs = find_tracefs()
    yield Finding(True, "tracefs", str(fs.root))
    left = stale(fs)
    if left:
        remove = "; ".join(
            f"echo '-:{name}/' >> {fs.root}/kprobe_events; rmdir {fs.root}/instances/{name}"
            for name in left
        )
        yield Finding(False, "leftovers", f"of killed recorders: {', '.join(left)}",
                      f"As root: {remove}")  # fmt: skip


def _kprobes() -> Iterator[Finding]:
    preflight.usable_tracefs()
    yield Finding(True, "kprobes", "can be set")


def _kernel_btf() -> Iterator[Finding]:
    btf, functions = load_kernel()
    kernel = kernel_of(btf, functions)
    how = "BTF name" if kernel.btf_names else "register and offset"
    yield Finding(True, "kernel BTF", f"{RUNNING_BTF}; probe arguments by {how}")
    found = [d for d in resolve(btf, functions) if d.status != OTHER_ARCH]
    bad = [d.spec.names[-1] for d in found if d.status != OK]
    state = f"{len(found) - len(bad)} of {len(found)}"
    yield Finding(
        not bad or len(bad) < len(found) // 4, "probes",
        state + (f", not {', '.join(bad)}" if bad else ""),
        "mmtrace probes tells why and what it costs." if bad else "",
    )  # fmt: skip


def _recorders() -> Iterator[Finding]:
    for name in (preflight.PERF, preflight.TRACE_CMD):
        path = shutil.which(name)
        yield Finding(
            path is not None, name, path or "not installed",
            "" if path else f"Not needed: --with tracefs records without {name}.",
        )  # fmt: skip


def _memory() -> Iterator[Finding]:
    available = preflight.available_kb()
    cpus = os.cpu_count() or 1
    good = available >= _INGEST_KB
    yield Finding(
        good, "memory",
        f"{size(available << 10)} available; "
        f"buffers of {preflight.buffer_kb(None, available, cpus) >> 10} MiB for {cpus} CPUs",
        "" if good else "Replay large captures elsewhere: a capture and its "
        "kernel.enums.json are all that is needed.",
    )  # fmt: skip


def _replay() -> Iterator[Finding]:
    from tracer.jit import cache_root, is_compiled

    ready = is_compiled("replay")
    yield Finding(
        True, "replay", "compiled" if ready else "compiles at its first use, about a minute"
    )
    root = cache_root()
    there = next(p for p in (root, *root.parents) if p.exists())
    good = os.access(there, os.W_OK)
    yield Finding(
        good, "cache", str(root) if good else f"{root} may not be written",
        "" if good else "Set MMTRACE_CACHE_DIR to a directory of yours, or every run compiles.",
    )  # fmt: skip


_LOOKS: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (
    _kernel, _tracefs, _kprobes, _kernel_btf, _recorders, _memory, _replay,
)  # fmt: skip
