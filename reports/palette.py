# SPDX-License-Identifier: GPL-2.0-or-later
"""Colours: Okabe-Ito and Tol, told apart without colour vision, never red against green.

A figure is drawn with the light colours; the page's script swaps each for its
dark twin by looking the text up, so every light colour appears once in
:data:`DARK`. Marks keep 3:1 and text 4.5:1 against their background in both.
"""

from __future__ import annotations

from typing import Final

INK: Final = "#1d2329"
MUTED: Final = "#59626c"
GRID: Final = "#e4e7eb"
AXIS: Final = "#878f98"
PAPER: Final = "#fefefe"
CLEAR: Final = "rgba(0,0,0,0)"

# The base is neutral: what is compared with it has the colours.
SERIES: Final = ("#5f6872", "#0072b2", "#d55e00", "#aa3377", "#8a6a00", "#332288")
SYMBOLS: Final = ("circle-open", "diamond", "square", "triangle-up", "x", "star")

# Folio orders: 0 cannot be batched and is neutral; the larger, the more contrast (Tol YlOrBr).
ORDERS: Final = (
    "#9aa3ad",
    "#ffeeb0",
    "#fede8f",
    "#fec965",
    "#f9ab3d",
    "#ec8220",
    "#d95f0c",
    "#b84504",
    "#913305",
    "#662507",
)

# Operations in one stack; what has no colour of its own is summed as "other".
PARTS: Final = ("#0072b3", "#d55e01", "#aa3378", "#8a6a01", "#3d8fc6", "#332289", "#b8860b")
PATTERNS: Final = ("", "/", "", "x", "", ".", "\\")

# Classes of contpte blocks: from nothing, light, to one PMD entry, dark.
BLOCKS: Final = ("#eef1f4", "#cdb7dc", "#f2cf63", "#a2abb5", "#e8792f", "#005b96", "#33228a")

DARK: Final[dict[str, str]] = {
    INK: "#e6e9ec",
    MUTED: "#a4adb6",
    GRID: "#2c333b",
    AXIS: "#7d8791",
    PAPER: "#14181d",
    **dict(
        zip(
            SERIES,
            ("#aab3bc", "#56b4e9", "#f0a04b", "#d98cba", "#e0c04c", "#a9a0e8"),
            strict=True,
        )
    ),
    **dict(
        zip(
            ORDERS,
            (
                "#6d7680",
                "#5c2d0c",
                "#753a0c",
                "#924a0e",
                "#b3620f",
                "#d07f22",
                "#e69c45",
                "#f4b96c",
                "#fbd295",
                "#ffeac0",
            ),
            strict=True,
        )
    ),
    **dict(
        zip(
            BLOCKS,
            ("#20262d", "#6b5480", "#c9a53a", "#6d7681", "#f08a45", "#56b4ea", "#c3bcf5"),
            strict=True,
        )
    ),
    **dict(
        zip(
            PARTS,
            ("#56b4e8", "#f0a04c", "#d98cbb", "#e0c04d", "#2f86c0", "#a9a0e9", "#b08a2e"),
            strict=True,
        )
    ),
}


def series(i: int) -> str:
    """:return: colour of the i-th replay; they repeat, with other symbols and labels."""
    return SERIES[0] if i == 0 else SERIES[1 + (i - 1) % (len(SERIES) - 1)]


def symbol(i: int) -> str:
    """:return: marker symbol of the i-th replay."""
    return SYMBOLS[i % len(SYMBOLS)]


def mark_size(i: int) -> int:
    """:return: marker size; the base is a ring wide enough to see behind an equal mark."""
    return 15 if i == 0 else 9


def order(value: int) -> str:
    """:return: colour of a folio order."""
    return ORDERS[min(value, len(ORDERS) - 1)]


def luminance(colour: str) -> float:
    """:return: relative luminance as WCAG 2 defines it, 0 to 1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """:return: contrast ratio, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
