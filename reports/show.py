# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmtrace show``: the report's summary for a terminal, 75 columns unless it says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

import polars as pl

from replay.result import Replay
from reports import config, names, numbers, timeline
from reports.compare import Comparison, Row, compare
from reports.figures import choices
from reports.mail import notes
from reports.redact import Redactor
from reports.text import WIDTH, to_ascii, wrap
from reports.verdict import noun, verdict
from tracer.info import lost

NARROWEST: Final = 40
MOST_ROWS: Final = 8
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_BLOCKS: Final = " ▏▎▍▌▋▊▉█"
_ASCII_SPARKS: Final = "_.-=+*%#"
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True)
class Look:
    """What the terminal can do.

    :ivar width: columns
    :ivar unicode: block characters can be printed
    :ivar colour: escape sequences are wanted; they only ever repeat what words say
    """

    width: int = WIDTH
    unicode: bool = False
    colour: bool = False

    @classmethod
    def of(cls, out: TextIO, env: Mapping[str, str]) -> Look:
        """:return: what a stream and the environment say: COLUMNS, NO_COLOR, FORCE_COLOR, TERM"""
        columns = env.get("COLUMNS", "")
        width = int(columns) if columns.isascii() and columns.isdigit() else WIDTH
        plain = bool(env.get("NO_COLOR")) or env.get("TERM") == "dumb"
        wanted = out.isatty() or bool(env.get("FORCE_COLOR"))
        unicode = (out.encoding or "").lower().replace("-", "") == "utf8"
        return cls(max(width, NARROWEST), unicode, wanted and not plain)

    def bold(self, text: str) -> str:
        """:return: the text, emphasised where that is wanted"""
        return f"{_BOLD}{text}{_PLAIN}" if self.colour else text

    def dim(self, text: str) -> str:
        """:return: the text, toned down where that is wanted"""
        return f"{_DIM}{text}{_PLAIN}" if self.colour else text


