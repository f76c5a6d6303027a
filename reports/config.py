# SPDX-License-Identifier: GPL-2.0-or-later
"""What every replay of a comparison has in common, and what it has not.

Common facts are printed once above the table; a fact that differs is printed
per replay, because then the columns do not only differ by their policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

import polars as pl

from replay import coverage
from replay.result import Replay, folio_pages
from reports import names, numbers
from reports.redact import Redactor
from reports.text import WIDTH, wrap
from tracer.output import size

SHA_DIGITS = 12


@dataclass(frozen=True)
class Fact:
    """One line of the configuration.

    :ivar values: one value when all replays agree, else one per replay
    """

    name: str
    values: tuple[str, ...]

    @property
    def common(self) -> bool:
        """:return: whether all replays agree."""
        return len(self.values) == 1


def version() -> str:
    """:return: the installed version of mmtrace."""
    try:
        return metadata.version("mmtrace")
    except metadata.PackageNotFoundError:
        return "unknown"


def sha_prefix(replay: Replay) -> str:
    """:return: the first digits of the capture's sha256, or ``unknown``."""
    return str(replay.provenance.get("sha256") or "unknown")[:SHA_DIGITS]


def trailer(replays: Sequence[Replay], tool: str | None = None) -> str:
    """:return: the line to paste under a table: version and capture hashes."""
    shas = list(dict.fromkeys(sha_prefix(r) for r in replays))
    return f"mmtrace: {tool or version()} {' '.join(shas)}"


def page_size(replay: Replay) -> int | None:
    """:return: bytes per page of the capture's kernel."""
    value = replay.provenance.get("page_size")
    return int(value) if value else None


def facts(replays: Sequence[Replay], redactor: Redactor) -> list[Fact]:
    """:return: capture, kernel, CPU and workload, in reading order."""
    kinds: tuple[tuple[str, Callable[[Replay], str]], ...] = (
        ("capture", _capture),
        ("kernel", _kernel),
        ("cpu", lambda r: names.features(r.cpu)),
        ("workload", lambda r: workload(r, redactor)),
    )
    out = []
    for name, value in kinds:
        values = [value(r) for r in replays]
        out.append(Fact(name, (values[0],) if len(set(values)) == 1 else tuple(values)))
    return out


def _capture(replay: Replay) -> str:
    have = replay.provenance
    parts = [sha_prefix(replay), str(have.get("container") or "unknown container")]
    return ", ".join([*parts, size(have.get("size"))])


def _kernel(replay: Replay) -> str:
    have = replay.provenance
    page = page_size(replay)
    pages = f"{page // 1024}K pages" if page else "page size unknown"
    return ", ".join(
        [str(have.get("kernel_release") or "unknown"), str(have.get("arch") or "arch?"), pages]
    )


def workload(replay: Replay, redactor: Redactor) -> str:
    """:return: the task with most pages worked on, its share, and the totals."""
    # What ranges met is counted where it matters, by order; here it would depend on the view.
    met = pl.col("op").is_in(coverage.RANGES)
    tasks = (
        replay.rows.with_columns(folio_pages())
        .with_columns(pl.when(met).then(0).otherwise(pl.col("nr_pages")).alias("nr_pages"))
        .group_by("comm", maintain_order=True)
        .agg(pl.col("nr_pages", "nr_ops").sum(), pl.col("seq").min())
        .sort(["nr_pages", "nr_ops", "seq"], descending=[True, True, False])
    )
    if not tasks.height:
        return "no operations"
    first = tasks.row(0, named=True)
    pages = int(tasks["nr_pages"].sum())
    name = redactor.comm(first["comm"])
    if tasks.height > 1 and pages:
        name += f" ({100 * first['nr_pages'] // pages}% of the pages)"
    return (
        f"{name}; {numbers.plural(tasks.height, 'task')}, "
        f"{numbers.plural(replay.nr_ops, 'operation')} on {numbers.plural(pages, 'page')}"
    )


def fact_lines(facts: Sequence[Fact], labels: Sequence[str], columns: int = WIDTH) -> list[str]:
    """:return: the configuration as text, one fact per line or per replay."""
    width = max(len(f.name) for f in facts) + 2
    out = []
    for fact in facts:
        if fact.common:
            out += wrap(fact.values[0], fact.name.ljust(width), width=columns)
            continue
        for i, (label, value) in enumerate(zip(labels, fact.values, strict=True)):
            head = (fact.name if i == 0 else "").ljust(width)
            out += wrap(f"{label}: {value}", head, " " * (width + 2), columns)
    return out
