# SPDX-License-Identifier: GPL-2.0-or-later
"""Plain-text tables that survive a mail: at most 75 columns, ASCII, no boxes.

A :class:`Table` is rows of :class:`Cell`; cells may span columns and carry
footnotes. Widths are solved over the whole table, then every row is printed
with the same column positions. Nothing is ever cut to fit: a table that is too
wide is split into several with :func:`pack`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

from tracer.output import WIDTH as WIDTH  # re-export: one place says how wide a mail is
from tracer.output import printable

Align = Literal["l", "r", "c"]
T = TypeVar("T")


# Characters that reports use and a 7-bit mail does not; the rest is escaped.
_ASCII: Final = str.maketrans(
    {"→": "->", "−": "-", "–": "-", "—": "-", "±": "+-", "×": "x", "µ": "u", "μ": "u"}
    | {"≤": "<=", "≥": ">=", "…": "...", "“": '"', "”": '"', "’": "'", "·": ",", "\u00a0": " "}
)


def to_ascii(text: str) -> str:
    """:return: ``text`` in 7-bit ASCII; unknown characters become ``\\x..`` escapes."""
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")


def wrap(text: str, first: str = "", rest: str | None = None, width: int = WIDTH) -> list[str]:
    """Fill a paragraph.

    :param first: prefix of the first line
    :param rest: prefix of the other lines; spaces as wide as ``first`` by default
    :return: lines of at most ``width`` columns, unless one word is longer
    """
    rest = " " * len(first) if rest is None else rest
    lines = textwrap.wrap(
        printable(text),
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [first.rstrip()]


@dataclass(frozen=True)
class Cell:
    """One cell.

    :ivar span: columns it covers
    :ivar note: footnote text; equal texts share one mark
    """

    text: str
    align: Align = "l"
    span: int = 1
    note: str = ""


def right(text: str, span: int = 1, note: str = "") -> Cell:
    """:return: a right-aligned cell, the form for numbers."""
    return Cell(text, "r", span, note)


@dataclass
class _Widths:
    text: list[int]
    mark: list[int]

    def total(self, first: int, span: int, gap: int) -> int:
        """:return: columns that ``span`` table columns from ``first`` on take."""
        part = slice(first, first + span)
        return sum(self.text[part]) + sum(self.mark[part]) + gap * (span - 1)


class Table:
    """Rows of cells, laid out when asked for.

    :param gap: spaces between columns
    """

    def __init__(self, gap: int = 2) -> None:
        self.gap = gap
        self._rows: list[list[Cell] | str] = []
        self._notes: list[str] = []

    def row(self, *cells: str | Cell) -> None:
        """Append a row; a bare string is a left-aligned cell."""
        made = [_safe(Cell(c) if isinstance(c, str) else c) for c in cells]
        for cell in made:
            if cell.note and cell.note not in self._notes:
                self._notes.append(cell.note)
        self._rows.append(made)

    def rule(self, char: str = "-") -> None:
        """Append a horizontal line as wide as the table."""
        self._rows.append(char)

    @property
    def width(self) -> int:
        """:return: columns of the longest line of the body, footnotes apart."""
        return max((len(line) for line in self._body()), default=0)

    def lines(self, width: int = WIDTH) -> list[str]:
        """:return: the table, then its footnotes filled to ``width``."""
        out = self._body()
        for number, note in enumerate(self._notes, 1):
            out += wrap(note, f"[{number}] ", width=width)
        return out

    def _mark(self, cell: Cell) -> str:
        return f"[{self._notes.index(cell.note) + 1}]" if cell.note else ""

    def _widths(self) -> _Widths:
        rows = [r for r in self._rows if not isinstance(r, str)]
        columns = max((sum(c.span for c in r) for r in rows), default=0)
        widths = _Widths([0] * columns, [0] * columns)
        for row in rows:
            at = 0
            for cell in row:
                if cell.span == 1:
                    widths.text[at] = max(widths.text[at], len(cell.text))
                    widths.mark[at] = max(widths.mark[at], len(self._mark(cell)))
                at += cell.span
        # Spans last: they may only add what their columns do not have already.
        for row in rows:
            at = 0
            for cell in row:
                if cell.span > 1:
                    have = widths.total(at, cell.span, self.gap)
                    # The first column grows, which moves the group away from its neighbour.
                    widths.text[at] += max(0, len(cell.text + self._mark(cell)) - have)
                at += cell.span
        return widths

    def _body(self) -> list[str]:
        widths = self._widths()
        full = widths.total(0, len(widths.text), self.gap)
        return [
            row * full if isinstance(row, str) else self._line(row, widths) for row in self._rows
        ]

    def _line(self, row: Sequence[Cell], widths: _Widths) -> str:
        parts, at = [], 0
        for cell in row:
            mark = self._mark(cell)
            total = widths.total(at, cell.span, self.gap)
            if cell.align == "l":
                parts.append((cell.text + mark).ljust(total))
            else:
                # Marks have a place of their own, so that digits stay aligned.
                place = widths.mark[at] if cell.span == 1 else len(mark)
                parts.append(_pad(cell.text, total - place, cell.align) + mark.ljust(place))
            at += cell.span
        return (" " * self.gap).join(parts).rstrip()


def _safe(cell: Cell) -> Cell:
    """:return: the cell with line breaks and escape sequences made visible."""
    return replace(cell, text=printable(cell.text), note=printable(cell.note))


def _pad(text: str, width: int, align: Align) -> str:
    return text.rjust(width) if align == "r" else text.center(width)


def pack(
    groups: Sequence[T], build: Callable[[Sequence[T]], Table], width: int = WIDTH
) -> list[Table]:
    """Spread column groups over as few tables as the width allows, in order.

    :param groups: what each further set of columns is made of
    :param build: makes a table, lead columns included, of some groups
    :return: the tables; one that is too wide with a single group stays so
    """
    tables: list[Table] = []
    taken: list[T] = []
    for group in groups:
        if taken and build([*taken, group]).width > width:
            tables.append(build(taken))
            taken = []
        taken.append(group)
    if taken:
        tables.append(build(taken))
    return tables


def join(blocks: Iterable[Sequence[str]]) -> str:
    """:return: blocks of lines with one empty line between them, newline at the end."""
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"
