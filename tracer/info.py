# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of ``mmtrace info``: what a store or capture holds and what is wrong with it."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Mapping
from dataclasses import asdict

import polars as pl

from tracer.capture import Capture, Provenance
from tracer.enums import KernelEnums
from tracer.output import WIDTH, columns, printable, size
from tracer.store import Store

_LABEL = 11


def describe(source: Store | Capture) -> list[str]:
    """Lines that describe a store or a capture, at most :data:`WIDTH` columns wide.

    Names from the capture are made printable; event names are never cut.
    """
    counts = _counts(source)
    lines = [*_provenance(source.provenance)]
    if isinstance(source, Store):
        lines += _row("numbers", _numbers(source.enums))
        lines += _row("operations", f"{source.ops.height:,}")
    lines += _row("events", f"{sum(counts.values()):,} of {len(counts)} kinds")
    lines += _row("lost", lost(source.loss))
    if counts:
        rows = [(f"{n:,}", printable(key)) for key, n in counts.items()]
        lines += ["", *("  " + line for line in columns(rows, right=frozenset({0})))]
    notes = diagnoses(source.diagnostics)
    return [*lines, "", *notes] if notes else lines


def as_json(source: Store | Capture) -> str:
    """:return: a store's meta.json, or as much of it as a capture has."""
    if isinstance(source, Store):
        return json.dumps(source.meta, indent=1)
    events = {key: {"rows": n} for key, n in _counts(source).items()}
    return json.dumps({"provenance": asdict(source.provenance), "events": events}, indent=1)


def lost(loss: pl.DataFrame) -> str:
    """:return: one phrase about the loss table."""
    if not loss.height:
        return "none"
    known = int(loss["known"].sum())
    unknown = int(loss["unknown"].sum())
    some = f", and {unknown:,} times an unknown number" if unknown else ""
    return f"{known:,} events in {loss.height:,} place{'s' * (loss.height > 1)}{some}"


def diagnoses(diagnostics: pl.DataFrame) -> list[str]:
    """:return: one wrapped paragraph per distinct diagnostic, warnings before notes."""
    grouped = diagnostics.group_by(["severity", "code", "message"], maintain_order=True).len()
    rank = {"loss": 0, "warning": 1}
    out: list[str] = []
    for severity, _, message, n in sorted(grouped.iter_rows(), key=lambda r: rank.get(r[0], 2)):
        times = f" ({n:,} times)" if n > 1 else ""
        out += _wrap(f"{severity}: {message}{times}", "  ")
    return out


def _counts(source: Store | Capture) -> Mapping[str, int]:
    if isinstance(source, Store):
        return source.counts
    return {key: source.events[key].height for key in sorted(source.events)}


def _provenance(about: Provenance) -> list[str]:
    wrapper = about.extra.get("wrapper") or {}
    inside = f", unpacked from {wrapper['kind']}" if "kind" in wrapper else ""
    machine = [about.arch, about.byte_order and f"{about.byte_order}-endian"]
    if about.page_size:
        machine.append(f"{size(about.page_size)} pages")
    if about.nr_cpus:
        machine.append(f"{about.nr_cpus} CPU" + ("s" if about.nr_cpus > 1 else ""))
    rows = [
        ("capture", about.path),
        ("container", about.container and f"{about.container}, {size(about.size)}{inside}"),
        ("sha256", about.sha256),
        ("kernel", about.kernel_release),
        ("machine", ", ".join(m for m in machine if m)),
        ("host", about.hostname),
        ("recorder", about.recorder),
        ("command", shlex.join(about.cmdline)),
        ("clock", about.clock),
    ]
    return [line for label, value in rows if value for line in _row(label, value)]


def _numbers(enums: KernelEnums) -> str:
    flags = enums.sources.get("pageflags", "unknown")
    return (
        f"page flags {flags}, VMA flags {enums.sources.get('vm_flags', 'unknown')}"
        f" ({enums.origin or 'no file'})"
    )


def _row(label: str, value: str) -> list[str]:
    return _wrap(f"{label:<{_LABEL}}{printable(value)}", " " * _LABEL)


def _wrap(text: str, indent: str) -> list[str]:
    # Long words (hashes, probe names) stay whole, so that they can be copied.
    return textwrap.wrap(
        printable(text),
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
