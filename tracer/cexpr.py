# SPDX-License-Identifier: GPL-2.0-or-later
"""The integer constants of print formats: ``((gfp_t)(1UL << 10)) | 0x40u``.

What the preprocessor leaves of a flag table is C, of which this evaluates integer
literals, known enumerators, casts, parentheses and the unary and binary operators
without side effects. Anything else is no constant: None, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MAX_DEPTH: Final = 64  # parentheses and unary operators; the gfp tables of 7.3 nest 13 deep
MAX_TOKENS: Final = 4096  # of one expression
MASK: Final = (1 << 64) - 1

_TOKEN: Final = re.compile(
    r"\s*(0[xX][0-9a-fA-F]{1,16}[uUlL]{0,3}|\d{1,20}[uUlL]{0,3}|[A-Za-z_]\w{0,127}"
    r"|'[^'\\]'|<<|>>|[-+~|&^()*])"
)
# From weak to strong, as in C.
_PRECEDENCE: Final = {"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4, "+": 5, "-": 5, "*": 6}
_UNARY: Final = 7
# Casts to these cut the value; to any other type it is left as it is.
_BITS: Final = {"char": 8, "u8": 8, "__u8": 8, "short": 16, "u16": 16, "__u16": 16,
                "u32": 32, "__u32": 32, "uint32_t": 32, "gfp_t": 32}  # fmt: skip
_TYPES: Final = frozenset({*_BITS, "int", "long", "unsigned", "u64", "__u64", "s64"})
_OPERAND: Final = re.compile(r"[(~'\w]")


class _NotConstantError(Exception):
    """The text is not an expression that this grammar knows."""


def evaluate(text: str, names: Mapping[str, int] | None = None) -> int | None:
    """Evaluate a constant expression modulo 2**64, as an ``unsigned long``.

    :param text: C source
    :param names: enumerators by name
    :return: 0 to 2**64 - 1, or None when it is no constant
    """
    tokens = _tokens(text)
    if not tokens:
        return None
    parser = _Parser(tokens, names or {})
    try:
        value = parser.expression(0, 0)
    except _NotConstantError:
        return None
    return value & MASK if parser.at == len(tokens) else None


def _tokens(text: str) -> list[str] | None:
    out: list[str] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        m = _TOKEN.match(text, at, end)
        if m is None or len(out) == MAX_TOKENS:
            return None
        out.append(m[1])
        at = m.end()
    return out


class _Parser:
    """Precedence climbing over a list of tokens."""

    def __init__(self, tokens: list[str], names: Mapping[str, int]) -> None:
        self.tokens = tokens
        self.names = names
        self.at = 0

    def expression(self, weakest: int, depth: int) -> int:
        """Evaluate operators that bind stronger than ``weakest``."""
        left = self._unary(depth)
        while self.at < len(self.tokens):
            op = self.tokens[self.at]
            strength = _PRECEDENCE.get(op, 0)
            if strength <= weakest:
                return left
            self.at += 1
            left = _apply(op, left, self.expression(strength, depth + 1))
        return left

    def _unary(self, depth: int) -> int:
        if depth > MAX_DEPTH or self.at >= len(self.tokens):
            raise _NotConstantError
        token = self.tokens[self.at]
        self.at += 1
        if token == "(":
            cast = self._cast()
            if cast is not None:
                return _cut(self._unary(depth + 1), cast)
            value = self.expression(0, depth + 1)
            if self.tokens[self.at : self.at + 1] != [")"]:
                raise _NotConstantError
            self.at += 1
            return value
        if token in "+-~":
            value = self._unary(depth + 1)
            return value if token == "+" else -value if token == "-" else ~value
        return self._primary(token)

    def _cast(self) -> list[str] | None:
        """Step over ``type)`` behind a parenthesis that opens a cast.

        :return: the words of the type; None, and no step, when it is an expression
        """
        end = self.at
        while end < len(self.tokens) and end - self.at < 6 and _is_word(self.tokens[end]):
            end += 1
        words = self.tokens[self.at : end]
        closed = self.tokens[end : end + 1] == [")"]
        if not words or not closed or (len(words) == 1 and words[0] in self.names):
            return None
        # "(NAME)" that nothing follows is an enumerator that is not known, not a cast.
        following = self.tokens[end + 1 : end + 2]
        negative = following == ["-"] and (len(words) > 1 or words[0] in _TYPES)
        if not negative and not (following and _OPERAND.match(following[0])):
            return None
        self.at = end + 1
        return words

    def _primary(self, token: str) -> int:
        if token[0].isdigit():
            bare = token.rstrip("uUlL")
            octal = len(bare) > 1 and bare.isdigit() and bare[0] == "0"
            try:
                return int(bare, 8 if octal else 0)
            except ValueError:
                raise _NotConstantError from None
        if token[0] == "'":
            return ord(token[1])
        if token in self.names:
            return self.names[token]
        raise _NotConstantError


def _is_word(token: str) -> bool:
    return token[0].isalpha() or token[0] == "_"


def _cut(value: int, words: list[str]) -> int:
    """A conversion to an unsigned type of known width; signed ones are left alone."""
    for word in words:
        if word in _BITS and (word not in ("char", "short") or "unsigned" in words):
            return value & ((1 << _BITS[word]) - 1)
    return value


def _apply(op: str, left: int, right: int) -> int:
    if op in ("<<", ">>"):
        if not 0 <= right < 64:
            raise _NotConstantError
        return (left << right) & MASK if op == "<<" else (left & MASK) >> right
    if op == "|":
        return left | right
    if op == "&":
        return left & right
    if op == "^":
        return left ^ right
    value = left + right if op == "+" else left - right if op == "-" else left * right
    # Keep the numbers small: 64 bits are all that any field has.
    return value if -MASK <= value <= MASK else value & MASK
