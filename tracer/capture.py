# SPDX-License-Identifier: GPL-2.0-or-later
"""What every container reader returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tracer import schema
from tracer.eventformat import EventFormat


@dataclass
class Provenance:
    """Where a capture comes from; written to ``meta.json`` and embedded in every report.

    Unknown values are None, never guessed.
    """

    path: str | None = None  # as given on the command line
    container: str | None = None  # perf.data, trace.dat v6, ...
    sha256: str | None = None  # of the file's bytes
    size: int | None = None
    hostname: str | None = None
    kernel_release: str | None = None
    arch: str | None = None
    page_size: int | None = None
    nr_cpus: int | None = None
    clock: str | None = None
    byte_order: str | None = None  # little or big
    long_size: int | None = None
    cmdline: list[str] = field(default_factory=list)  # recorder's command line
    recorder: str | None = None  # perf 6.12.107, trace-cmd ...
    mmtrace: str | None = None  # version that ingested it
    probe_set: list[str] = field(default_factory=list)  # system:name of every event in it
    extra: dict[str, Any] = field(default_factory=dict)  # container-specific facts


@dataclass
class Capture:
    """A capture in memory.

    :ivar events: ``system:name`` to a frame that starts with
        :data:`tracer.schema.EVENT_COLUMNS`, sorted by ``seq``; unsigned 64-bit
        fields are UInt64, other integers their own width and sign, char arrays
        String, other arrays Binary or List
    :ivar formats: the event formats the frames were decoded with
    :ivar records: side records by lower-case name (``comm``, ``mmap``, ``fork``,
        ``exit``, ``switch``, ``ksymbol``, ...), each with ``seq`` and ``ts``
    :ivar loss: :data:`tracer.schema.LOSS_COLUMNS`
    :ivar diagnostics: :data:`tracer.schema.DIAGNOSTIC_COLUMNS`
    :ivar kallsyms: text of the recording kernel's /proc/kallsyms, where the container has it
    """

    events: dict[str, pl.DataFrame]
    formats: dict[str, EventFormat]
    provenance: Provenance
    records: dict[str, pl.DataFrame] = field(default_factory=dict)
    loss: pl.DataFrame = field(default_factory=lambda: schema.empty(schema.LOSS_COLUMNS))
    diagnostics: pl.DataFrame = field(
        default_factory=lambda: schema.empty(schema.DIAGNOSTIC_COLUMNS)
    )
    kallsyms: bytes = b""
