# SPDX-License-Identifier: GPL-2.0-or-later
"""fixtures/README.md lists every fixture with what it holds."""

from __future__ import annotations

import hashlib
import re

from tests.conftest import FIXTURES, content

README = FIXTURES / "README.md"


def listed(heading: str) -> dict[str, str]:
    text = README.read_text()
    block = text[text.index(heading) :].split("```")[1]
    return {path: digest for digest, path in re.findall(r"([0-9a-f]{64})  (\S+)", block)}


def test_every_file_has_its_sum() -> None:
    sources = FIXTURES / "lab"  # what makes fixtures is none
    files = [
        p
        for p in FIXTURES.rglob("*")
        if p.is_file() and p != README and not p.is_relative_to(sources)
    ]
    sums = {str(p.relative_to(FIXTURES)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    assert listed("## SHA-256 of the files") == sums


def test_every_unpacked_file_has_its_sum() -> None:
    names = [str(p.relative_to(FIXTURES).with_suffix("")) for p in FIXTURES.rglob("*.zst")]
    sums = {name: hashlib.sha256(content(name)).hexdigest() for name in names}
    assert listed("## SHA-256 of what is inside") == sums


def test_fixtures_stay_small() -> None:
    assert sum(p.stat().st_size for p in FIXTURES.rglob("*") if p.is_file()) < 12 << 20
