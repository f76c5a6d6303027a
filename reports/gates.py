# SPDX-License-Identifier: GPL-2.0-or-later
"""``--fail-if``: turn a comparison into an exit code.

An expression is ``COUNTER OP VALUE``, joined by ``or``. ``COUNTER`` is a
counter, a sum, a shell pattern over them (``tlbi_*``) or ``any``. ``VALUE`` says
what is tested against it::

    tlbi > +5%     relative difference to the base, per cent
    tlbi > +16     absolute difference to the base (a sign is required)
    tlbi > 1000    the count itself

Every row of the comparison is tested, so ``--by op`` gates each operation.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from reports import numbers
from reports.compare import Comparison, display_order
from tracer.errors import UsageError

Kind = Literal["percent", "delta", "count"]

_OPS: Final[dict[str, Callable[[Fraction, Fraction], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_GATE = re.compile(r"\s*([\w*?\[\]]+)\s*(>=|<=|==|!=|>|<)\s*([+-]?)(\d+(?:\.\d+)?)\s*(%?)\s*$")


@dataclass(frozen=True)
class Gate:
    """One condition that must not hold.

    :ivar value: per cent, difference or count, by ``kind``
    """

    source: str
    counters: tuple[str, ...]
    op: str
    value: Fraction
    kind: Kind

    def holds(self, base: int, new: int) -> bool:
        """:return: whether the condition is true for one pair of counts."""
        if self.kind == "count":
            return _OPS[self.op](Fraction(new), self.value)
        if self.kind == "delta":
            return _OPS[self.op](Fraction(new - base), self.value)
        if base == 0:
            # From nothing to something is more than any percentage.
            grown = self.value + 1 if new else Fraction(0)
            return _OPS[self.op](grown, self.value)
        return _OPS[self.op](Fraction(100 * (new - base), base), self.value)


@dataclass(frozen=True)
class Trip:
    """A gate that holds, and where."""

    gate: Gate
    label: str
    row: str
    counter: str
    base: int
    new: int

    def __str__(self) -> str:
        where = "" if self.row == "total" else f" in {self.row}"
        return (
            f"{self.gate.source}: {self.counter}{where} is {numbers.count(self.new)} under "
            f"{self.label}, {numbers.count(self.base)} in the base "
            f"({numbers.percent(self.base, self.new)})"
        )


def parse(expression: str) -> list[Gate]:
    """Read a ``--fail-if`` expression.

    :raises UsageError: naming the part that is not a condition or the unknown counter
    """
    return [_parse_one(part) for part in re.split(r"\s+or\s+|,|\|\|", expression)]


def _parse_one(text: str) -> Gate:
    found = _GATE.match(text)
    if not found:
        raise UsageError(
            f"Cannot read the gate {text.strip()!r}.",
            "Write COUNTER OP VALUE, for example 'tlbi > +5%'.",
        )
    pattern, op, sign, digits, per_cent = found.groups()
    value = Fraction(digits) * (-1 if sign == "-" else 1)
    kind: Kind = "percent" if per_cent else "delta" if sign else "count"
    return Gate(text.strip(), _select(pattern), op, value, kind)


def _select(pattern: str) -> tuple[str, ...]:
    names = display_order()
    if pattern == "any":
        return tuple(names)
    # fnmatch would fold case on some systems; counters are plain words.
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    chosen = tuple(n for n in names if re.fullmatch(regex, n))
    if not chosen:
        close = [n for n in names if pattern.strip("*?")[:3] in n][:4]
        hint = f"Did you mean {numbers.listing(close, 'or')}?" if close else ""
        raise UsageError(f"There is no counter {pattern!r}.", hint)
    return chosen


def tripped(comparison: Comparison, expressions: Sequence[str]) -> list[Trip]:
    """:return: every gate that holds, for every replay but the base, row by row."""
    gates = [g for e in expressions for g in parse(e)]
    out = []
    for gate in gates:
        for row in comparison.rows:
            for counter in gate.counters:
                counts = [v or 0 for v in row.counts(counter)]
                for label, new in list(zip(comparison.labels, counts, strict=True))[1:]:
                    if gate.holds(counts[0], new):
                        out.append(Trip(gate, label, row.label, counter, counts[0], new))
    return out
