# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters of a scenario, and sizes as people write them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

from replay.arm64.geometry import Granule, granule
from tracer.errors import UsageError

_UNITS: Final = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Params:
    """What a workload can be asked to vary. Sizes and offsets are bytes.

    :ivar size: of the region each task works on
    :ivar folio_size: of the folios that fill it, a power of two of pages
    :ivar alignment: distance of the region's start from a PUD boundary
    :ivar dirty: entries were written; otherwise swap-in mapped them for reads
    :ivar young: entries were used since they were mapped; otherwise reclaim aged them
    :ivar shared: a second process maps the same pages (it forked and lives)
    :ivar partial: pages of every 16 that MADV_DONTNEED took out before, 0 for none
    :ivar pte_mapped: folios of PMD size are mapped by PTEs
    :ivar tasks: processes that do the same; counts are of one of them
    :ivar cpus: CPUs that run them at the same time
    :ivar iterations: how often the timed phases are repeated
    :ivar how: variant, by scenario: C1 to C4, pte, pmd, pud, aligned, misaligned, ...
    """

    size: int = 256 << 20
    folio_size: int = 64 << 10
    granule: str = "4K"
    alignment: int = 0
    dirty: bool = True
    young: bool = True
    shared: bool = False
    partial: int = 0
    pte_mapped: bool = False
    tasks: int = 1
    cpus: int = 1
    iterations: int = 1
    how: str = ""

    def geometry(self) -> Granule:
        return granule(self.granule)

    @property
    def order(self) -> int:
        """Order of a folio."""
        return (self.folio_size // self.geometry().page_size).bit_length() - 1


def parse_size(text: str | int) -> int:
    """``64K``, ``1G``, ``4096`` as bytes.

    :raises UsageError: when it is not a size
    """
    if isinstance(text, int):
        return text
    number, unit = text.strip().upper().removesuffix("IB"), ""
    if number and number[-1] in _UNITS:
        number, unit = number[:-1], number[-1]
    if not number.isdigit():
        raise UsageError(f"{text!r} is not a size.", "Write 64K, 256M, 1G or a number of bytes.")
    return int(number) * _UNITS[unit]


def make(defaults: Params, given: dict[str, Any]) -> Params:
    """``defaults`` with what was given, checked.

    :raises UsageError: for unknown names and impossible values
    """
    names = {f.name for f in fields(Params)}
    for key in given:
        if key not in names:
            raise UsageError(
                f"No scenario parameter {key!r}.", f"Known: {', '.join(sorted(names))}."
            )
    sizes = {"size", "folio_size", "alignment"}
    values: dict[str, Any] = {
        k: parse_size(v) if k in sizes else v for k, v in given.items() if v is not None
    }
    params = replace(defaults, **values)
    _check(params)
    return params


def _check(params: Params) -> None:
    page = params.geometry().page_size
    folio = params.folio_size
    if folio < page or folio & (folio - 1) or params.order > 15:
        raise UsageError(f"A folio of {folio} bytes does not exist with {page} byte pages.")
    if params.size < page or params.size % page or params.alignment % page:
        raise UsageError(f"size and alignment are multiples of the {page} byte page.")
    if min(params.tasks, params.cpus, params.iterations) < 1 or not 0 <= params.partial <= 16:
        raise UsageError("tasks, cpus and iterations are at least 1, partial is 0 to 16.")
