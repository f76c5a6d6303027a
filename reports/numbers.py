# SPDX-License-Identifier: GPL-2.0-or-later
"""How counts and their differences are written, the same in text and HTML.

Counts are exact, so nothing is rounded away: a percentage never reads as zero
or as minus a hundred unless it is.
"""

from __future__ import annotations

from collections.abc import Sequence


def count(value: int | None) -> str:
    """:return: digits with thousands separators, ``-`` for an absent count."""
    return "-" if value is None else f"{value:,}"


def delta(base: int | None, new: int | None) -> str:
    """:return: the signed difference, ``0`` without a sign when equal."""
    difference = (new or 0) - (base or 0)
    return f"{difference:+,}" if difference else "0"


def percent(base: int | None, new: int | None) -> str:
    """Relative difference.

    :return: for example ``-94.44%``; ``0%`` only when equal, ``-100.00%`` only
        when nothing is left, ``new`` when there was nothing before
    """
    old, now = base or 0, new or 0
    if old == now:
        return "0%"
    if not old:
        return "new"
    value = 100.0 * (now - old) / old
    if now and value <= -99.995:
        return "-99.99%"
    if abs(value) < 0.005:
        return f"{'+' if value > 0 else '-'}<0.01%"
    return f"{value:+.2f}%" if abs(value) < 1000 else f"{value:+,.0f}%"


def ratio(base: int | None, new: int | None) -> str:
    """:return: how many times fewer or more, for prose; empty when one side is 0."""
    old, now = base or 0, new or 0
    if not old or not now or old == now:
        return ""
    times = max(old, now) / min(old, now)
    return f"{times:.1f}x" if times < 100 else f"{times:,.0f}x"


def plural(number: int, noun: str, nouns: str = "") -> str:
    """:return: ``1 counter``, ``2 counters``."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def listing(words: Sequence[str], last: str = "and") -> str:
    """:return: ``a, b and c``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
