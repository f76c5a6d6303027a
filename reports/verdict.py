# SPDX-License-Identifier: GPL-2.0-or-later
"""One sentence that says what changed, by how much, and where it loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from replay import counters
from reports import numbers
from reports.compare import Comparison

# What a reader asks for first; the first of them that changes carries the verdict.
HEADLINE: Final[tuple[tuple[str, str], ...]] = (
    ("tlbi", "TLB invalidations"),
    ("convert", "contpte repaints"),
    ("dsb", "barriers"),
    ("ptep_get", "ptep_get() calls"),
    ("rmap_call", "rmap calls"),
    ("ld", "PTE loads"),
    ("xchg", "atomic PTE exchanges"),
    ("st", "PTE stores"),
)


# Counters under the kernel's own names: entries into functions that a probe can count.
_ENTRIES: Final = frozenset(counters.NAMES[counters.INDEX["folio_remove_rmap_ptes"] :])


def is_entry(counter: str) -> bool:
    """Whether a counter counts entries into a kernel function, not work.

    A batch enters a batch function where there were single calls before, which
    is not a loss by itself.
    """
    return counter in _ENTRIES


@dataclass(frozen=True)
class Growth:
    """A counter that a replay has more of than the base has."""

    counter: str
    base: int
    new: int

    def __str__(self) -> str:
        more = f"{numbers.delta(self.base, self.new)} ({numbers.percent(self.base, self.new)})"
        return f"{self.counter} {more}"


def growing(comparison: Comparison, replay: int) -> list[Growth]:
    """:return: counters and sums of one replay above the base; work first, largest first."""
    out = []
    for counter in comparison.nonzero():
        counts = comparison.total(counter)
        if counts[replay] > counts[0]:
            out.append(Growth(counter, counts[0], counts[replay]))
    return sorted(out, key=lambda g: (is_entry(g.counter), g.base - g.new))


def headline(comparison: Comparison) -> str:
    """:return: the counter the verdict is about."""
    for counter, _ in HEADLINE:
        counts = comparison.total(counter)
        if len(set(counts)) > 1:
            return counter
    shown = [c for c, _ in HEADLINE if any(comparison.total(c))]
    return shown[0] if shown else HEADLINE[0][0]


def noun(counter: str) -> str:
    """:return: the counter in words."""
    return dict(HEADLINE).get(counter) or counter


def verdict(comparison: Comparison) -> str:
    """:return: one sentence about all replays against the base."""
    if len(comparison.labels) < 2:
        counter = headline(comparison)
        return (
            f"{comparison.labels[0]} needs {numbers.count(comparison.total(counter)[0])} "
            f"{noun(counter)} for this capture."
        )
    counter = headline(comparison)
    counts = comparison.total(counter)
    if all(len(set(comparison.total(c))) == 1 for c in counters.NAMES):
        others = numbers.listing(comparison.labels)
        return f"On this capture {others} cost the same: every counter is equal."
    parts = [_change(comparison, counter, i) for i in range(1, len(counts))]
    text = f"Against {comparison.labels[0]}, {numbers.listing(parts)}"
    return f"{text}; {_losers(comparison)}."


def _change(comparison: Comparison, counter: str, i: int) -> str:
    counts = comparison.total(counter)
    label, what = comparison.labels[i], noun(counter)
    if counts[i] == counts[0]:
        return f"{label} needs as many {what} ({numbers.count(counts[0])})"
    percent = numbers.percent(counts[0], counts[i])
    word = "fewer" if counts[i] < counts[0] else "more"
    amount = f"{percent.lstrip('+-')} {word}" if percent != "new" else word
    arrow = f"{numbers.count(counts[0])} to {numbers.count(counts[i])}"
    return f"{label} needs {amount} {what} ({arrow})"


def _losers(comparison: Comparison) -> str:
    """:return: the clause about counters that grow; never empty."""
    clauses = []
    for i, label in list(enumerate(comparison.labels))[1:]:
        grown = growing(comparison, i)
        if not grown:
            continue
        work = [g for g in grown if not is_entry(g.counter)]
        where = f" under {label}" if len(comparison.labels) > 2 else ""
        if not work:
            entries = numbers.plural(len(grown), "batch function")
            verb = "is" if len(grown) == 1 else "are"
            clauses.append(f"nothing grows, but {entries} {verb} entered more often{where}")
            continue
        first = work[0]
        percent = numbers.percent(first.base, first.new)
        amount = f"{first.counter} grows by {first.new - first.base:,} ({percent})"
        rest = numbers.plural(len(work) - 1, "other counter")
        more = f" and {rest} {'grow' if len(work) > 2 else 'grows'} too" if len(work) > 1 else ""
        clauses.append(f"{amount}{where}{more}")
    return ", ".join(clauses) or "no counter grows"
