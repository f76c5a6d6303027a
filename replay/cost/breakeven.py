# SPDX-License-Identifier: GPL-2.0-or-later
"""From which folio order on a policy pays, and who pays for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from replay.cost.price import Estimate, distinguishable, draw, price, speedup
from replay.cost.run import work
from replay.cost.tables import Machine

ORDERS: Final = tuple(range(10))
WHOLE: Final = "aligned, whole"


@dataclass(frozen=True)
class OrderRow:
    """One folio order, or one worst case.

    :ivar saved: ns per page that the second policy saves, negative where it loses
    """

    title: str
    order: int
    faster: Estimate
    saved: float

    @property
    def wins(self) -> bool:
        return distinguishable(self.faster) and self.faster.median > 1

    @property
    def loses(self) -> bool:
        return distinguishable(self.faster) and self.faster.median < 1


def by_order(
    machine: Machine,
    scenario: str,
    base: str,
    new: str,
    *,
    orders: tuple[int, ...] = ORDERS,
    **params: Any,
) -> list[OrderRow]:
    """Compare two policies at every folio order, and where batching has it hardest.

    :param base: policy; ``new``: the one that is to be faster
    :param params: of the scenario, folio size apart
    """
    draws = draw(machine)
    size = int(params.setdefault("size", 64 << 20))
    rows = []
    for order in orders:
        rows.append(_row(draws, scenario, base, new, WHOLE, order, params))
    # A start that no contpte block shares: the first and last folios are base pages.
    start = dict(params, alignment=20 << 10, size=size)
    rows.append(_row(draws, scenario, base, new, "unaligned start", 4, start))
    rows.append(_row(draws, "partial", base, new, "partial", 4, {"size": size}))
    return rows


def _row(
    draws: Any, scenario: str, base: str, new: str, title: str, order: int, params: dict[str, Any]
) -> OrderRow:
    given = {**params, "folio_size": 4096 << order}
    if order >= 9:
        given["pte_mapped"] = True
    made = [price(draws, work(draws.machine, scenario, p, **given)) for p in (base, new)]
    pages = max(1, int(given["size"]) // 4096)
    saved = float(made[0].total[0] - made[1].total[0]) / pages
    return OrderRow(title, order, speedup(made[0], made[1], base, new), saved)


def break_even(rows: list[OrderRow]) -> int | None:
    """:return: the smallest order from which on every order wins; None when none does"""
    found = None
    for row in sorted((r for r in rows if r.title == WHOLE), key=lambda r: -r.order):
        if not row.wins:
            break
        found = row.order
    return found


def losers(rows: list[OrderRow]) -> list[OrderRow]:
    """:return: order 0 and the worst cases always, and every order that is slower"""
    return [r for r in rows if r.order == 0 or r.title != WHOLE or r.loses]
