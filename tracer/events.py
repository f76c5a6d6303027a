# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of ``mmtrace events``: what is in a capture, what was lost, what is missing."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import polars as pl

from tracer.capture import Capture
from tracer.info import lost
from tracer.output import columns, printable
from tracer.recipes import KPROBE_EVENTS, LINES
from tracer.store import Store
from tracer.vocabulary import BY_NAME, OPERATIONS, PROBES, STATIC_SYSTEMS, Probe


@dataclass(frozen=True)
class EventCount:
    """One kind of event.

    :ivar key: ``system:name``
    :ivar count: events in the capture
    :ivar known: events lost and counted, of this kind
    :ivar unknown: places where more were lost, uncounted
    :ivar meaning: its operation or role, or "" for an event outside the vocabulary
    """

    key: str
    count: int
    known: int
    unknown: int
    meaning: str


@dataclass(frozen=True)
class Missing:
    """A probe of the vocabulary that was not recorded.

    :ivar close: names in the capture that are nearly the probe's
    :ivar lines: (kernels, line for kprobe_events) to record it
    """

    probe: Probe
    close: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]


def event_counts(source: Store | Capture) -> list[EventCount]:
    """Every event with its losses; events that were recorded and never hit count 0."""
    counts = _counts(source)
    keys = {*counts, *source.provenance.probe_set}
    known, unknown = _losses(source.loss)
    return [
        EventCount(k, counts.get(k, 0), known.get(k, 0), unknown.get(k, 0), _meaning(k))
        for k in sorted(keys, key=lambda k: (-counts.get(k, 0), k))
    ]


def _counts(source: Store | Capture) -> Mapping[str, int]:
    if isinstance(source, Store):
        return source.counts
    return {key: frame.height for key, frame in source.events.items()}


def _losses(loss: pl.DataFrame) -> tuple[dict[str | None, int], dict[str | None, int]]:
    """:return: events counted as lost, and places without a count, by event; None: of any."""
    by = loss.group_by("event").agg(pl.col("known").sum(), pl.col("unknown").sum())
    rows = list(by.iter_rows())
    return {e: int(n) for e, n, _ in rows}, {e: int(u) for e, _, u in rows}


def _meaning(key: str) -> str:
    probe = _probe(key)
    if probe is None:
        return ""
    return probe.op or probe.role


def _probe(key: str) -> Probe | None:
    system, _, name = key.partition(":")
    return None if system in STATIC_SYSTEMS else BY_NAME.get(name)


def missing_probes(keys: Collection[str]) -> list[Missing]:
    """Probes of the vocabulary that a capture lacks under any of their names.

    :param keys: ``system:name`` of every event that was recorded, hit or not
    """
    here = {k.partition(":")[2] for k in keys if k.partition(":")[0] not in STATIC_SYSTEMS}
    strangers = sorted(here - set(BY_NAME))
    out = []
    for probe in PROBES:
        if here & set(probe.names):
            continue
        close = {c for n in probe.names for c in difflib.get_close_matches(n, strangers, 3, 0.75)}
        lines = tuple(line for name in probe.names for line in LINES.get(name, ()))
        out.append(Missing(probe, tuple(sorted(close)), lines))
    return out


def describe(source: Store | Capture) -> list[str]:
    """Lines of ``mmtrace events``. Names from the capture are made printable, never cut."""
    counts = event_counts(source)
    out = [
        f"{sum(c.count for c in counts):,} events of {len(counts)} kind{'s' * (len(counts) != 1)}, "
        f"lost: {lost(source.loss)}",
        "",
    ]
    if counts:
        rows = [("events", "lost", "event", "operation")]
        rows += [(f"{c.count:,}", _lost(c), printable(c.key), c.meaning) for c in counts]
        out += ["  " + line for line in columns(rows, right=frozenset({0, 1}))]
    any_event = source.loss.filter(pl.col("event").is_null())
    if any_event.height and counts:
        out += ["", f"  Not told of which event: {lost(any_event)}."]
    return [*out, *_missing(missing_probes([c.key for c in counts]))]


def _lost(count: EventCount) -> str:
    more = "+?" if count.unknown else ""
    return f"{count.known:,}{more}" if count.known or more else "-"


def _missing(missing: list[Missing]) -> list[str]:
    if not missing:
        return ["", "Every probe of the vocabulary was recorded."]
    out = ["", f"{len(missing)} of {len(PROBES)} probes of the vocabulary were not recorded:"]
    for one in missing:
        role = {"op": "", "lead": " (announces)", "witness": " (witness)"}[one.probe.role]
        meaning = OPERATIONS.get(one.probe.op, "")
        out += ["", f"  {' or '.join(one.probe.names)}{role}{': ' if meaning else ''}{meaning}"]
        if one.close:
            close = ", ".join(map(printable, one.close))
            out.append(f"    The capture has {close}, which is not the same to mmtrace.")
        for kernels, line in one.lines:
            out.append(f"    echo '{line}' >> {KPROBE_EVENTS}")
            if kernels:
                out[-1] += f"  # {kernels}"
    return out