def bar(value: int, most: int, width: int, unicode: bool) -> str:
    """:return: a bar at most ``width`` long; never empty for a value above 0"""
    if not value or not most:
        return ""
    eighths = max(1, round(8 * width * value / most))
    if not unicode:
        return "#" * max(1, eighths // 8)
    return _BLOCKS[8] * (eighths // 8) + (_BLOCKS[eighths % 8] if eighths % 8 else "")


def spark(values: Sequence[int], most: int, unicode: bool) -> str:
    """:return: one character per value; a blank is 0"""
    steps = _SPARKS if unicode else _ASCII_SPARKS
    return "".join(
        steps[min(len(steps) - 1, (len(steps) * v - 1) // max(most, 1))] if v else " "
        for v in values
    )


def show(
    replays: Sequence[Replay], loss: pl.DataFrame | None, look: Look, raw: bool = False
) -> str:
    """The summary as text.

    :param replays: the first is the base
    :param loss: :data:`tracer.schema.LOSS_COLUMNS`
    """
    total = compare(replays, raw=raw)
    redactor = Redactor.of(replays, raw)
    parts = [
        [look.bold(line) for line in wrap(verdict(total), width=look.width)],
        config.fact_lines(total.facts, total.labels, look.width),
        *_counters(total, look),
        *(_by(replays, by, raw, look) for by in ("order", "syscall", "op")),
        _time(total, redactor, look),
        _last(total, loss, look),
    ]
    text = "\n\n".join("\n".join(p) for p in parts if p) + "\n"
    return text if look.unicode else to_ascii(text)


def _counters(total: Comparison, look: Look) -> list[list[str]]:
    """:return: a block per headline counter, a bar per policy"""
    rows = total.rows[0]
    return [_bars(f"{c}, {noun(c)}" if noun(c) != c else c, total.labels, rows.counts(c), look)
            for c in choices(total)[:4]]  # fmt: skip


def _bars(title: str, labels: Sequence[str], counts: Sequence[int | None], look: Look) -> list[str]:
    lead = max(map(len, labels))
    texts = [_told(counts[0], c, i) for i, c in enumerate(counts)]
    tail = max(map(len, texts))
    room = max(8, look.width - lead - tail - 4)
    most = max((c or 0 for c in counts), default=0)
    out = [look.bold(title)]
    for label, count, text in zip(labels, counts, texts, strict=True):
        drawn = bar(count or 0, most, room, look.unicode)
        out.append(f"{label.ljust(lead)}  {text.rjust(tail)}  {drawn}".rstrip())
    return out


def _told(base: int | None, count: int | None, i: int) -> str:
    """:return: the count, and how it differs where it is not the base's"""
    text = numbers.count(count)
    return f"{text} ({numbers.percent(base, count)})" if i else text


def _by(replays: Sequence[Replay], by: str, raw: bool, look: Look) -> list[str]:
    """:return: the rows with most of the first counter, a bar of the base and the changes"""
    found = compare(replays, by=by, raw=raw)
    counter = choices(found)[0]
    rows = [
        r
        for r in found.rows
        if any(r.counts(counter)) or (by == "order" and r.label != names.RANGES)
    ]
    if by != "order":
        rows.sort(key=lambda r: -max(v or 0 for v in r.counts(counter)))
    kept = rows[:MOST_ROWS]
    if not kept:
        return []
    title = {"order": "folio order", "syscall": "system call", "op": "operation"}[by]
    out = [look.bold(f"{counter} by {title}")]
    out += _rows(kept, counter, look)
    left = len(rows) - len(kept)
    return [*out, look.dim(f"and {left:,} smaller")] if left > 0 else out


def _rows(rows: Sequence[Row], counter: str, look: Look) -> list[str]:
    counts = [r.counts(counter) for r in rows]
    lead = max(len(r.label) for r in rows)
    texts = [" > ".join(numbers.count(v) for v in c) for c in counts]
    changes = [", ".join(numbers.percent(c[0], v) for v in c[1:]) for c in counts]
    tail, last = max(map(len, texts)), max(map(len, changes))
    room = max(4, look.width - lead - tail - last - 6)
    most = max(v or 0 for c in counts for v in c)
    out = []
    for row, count, text, change in zip(rows, counts, texts, changes, strict=True):
        drawn = bar(count[0] or 0, most, room, look.unicode)
        out.append(
            f"{row.label.ljust(lead)}  {text.rjust(tail)}  {change.rjust(last)}  {drawn}".rstrip()
        )
    return out


def _time(total: Comparison, redactor: Redactor, look: Look) -> list[str]:
    """:return: a sparkline per policy over the recorded time"""
    counter = choices(total)[0]
    found, _ = timeline.moments(total.replays, [counter], redactor)
    if not found:
        return []
    lead = max(map(len, total.labels))
    cells = max(8, look.width - lead - 2)
    end = max(m.at for m in found) or 1.0
    out = [look.bold(f"{counter} over {end:,.0f} ms")]
    slots = [[0] * cells for _ in total.labels]
    for moment in found:
        at = min(cells - 1, int(cells * moment.at / end))
        for i, value in enumerate(moment.counts[counter]):
            slots[i][at] += value
    most = max(max(s) for s in slots)
    for label, values in zip(total.labels, slots, strict=True):
        out.append(f"{label.ljust(lead)}  {spark(values, most, look.unicode)}".rstrip())
    return out


def _last(total: Comparison, loss: pl.DataFrame | None, look: Look) -> list[str]:
    """:return: what grows, what limits the numbers, and what they are of"""
    said = notes(total, look.width)
    said = said[: next(i for i, line in enumerate(said) if line.startswith("legend"))]
    events = "not known" if loss is None else lost(loss)
    return [
        *said,
        *wrap(f"lost:   {events}", width=look.width),
        look.dim("Exact counts of a replay, not times; negative is fewer."),
        look.dim(config.trailer(total.replays)),
    ]
