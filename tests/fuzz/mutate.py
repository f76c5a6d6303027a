# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage to captures, each kind as a function of a random generator.

Same seed, same mutant: a finding is named by fixture and seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

EDGES: Final = (
    0, 1, 2, 3, 4, 7, 8, 15, 16, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
    0xFFFFFFFF, 1 << 32, 1 << 61, (1 << 63) - 1, 1 << 63, (1 << 64) - 8, (1 << 64) - 1,
)  # fmt: skip
TEXTS: Final = (
    b"0", b"-1", b"4294967295", b"2147483648", b"99999999999999999999", b"[2147483648]", b"\n",
    b"((((((((((((", b"%s%n", b"\0", b"\x1b[2J", b"../../x", b"__data_loc char[] ", b"\r\n", b"]",
)  # fmt: skip


class Mutant(NamedTuple):
    """A damaged capture.

    :ivar data: its bytes
    :ivar kind: name of the damage
    :ivar at: first byte that differs
    :ivar length: bytes that differ, at most; 0 when everything behind ``at`` moved
    """

    data: bytes
    kind: str
    at: int
    length: int


def _place(rng: random.Random, data: bytes, hot: range) -> int:
    """A byte to damage, as often in the hot range (headers, metadata) as anywhere."""
    if len(hot) and rng.random() < 0.4:
        return rng.choice(hot)
    return rng.randrange(len(data))


def _write(data: bytes, at: int, new: bytes, kind: str) -> Mutant:
    new = new[: len(data) - at]
    return Mutant(data[:at] + new + data[at + len(new) :], kind, at, len(new))


def bit_flip(rng: random.Random, data: bytes, hot: range) -> Mutant:
    at = _place(rng, data, hot)
    return _write(data, at, bytes([data[at] ^ 1 << rng.randrange(8)]), "bit flip")


def bit_flips(rng: random.Random, data: bytes, hot: range) -> Mutant:
    """Up to 16 flips within 64 bytes."""
    at = _place(rng, data, hot)
    new = bytearray(data[at : at + 64])
    for _ in range(rng.randint(2, 16)):
        new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
    return _write(data, at, bytes(new), "bit flips")


def ones(rng: random.Random, data: bytes, hot: range) -> Mutant:
    return _write(data, _place(rng, data, hot), b"\xff" * rng.choice((1, 2, 4, 8, 64)), "0xff run")


def zeros(rng: random.Random, data: bytes, hot: range) -> Mutant:
    at, n = _place(rng, data, hot), rng.choice((1, 2, 4, 8, 64, 512, 4096))
    return _write(data, at, bytes(n), "zero run")


def noise(rng: random.Random, data: bytes, hot: range) -> Mutant:
    return _write(data, _place(rng, data, hot), rng.randbytes(rng.choice((4, 16, 256))), "noise")


def truncation(rng: random.Random, data: bytes, hot: range) -> Mutant:
    at = _place(rng, data, hot)
    return Mutant(data[:at], "truncation", at, 0)


def deletion(rng: random.Random, data: bytes, hot: range) -> Mutant:
    at = _place(rng, data, hot)
    n = rng.choice((1, 2, 4, 8, 16, 100, 4096))
    return Mutant(data[:at] + data[at + n :], "deletion", at, 0)


def insertion(rng: random.Random, data: bytes, hot: range) -> Mutant:
    """A copy of bytes from elsewhere."""
    at, start = _place(rng, data, hot), rng.randrange(len(data))
    n = rng.choice((1, 4, 8, 64, 4096))
    return Mutant(data[:at] + data[start : start + n] + data[at:], "insertion", at, 0)


def length_attack(rng: random.Random, data: bytes, hot: range) -> Mutant:
    """An aligned number becomes an edge case, or a little more or less than it was."""
    width = rng.choice((2, 4, 8))
    at = _place(rng, data, hot) // width * width
    order = rng.choice(("little", "little", "little", "big"))
    old = int.from_bytes(data[at : at + width], order)  # type: ignore[arg-type]
    near = (old + 1, old - 1, old + 8, old - 8, old * 2, old // 2, len(data), len(data) + 1, at)
    new = rng.choice(rng.choice((EDGES, near))) % (1 << 8 * width)
    return _write(data, at, new.to_bytes(width, order), "length attack")  # type: ignore[arg-type]


def number_attack(rng: random.Random, data: bytes, hot: range) -> Mutant:
    """Text where a number or word stands: event formats, texts, strings."""
    at = _place(rng, data, hot)
    digits = next((i for i in range(at, min(at + 400, len(data))) if 48 <= data[i] <= 57), at)
    return _write(data, digits, rng.choice(TEXTS), "number attack")


def offset_cycle(rng: random.Random, data: bytes, hot: range) -> Mutant:
    """A u64 in the metadata points at another place of the metadata."""
    at = _place(rng, data, hot)
    target = rng.choice(hot) if len(hot) else rng.randrange(len(data))
    return _write(data, at, target.to_bytes(8, "little"), "offset cycle")


MUTATIONS: Final[tuple[Callable[[random.Random, bytes, range], Mutant], ...]] = (
    bit_flip, bit_flip, bit_flips, ones, zeros, noise, truncation, deletion, insertion,
    length_attack, length_attack, number_attack, offset_cycle,
)  # fmt: skip


def mutate(data: bytes, seed: int, hot: range) -> Mutant:
    """Damage a capture.

    :param data: the intact capture
    :param seed: decides everything
    :param hot: where its headers and metadata lie
    """
    rng = random.Random(seed)
    return rng.choice(MUTATIONS)(rng, data, hot)
