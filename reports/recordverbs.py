# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs ``probes``, ``record`` and ``doctor``; :mod:`mmtrace` adds them to its own."""

from __future__ import annotations

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


def add(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("probes")(probes)
