# SPDX-License-Identifier: GPL-2.0-or-later
"""The content of the HTML report, section by section, as plain values for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from replay import counters
from replay.cost.capture import MachinePrice
from reports import audit, breakdown, config, costfigure, figures, heatmap, names, numbers, timeline
from reports.compare import Comparison, compare, part_of
from reports.figures import Figure, Twin
from reports.mail import inferred, short_titles
from reports.redact import Redactor
from reports.verdict import is_entry, noun
from reports.verifytext import EXACT, Verification, summary

TILES: Final = ("tlbi", "dsb", "convert", "ptep_get")

# Rows of the fidelity table; captures with many tasks have thousands.
MOST_CHECKS: Final = 300

AUDIT: Final = (
    "What the workload's page tables held when each system call began: pages by folio order, and "
    "how many entries have the contiguous, accessed and dirty bits. Deltas compare like with like "
    "only where the states are the same; a policy may leave fewer contiguous bits behind for the "
    "next call."
)

METHOD: Final = (
    "mmtrace reads the operations on page tables that a capture recorded (faults, unmaps, zaps, "
    "forks, protections, moves), in their order, and executes each again on a simulated arm64 page "
    "table: PTE arrays indexed by virtual address, the contiguous bit with its fold and unfold "
    "rules, folio and rmap state, the deferred TLB flush and mmu_gather. A policy says which "
    "kernel's code, and which of its batches, the operation follows. Every primitive is counted "
    "where that code executes it.",
    "Counts are deterministic: the same capture, policy and version give the same numbers, which "
    "is why there are no confidence intervals and no significance tests. They are not times. How "
    "much a TLBI or a barrier costs depends on the machine, and one that is removed may have been "
    "free. Prices of machines are a model and have 90% intervals; what the model predicts of "
    "series that are not measured yet is on record in docs/predictions.",
    "Not modelled: instruction cache maintenance, MTE tags, page_table_check, mmu notifiers, memcg "
    "charges, LRU locks, retries of cmpxchg, debug loads of CONFIG_DEBUG_VM, and GUP. Accessed and "
    "dirty bits are set by hardware without an event; where a count depends on them they are "
    "inferred from what the capture shows later, and the inference is counted above.",
    "Names of tasks, hosts, files and command lines are replaced unless the report was made with "
    "--raw. Kernel addresses are never shown.",
)


@dataclass(frozen=True)
class Cell:
    """A new count against the base."""

    label: str
    base: str
    count: str
    delta: str
    percent: str
    word: str


@dataclass(frozen=True)
class CountRow:
    """A row of the table of counts."""

    counter: str
    part: bool
    grew: bool
    base: str
    raw: tuple[int, ...]
    cells: list[Cell]
    meaning: str


@dataclass(frozen=True)
class Section:
    """A heading with figures, in rows of one or two, and tables.

    :ivar tables: (id, title, how to read it, table)
    """

    id: str
    title: str
    text: str
    figures: list[list[Figure]] = field(default_factory=list)
    tables: list[tuple[str, str, str, Twin]] = field(default_factory=list)


def cells(comparison: Comparison, counter: str) -> list[Cell]:
    """:return: one cell per replay but the base."""
    counts = comparison.total(counter)
    out = []
    for label, new in list(zip(comparison.labels, counts, strict=True))[1:]:
        word = "same" if new == counts[0] else "fewer" if new < counts[0] else "more"
        delta, percent = numbers.delta(counts[0], new), numbers.percent(counts[0], new)
        base, count = numbers.count(counts[0]), numbers.count(new)
        # A minus sign is as wide as a plus; the hyphen of the text is not.
        signed = [text.replace("-", "\u2212") for text in (delta, percent)]
        out.append(Cell(label, base, count, signed[0], signed[1], word))
    return out


def tiles(comparison: Comparison) -> list[dict[str, Any]]:
    """:return: the headline counters that the capture has, with their changes."""
    if len(comparison.labels) < 2:
        return []
    live = [c for c in TILES if any(comparison.total(c))]
    return [{"what": noun(c), "cells": cells(comparison, c)} for c in live]


def count_sections(comparison: Comparison) -> list[dict[str, Any]]:
    """:return: the rows of the main table: work first, function entries after."""
    shown = comparison.nonzero()
    work = [_count_row(comparison, c) for c in shown if not is_entry(c)]
    entries = [_count_row(comparison, c) for c in shown if is_entry(c)]
    made: list[dict[str, Any]] = [{"title": "", "rows": work}]
    if entries:
        made.append({"title": "entries into functions that a probe can count", "rows": entries})
    return made


def _count_row(comparison: Comparison, counter: str) -> CountRow:
    counts = comparison.total(counter)
    grew = any(n > counts[0] for n in counts[1:])
    made = cells(comparison, counter)
    base = numbers.count(counts[0])
    meaning = meanings()[counter]
    return CountRow(counter, part_of(counter) is not None, grew, base, counts, made, meaning)


def meanings() -> dict[str, str]:
    """:return: what each counter and sum counts."""
    out = {name: meaning for name, _, meaning in counters.COUNTERS}
    return out | {name: " + ".join(parts) for name, parts in counters.SUMS.items()}


def glossary() -> list[tuple[str, str, str]]:
    """:return: (name, kind, meaning) of the sums and every counter."""
    kinds = {"call": "function calls", "primitive": "primitive"}
    sums = [(name, "sum", meanings()[name]) for name in counters.SUMS]
    return [*sums, *[(name, kinds.get(group, group), m) for name, group, m in counters.COUNTERS]]


def policies(comparison: Comparison) -> list[dict[str, str]]:
    """:return: what each column is."""
    out = []
    pairs = zip(short_titles(comparison), comparison.labels, comparison.replays, strict=True)
    for role, label, replay in pairs:
        name = f"{replay.policy}, " if replay.policy != label else ""
        out.append({"role": role, "label": label, "title": name + replay.policy_title})
    return out


def sections(
    comparison: Comparison, redactor: Redactor, prices: Sequence[MachinePrice] = ()
) -> list[Section]:
    """:return: the figures, in reading order."""
    replays, labels, raw = comparison.replays, comparison.labels, redactor.raw
    by = {
        b: compare(replays, by=b, labels=labels, raw=raw)
        for b in ("op", "syscall", "task", "order")
    }
    origin = figures.origin_figure(by["op"])
    out = [Section("counters", "What changes", "", [[figures.counters_figure(comparison)]])]
    if origin:
        out[0].figures.append([origin])
    out.append(Section("orders", "Folio orders", "", [[figures.orders_figure(by["order"])]]))
    out += [*_cost(comparison, prices), *_space(comparison, redactor)]
    texts = {
        "syscall": ("System calls", "What the workload asked the kernel for, and on which folios."),
        "task": ("Tasks", "Who did it. Kernel threads that unmap for reclaim are tasks too."),
        "op": ("Operations", "What the kernel did to the page tables."),
    }
    for key, (title, text) in texts.items():
        pair = [
            breakdown.shares_figure(replays[0], key, redactor),
            breakdown.cost_figure(by[key]),
        ]
        out.append(Section(f"by-{key}", title, text, [pair]))
    row = [[timeline.timeline_figure(comparison, redactor)]]
    return [*out, Section("time", "Timeline", "", row)]


def _cost(comparison: Comparison, prices: Sequence[MachinePrice]) -> list[Section]:
    """:return: times on machines, when they were asked for"""
    figure = costfigure.cost_figure(prices, comparison.labels)
    if figure is None:
        return []
    said = [
        f"{label} is {costfigure.verdicts(prices, i)}."
        for i, label in enumerate(comparison.labels[1:])
    ]
    text = f"Against {comparison.labels[0]}: {' '.join(said)}"
    return [Section("cost", "Cost", text, [[figure]])]


def _space(comparison: Comparison, redactor: Redactor) -> list[Section]:
    """:return: the address space over time, when the replays kept it"""
    histories = [r.history for r in comparison.replays if r.history is not None]
    if len(histories) != len(comparison.replays):
        return []
    # Steps of several captures differ; their states are compared in the table only.
    one = len({str(r.provenance.get("sha256")) for r in comparison.replays}) == 1
    figure = heatmap.space_figure(histories, comparison.labels, redactor) if one else None
    made = Section("space", "Address space", "", [[figure]] if figure else [])
    states = _audit(comparison)
    if states:
        made.tables.append(("table-audit", "State audit", AUDIT, states))
    return [made] if figure or states else []


def _audit(comparison: Comparison) -> Twin | None:
    """:return: the states before each system call, policies below each other"""
    page = config.page_size(comparison.replays[0])
    rows: list[tuple[str, ...]] = []
    for moment in audit.moments([r.history for r in comparison.replays if r.history]):
        same = "same" if moment.equal else "differs"
        for label, state in zip(comparison.labels, moment.states, strict=True):
            orders = sorted(state.orders.items())
            what = ", ".join(f"{n:,} of {names.order_name(o, page)}" for o, n in orders)
            bits = [numbers.count(n) for n in (state.pages, state.cont, state.young, state.dirty)]
            rows.append((moment.name, label, same, what or "none", *bits))
    head = ("before", "policy", "states", "pages", "in all", "cont", "young", "dirty")
    return Twin(head, rows, 4) if rows else None


def fidelity(verification: Verification | None, redactor: Redactor) -> dict[str, Any] | None:
    """:return: the panel that sets simulated against recorded counts; None when not given."""
    if verification is None:
        return None
    order = ["scope", "phase", "counter", "verdict", "simulated", "real"]
    # What differs comes first: it must not be among the rows that are left out.
    table = redactor.frame(verification.table).select(order)
    table = table.sort(pl.col("verdict") == EXACT, maintain_order=True)
    rows = [
        tuple(numbers.count(v) if isinstance(v, int) else str(v or "") for v in row)
        for row in table.head(MOST_CHECKS).iter_rows()
    ]
    left = table.height - len(rows)
    note = f"{left:,} more rows are left out here; mmtrace verify prints all." if left else ""
    return {
        "passed": verification.passed,
        "summary": summary(verification),
        "truth": redactor.text(verification.truth),
        "notes": [redactor.text(n) for n in verification.notes],
        "table": Twin(tuple(order), rows, 4, note),
    }


def warnings(
    comparison: Comparison,
    loss: pl.DataFrame | None,
    diagnostics: pl.DataFrame | None,
    redactor: Redactor,
) -> list[str]:
    """:return: sentences about what limits the numbers, losses first."""
    out = [*_losses(loss), *_diagnostics(diagnostics, redactor)]
    return [*out, *comparison.warnings, *inferred(comparison)]


def _losses(loss: pl.DataFrame | None) -> list[str]:
    if loss is None or not loss.height:
        return []
    known = int(loss["known"].sum() or 0)
    parts = [numbers.plural(known, "event") if known else ""]
    if loss["unknown"].any():
        parts.append("an unknown number of events")
    sources = numbers.listing(sorted({s for s in loss["source"].to_list() if s}))
    amount = numbers.listing([p for p in parts if p])
    where = numbers.plural(loss["cpu"].drop_nulls().n_unique(), "CPU")
    return [
        f"The recorder lost {amount or 'events'} on {where} ({sources or 'no source named'}). "
        "Counts are of what was recorded; operations that are missing are not guessed."
    ]


def _diagnostics(diagnostics: pl.DataFrame | None, redactor: Redactor) -> list[str]:
    if diagnostics is None:
        return []
    grave = diagnostics.filter(pl.col("severity") != "note")
    found = grave.group_by("code", "message", maintain_order=True).len()
    out = []
    for code, message, number in found.iter_rows():
        times = f" ({number:,} times)" if number > 1 else ""
        out.append(f"{redactor.text(message or code)}{times}")
    return out
