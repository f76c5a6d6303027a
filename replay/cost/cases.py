# SPDX-License-Identifier: GPL-2.0-or-later
"""What is predicted: published workloads, each side a policy, on every machine it concerns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from replay.cost.tables import NAMES

ARM64: Final = tuple(n for n in NAMES if n != "xeon-4210r")
X86: Final = ("xeon-4210r",)
ORDERS: Final = (0, 2, 3, 4, 5, 6, 7, 8, 9)
MIB: Final = 1 << 20
_PLAIN: Final = "contpte=0,fold=0"
_ONE_BY_ONE: Final = "fork=unbatched,zap=unbatched"


@dataclass(frozen=True)
class Side:
    """One column of a case.

    :ivar label: as scores and tables name it
    :ivar params: of the scenario, over the preset's own
    :ivar scale: what the replayed part is repeated by in the measurement
    :ivar null: workload of the null model, "" where it has no rows
    """

    label: str
    preset: str
    policy: str
    params: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    null: str = ""


@dataclass(frozen=True)
class Case:
    """A published comparison; the first side is the base.

    :ivar kernel_6_8: measured on 6.8, whose rmap has fewer counters
    """

    name: str
    title: str
    machines: tuple[str, ...]
    sides: tuple[Side, ...]
    kernel_6_8: bool = False


def _two(name: str, title: str, preset: str, before: str, after: str, **extra: Any) -> Case:
    scale = extra.pop("scale", 1.0)
    null = extra.pop("null", "")
    machines = extra.pop("machines", NAMES)
    sides = (
        Side("before", preset, before, extra, scale, f"{null}/before" if null else ""),
        Side("after", preset, after, extra, scale, f"{null}/after" if null else ""),
    )
    return Case(name, title, machines, sides)


def _reclaim() -> list[Case]:
    anon = ("linux-7.3", "linux-7.3+anon-batch")
    cases = [
        _two("A1", "swap-out of 256 MiB of 64K folios", "A1", *anon),
        _two("A4", "swap-out of 256 MiB of 4K folios", "A4", *anon),
    ]
    for order in ORDERS:
        cases.append(
            _two(f"A6-{order}", f"lazyfree unmap of 128 MiB at order {order}", "A6", "linux-6.12",
                 "linux-6.12,lazyfree=batched", folio_size=4096 << order,
                 pte_mapped=True)
        )  # fmt: skip
    for order in (2, 4, 9):
        cases += [
            _two(f"A8-{order}", f"file unmap of 8 GiB at order {order}", f"A8-{order}",
                 "linux-7.3,file-unmap=unbatched", "linux-7.3", size=512 * MIB, scale=16.0),
            _two(f"A9-{order}", f"aging of 8 GiB at order {order}", f"A9-{order}",
                 "linux-7.3,aging=unbatched", "linux-7.3", size=512 * MIB, scale=16.0),
        ]  # fmt: skip
    return cases


def _teardown() -> list[Case]:
    cases = []
    part: dict[str, Any] = {"size": 64 * MIB}
    for letter, null in (("F1", "fork"), ("Z1", "munmap")):
        for order in ORDERS:
            preset = f"{letter}-{order}"
            title = f"{null} of 1 GiB at order {order}"
            before = Side("before", preset, f"linux-6.12,{_ONE_BY_ONE}", part, 16, f"{null}/before")
            after = Side("after", preset, "linux-6.12", part, 16, f"{null}/after")
            cases.append(Case(preset, title, X86, (before, after), True))
            sides = (
                Side("baseline", preset, f"linux-6.12,{_PLAIN},{_ONE_BY_ONE}", part, 16,
                     f"{null}/before"),
                Side("baseline-batch", preset, f"linux-6.12,{_PLAIN}", part, 16, f"{null}/after"),
                Side("contpte", preset, f"linux-6.12,{_ONE_BY_ONE}", part, 16),
                Side("contpte-batch", preset, "linux-6.12", part, 16),
            )  # fmt: skip
            cases.append(Case(f"{preset}-arm64", title, ARM64, sides, True))
    for order in (0, 9):
        preset = f"Z7-{order}"
        by_page = (
            Side("baseline", preset, f"linux-6.12,{_PLAIN},{_ONE_BY_ONE}", part, 16),
            Side("contpte", preset, f"linux-6.12,{_ONE_BY_ONE}", part, 16),
            Side("contpte-batch", preset, "linux-6.12", part, 16),
        )
        title = f"MADV_DONTNEED page by page, 1 GiB at order {order}"
        plain = (
            Side("before", preset, f"linux-6.12,{_ONE_BY_ONE}", part, 16),
            Side("after", preset, "linux-6.12", part, 16),
        )
        cases += [
            Case(f"{preset}-arm64", title, ARM64, by_page, True),
            Case(preset, title, X86, plain, True),
        ]
    return cases


def _vmas() -> list[Case]:
    kernels = ("linux-6.12", "linux-7.3")
    part: dict[str, Any] = {"size": 64 * MIB, "iterations": 1, "scale": 640.0}
    cases = [
        _two(f"P1-{t}", f"40 times mprotect RO and RW of 1 GiB of {folio} folios", f"P1-{t}",
             *kernels, null="mprotect", **part)
        for t, folio in (("T1", "2M"), ("T2", "64K"), ("T3", "4K"))
    ]  # fmt: skip
    cases += [
        _two("P2", "one mprotect per 4K page, RO and RW, 16 MiB", "P2", *kernels),
        _two("P3", "mprotect RO and RW of 64 MiB of shared memory", "P3", *kernels),
        _two("M1", "mremap of 1 MiB of 64K folios inside a PMD", "M1", *kernels),
    ]
    steps = (
        Side("per-pmd", "M6-pmd", "linux-7.3"),
        Side("deferred", "M6-pmd", "x-mremap-flush-deferred"),
        Side("pud", "M6", "linux-7.3"),
    )
    cases.append(Case("M6", "mremap of 1 GiB by page tables", NAMES, steps))
    return cases


def _faults() -> list[Case]:
    sides = (
        Side("C1", "K1", "linux-6.12", null="page_fault3/before"),
        Side("C2", "K2", "linux-6.12", null="page_fault3/before"),
        Side("C3", "K3", f"linux-6.12,{_PLAIN}", null="page_fault3/before"),
        Side("C4", "K4", "linux-7.3", null="page_fault3/before"),
    )
    return [Case("K", "page_fault3 at 128 tasks, one process and iteration", ARM64, sides)]


CASES: Final[dict[str, Case]] = {
    c.name: c for c in (*_reclaim(), *_teardown(), *_vmas(), *_faults())
}
