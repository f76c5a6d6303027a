# SPDX-License-Identifier: GPL-2.0-or-later
"""One sentence that says what changed, by how much, and where it loses."""

from __future__ import annotations

from collections.abc import Sequence
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
    changes = _alike([_change(counts[0], n, noun(counter)) for n in counts[1:]], comparison)
    parts = [f"{who} need{'' if many else 's'} {what}" for what, who, many in changes]
    text = f"Against {comparison.labels[0]}, {numbers.listing(parts)}"
    return f"{text}; {_losers(comparison)}."


def _alike(phrases: Sequence[str], comparison: Comparison) -> list[tuple[str, str, bool]]:
    """Say once what holds for several replays.

    :param phrases: one per replay but the base
    :return: (phrase, the replays it is about, whether they are several)
    """
    groups: dict[str, list[str]] = {}
    for phrase, label in zip(phrases, comparison.labels[1:], strict=True):
        groups.setdefault(phrase, []).append(label)
    return [(phrase, numbers.listing(who), len(who) > 1) for phrase, who in groups.items()]


def _change(base: int, new: int, what: str) -> str:
    if new == base:
        return f"as many {what} ({numbers.count(base)})"
    percent = numbers.percent(base, new)
    word = "fewer" if new < base else "more"
    amount = f"{percent.lstrip('+-')} {word}" if percent != "new" else word
    return f"{amount} {what} ({numbers.count(base)} to {numbers.count(new)})"


def _losers(comparison: Comparison) -> str:
    """:return: the clause about counters that grow; never empty."""
    grown = [growing(comparison, i) for i in range(1, len(comparison.labels))]
    clauses = _alike([_grown(g) for g in grown], comparison)
    said = [
        clause + (f" under {who}" if len(clauses) > 1 else "")
        for clause, who, _ in clauses
        if clause
    ]
    if any(not is_entry(g.counter) for found in grown for g in found):
        return ", ".join(said)
    return f"nothing grows, but {', '.join(said)}" if said else "no counter grows"


def _grown(grown: Sequence[Growth]) -> str:
    """:return: what grows in one replay; empty when nothing does."""
    if not grown:
        return ""
    work = [g for g in grown if not is_entry(g.counter)]
    if not work:
        entries = numbers.plural(len(grown), "batch function")
        return f"{entries} {'is' if len(grown) == 1 else 'are'} entered more often"
    first = work[0]
    percent = numbers.percent(first.base, first.new)
    amount = f"{first.counter} grows by {first.new - first.base:,} ({percent})"
    if len(work) == 1:
        return amount
    rest = numbers.plural(len(work) - 1, "other counter")
    return f"{amount} and {rest} {'grow' if len(work) > 2 else 'grows'} too"
