# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs ``probes``, ``record`` and ``doctor``; :mod:`mmtrace` adds them to its own."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Emit(StrEnum):
    """Forms of the probe set."""

    TRACEFS = "tracefs"
    PERF = "perf"
    TRACE_CMD = "trace-cmd"
    BPFTRACE = "bpftrace"


KernelBtf = Annotated[
    Path | None, typer.Option("--kernel-btf", help="BTF of another kernel, also compressed.")
]
Vmlinux = Annotated[Path | None, typer.Option(help="Image of another kernel, with BTF.")]
Kallsyms = Annotated[
    Path | None, typer.Option(help="kallsyms text of that kernel: tells what is inlined.")
]
More = Annotated[
    bool, typer.Option("--more", help="Add probes for what the set hides; replay ignores them.")
]


def probes(
    kernel_btf: KernelBtf = None,
    vmlinux: Vmlinux = None,
    kallsyms: Kallsyms = None,
    emit: Annotated[
        Emit | None, typer.Option(help="Print the set for this tool instead of explaining it.")
    ] = None,
    more: More = False,
) -> None:
    """Print the probe set of the running or a given kernel, and what it cannot show."""
    from reports.probestext import emit as emitted
    from reports.probestext import probes_text
    from tracer.kernelfiles import load_kernel
    from tracer.probes import MORE, kernel_of, resolve

    btf, functions = load_kernel(kernel_btf, vmlinux, kallsyms)
    found, extra = resolve(btf, functions), resolve(btf, functions, MORE)
    if emit is not None:
        print(emitted([*found, *extra] if more else found, emit.value), end="")
    else:
        print(probes_text(found, extra, functions, kernel_of(btf, functions).btf_names), end="")


class With(StrEnum):
    """Programs that record."""

    PERF = "perf"
    TRACE_CMD = "trace-cmd"
    TRACEFS = "tracefs"


def record(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="Recorded from its start to its end."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Capture to write. Default: perf.data and the like."),
    ] = None,
    with_: Annotated[
        With, typer.Option("--with", help="tracefs needs no other program.")
    ] = With.TRACEFS,
    everything: Annotated[bool, typer.Option("-a", help="Record until interrupted.")] = False,
    pid: Annotated[int | None, typer.Option(help="Record until this process ends.")] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="Stop after this many seconds.")
    ] = None,
    buffer: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of each CPU's buffer. Default: 16M at most.")
    ] = None,
    more: More = False,
) -> None:
    """Record the whole system while a command runs; needs root.

    Reclaim works for a process in other tasks, so that all tasks are recorded.
    """
    from reports.recordtext import outcome_text
    from tracer import errors
    from tracer.record.preflight import parse_size
    from tracer.record.run import Request
    from tracer.record.run import record as run

    done = run(
        Request(
            out=output,
            tool=with_.value,
            command=tuple(command or ()),
            pid=pid,
            duration=duration,
            everything=everything,
            buffer=None if buffer is None else parse_size(buffer),
            more=more,
        )
    )
    print(outcome_text(done), end="", file=sys.stderr)
    if done.interrupted and not everything:
        raise typer.Exit(errors.EXIT_INTERRUPTED)


def doctor() -> None:
    """Say what this machine can record and replay, what is missing and what to do."""
    from reports.recordtext import doctor_text
    from tracer.doctor import can_record, examine

    found = examine()
    print(doctor_text(found), end="")
    print("This machine can record." if can_record(found) else "This machine cannot record; "
          "it can replay captures of others.")  # fmt: skip


def add(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("probes")(probes)
    app.command("record")(record)
    app.command("doctor")(doctor)
