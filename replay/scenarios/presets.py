# SPDX-License-Identifier: GPL-2.0-or-later
"""Named workloads of published measurements, by the row they are published in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

_M: Final = 1 << 20
_G: Final = 1 << 30
_K4: Final = 4 << 10
_K64: Final = 64 << 10
_M2: Final = 2 << 20


@dataclass(frozen=True)
class Preset:
    """One published workload.

    :ivar row: id of the row in published-measurements.md, section 2
    :ivar timed: the phase that the publication timed; "" for all timed phases
    :ivar policies: what it compares, before and after
    """

    name: str
    row: str
    title: str
    scenario: str
    timed: str
    params: dict[str, Any] = field(default_factory=dict)
    policies: tuple[str, str] = ("unbatched", "batched")


_ANON: Final = ("linux-7.3", "linux-7.3+anon-batch")
_X86_ORDERS: Final = (0, 2, 3, 4, 5, 6, 7, 8, 9)


def _all() -> list[Preset]:
    found = [
        Preset("A1", "A1", "swap-out of 256 MiB of 64K folios", "pageout", "pageout",
               {"size": 256 * _M, "folio_size": _K64}, _ANON),
        Preset("A4", "A4", "swap-out of 256 MiB of 4K folios", "pageout", "pageout",
               {"size": 256 * _M, "folio_size": _K4}, _ANON),
        Preset("A6", "A6", "lazyfree unmap of 128 MiB of 64K folios", "lazyfree",
               "pageout_lazyfree", {"size": 128 * _M, "folio_size": _K64},
               ("linux-6.12", "linux-7.3")),
    ]  # fmt: skip
    for order in (2, 4, 9):
        size = {"size": 8 * _G, "folio_size": _K4 << order}
        found += [
            Preset(f"A8-{order}", "A8", f"file unmap of 8 GiB at order {order}", "file-unmap",
                   "file_unmap", size, ("linux-6.12", "linux-7.3")),
            Preset(f"A9-{order}", "A9", f"aging of 8 GiB at order {order}", "aging", "aging",
                   size, ("linux-6.12", "linux-7.3")),
        ]  # fmt: skip
    for order in _X86_ORDERS:
        params = {"size": _G, "folio_size": _K4 << order, "pte_mapped": True}
        found += [
            Preset(f"Z1-{order}", "Z1", f"munmap of 1 GiB at order {order}", "munmap", "munmap",
                   params),
            Preset(f"F1-{order}", "F1", f"fork of 1 GiB at order {order}", "fork", "fork", params),
        ]  # fmt: skip
    for order in (0, 9):
        params = {"size": _G, "folio_size": _K4 << order, "pte_mapped": True}
        found += [
            Preset(f"Z5-{order}", "Z5", f"munmap of 1 GiB at order {order}, contpte", "munmap",
                   "munmap", params),
            Preset(f"Z7-{order}", "Z7", f"MADV_DONTNEED page by page, order {order}",
                   "dontneed-page", "dontneed_page", params),
            Preset(f"F4-{order}", "F4", f"fork of 1 GiB at order {order}, contpte", "fork", "fork",
                   params),
        ]  # fmt: skip
    for name, folio in (("T1", _M2), ("T2", _K64), ("T3", _K4)):
        found.append(
            Preset(f"P1-{name}", "P1", f"mprotect of 1 GiB, 40 times RO and RW, {folio >> 10}K",
                   "mprotect", "", {"size": _G, "folio_size": folio, "pte_mapped": True,
                   "iterations": 40}, ("linux-6.12", "linux-7.3"))
        )  # fmt: skip
    return found + _rest()


def _rest() -> list[Preset]:
    found = [
        Preset("P2", "P2", "one mprotect per 4K page, RO and RW", "mprotect-page", "",
               {"size": 16 * _M, "folio_size": _K4}, ("linux-6.12", "linux-7.3")),
        Preset("P3", "P3", "mprotect of 64 MiB of shared anon memory", "mprotect", "",
               {"size": 64 * _M, "folio_size": _K4, "how": "shmem"}, ("linux-6.12", "linux-7.3")),
        Preset("M1", "M1", "mremap of 1 MiB of 64K folios inside a PMD", "mremap", "mremap",
               {"size": _M, "folio_size": _K64, "how": "next"}, ("linux-6.12", "linux-7.3")),
        Preset("M6", "M6", "mremap of 1 GiB by PUD", "mremap", "mremap",
               {"size": _G, "folio_size": _K4, "how": "pud"}, ("linux-7.3", "linux-7.3")),
        Preset("M6-pmd", "M6", "mremap of 1 GiB by PMD, flush per PMD or once", "mremap", "mremap",
               {"size": _G, "folio_size": _K4, "how": "pmd"},
               ("linux-7.3", "x-mremap-flush-deferred")),
    ]  # fmt: skip
    policies = {"C1": "linux-6.12", "C2": "linux-6.12", "C3": "x-nocontpte", "C4": "linux-7.3"}
    for i, (how, policy) in enumerate(policies.items(), 1):
        found.append(
            Preset(f"K{i}", f"K{i}", f"page_fault3, configuration {i}", "page_fault3", "",
                   {"size": 128 * _M, "folio_size": _K64, "how": how, "tasks": 128, "cpus": 128},
                   ("linux-6.12", policy))
        )  # fmt: skip
    return found


PRESETS: Final[dict[str, Preset]] = {p.name: p for p in _all()}
