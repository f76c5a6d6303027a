# SPDX-License-Identifier: GPL-2.0-or-later
"""The null model: so many ns per page and so many per folio, and nothing else.

It is fitted on the same rows, one pair of numbers for each machine, workload
and kernel that has rows. A model that does not beat it adds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from replay.cost.work import Float64

Group = tuple[str, str]  # machine, workload


class Figure(Protocol):
    """What a row needs to take part."""

    @property
    def machine(self) -> str: ...
    @property
    def workload(self) -> str: ...
    @property
    def published(self) -> float: ...
    @property
    def pages(self) -> int: ...
    @property
    def folios(self) -> float: ...


@dataclass(frozen=True)
class NullModel:
    """ns per page and ns per folio of every group."""

    groups: Mapping[Group, tuple[float, float]]

    def time(self, group: Group, pages: float, folios: float) -> float | None:
        """:return: ns, None where no row of the group exists"""
        pair = self.groups.get(group)
        return None if pair is None else pair[0] * pages + pair[1] * folios

    def row(self, row: Figure) -> float | None:
        """:return: ns for a calibration row"""
        return self.time((row.machine, row.workload), row.pages, row.folios) if row.pages else None


def nonnegative(a: Float64, b: Float64) -> tuple[float, float]:
    """Least squares with two coefficients that may not be negative.

    :param a: float64[n, 2]
    :param b: float64[n]
    """
    both = np.linalg.lstsq(a, b, rcond=None)[0]
    if both.min() >= 0:
        return float(both[0]), float(both[1])
    alone = [max(0.0, float(a[:, i] @ b / (a[:, i] @ a[:, i]))) for i in (0, 1)]
    errors = [float(np.sum((a[:, i] * alone[i] - b) ** 2)) for i in (0, 1)]
    return (alone[0], 0.0) if errors[0] <= errors[1] else (0.0, alone[1])


def fit(rows: Sequence[Figure] | Iterable[Figure]) -> NullModel:
    """Fit every group by relative error; one row gives ns per page only."""
    by_group: dict[Group, list[Figure]] = {}
    for row in rows:
        if row.pages:
            by_group.setdefault((row.machine, row.workload), []).append(row)
    groups = {}
    for group, found in by_group.items():
        a = np.array([[r.pages / r.published, r.folios / r.published] for r in found])
        if len(found) == 1:
            groups[group] = (float(1 / a[0, 0]), 0.0)
        else:
            groups[group] = nonnegative(a, np.ones(len(found)))
    return NullModel(groups)
