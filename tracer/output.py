# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for terminals: names from captures never reach one raw."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

# Controls, invisible format characters (bidi overrides among them), lone
# surrogates, private use, line and paragraph separators.
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
WIDTH: Final = 75  # what mail quotes without wrapping


def printable(text: object, limit: int = 0) -> str:
    """Make text from a capture safe to print on one line.

    A command name may hold any byte but NUL: escape sequences that rewrite the
    terminal, line breaks that forge a row, bidi overrides that reorder it.

    :param text: anything; ``str()`` of it is used
    :param limit: cut to this many characters, 0 for no limit
    :return: the text with every unsafe character as ``\\xNN`` or ``\\uNNNN``
    """
    out = str(text)
    if not out.isascii() or not out.isprintable():
        out = "".join(_escape(c) for c in out)
    return out if not limit or len(out) <= limit else out[: limit - 1] + "…"


def _escape(c: str) -> str:
    if unicodedata.category(c) not in _UNSAFE:
        return c
    n = ord(c)
    return f"\\x{n:02x}" if n < 0x100 else f"\\u{n:04x}" if n < 0x10000 else f"\\U{n:08x}"


def size(n: int | None) -> str:
    """:return: a byte count with a binary unit, for example ``1.2 MiB``."""
    if n is None:
        return "unknown"
    value, unit = float(n), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def columns(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Align rows of cells.

    :param rows: cells, each row as long as the first
    :param right: indices of columns to align right
    :return: one line per row, columns two spaces apart, no trailing blanks
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
