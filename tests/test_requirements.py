# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/requirements.md promises nothing that is not there."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import typer

import mmtrace
from reports import options, replayverbs
from tests.conftest import ROOT
from tests.test_reports_data import prices
from tests.test_reports_html import LOSS, written

TEXT = (ROOT / "docs" / "requirements.md").read_text()
ROWS = {
    cells[0]: cells[1:]
    for line in TEXT.splitlines()
    if (cells := [c.strip() for c in line.strip("|").split("|")])[0].startswith("R")
    and re.fullmatch(r"R\d+", cells[0])
}
COMMANDS = typer.main.get_command(mmtrace.app).commands  # type: ignore[attr-defined]

CHOICES = {"--by": options.CompareBy, "--to": replayverbs.ExportTo}


def code(cell: str) -> list[str]:
    """:return: what stands in backticks"""
    return re.findall(r"`([^`]+)`", cell)


def test_every_requirement_has_a_row() -> None:
    assert list(ROWS) == [f"R{n}" for n in range(1, 25)]
    assert all(len(cells) == 4 and all(cells) for cells in ROWS.values())


@pytest.mark.parametrize("number", ROWS)
def test_commands_exist(number: str) -> None:
    for command in code(ROWS[number][1]):
        verb, *words = shlex.split(command)
        options = {o for p in COMMANDS[verb].params for o in p.opts}
        assert {w for w in words if w.startswith("--")} <= options, command
        for option, value in pairwise(words):
            assert value in {str(v) for v in CHOICES[option]}, command


@pytest.mark.parametrize("number", ROWS)
def test_sources_exist(number: str) -> None:
    files = code(ROWS[number][3])
    assert files
    for file in files:
        assert (ROOT / file).exists(), file


def test_sections_exist(tmp_path: Path) -> None:
    text = written(tmp_path, loss=LOSS, prices=prices())
    for number, cells in ROWS.items():
        sections = code(cells[2])
        assert sections, number
        for section in sections:
            assert f'<h2 id="{section.removeprefix("#")}"' in text, (number, section)
            assert f'href="{section}"' in text, (number, section)
