# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of the source tree that no other tool checks."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("tracer", "replay", "reports")
# mmtrace.py -> reports -> replay -> tracer
BELOW = {
    "tracer": set(),
    "replay": {"tracer"},
    "reports": {"tracer", "replay"},
    "mmtrace": {"tracer", "replay", "reports"},
}
SOURCES = sorted([ROOT / "mmtrace.py", *(p for d in PACKAGES for p in (ROOT / d).rglob("*.py"))])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
IDS = {p: str(p.relative_to(ROOT)) for p in [*SOURCES, *TESTS]}
SPDX = "# SPDX-License-Identifier: GPL-2.0-or-later"
MAX_LINES = 700
# numba does not see changes in other files, so that the loops it caches stay in one (numba#1833).
MAX_KERNEL_LINES = 1000


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """:return: top-level names a file imports, in functions too unless told otherwise."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=IDS.get)
def test_every_file_names_its_licence(path: Path) -> None:
    text = path.read_text()
    assert not text or text.splitlines()[0] == SPDX


@pytest.mark.parametrize("path", SOURCES, ids=IDS.get)
def test_dependencies_point_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0].removesuffix(".py")
    above = set(BELOW) - BELOW[layer] - {layer}
    assert not imports(path) & above


@pytest.mark.parametrize("path", SOURCES, ids=IDS.get)
def test_no_relative_imports(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]


@pytest.mark.parametrize("path", SOURCES, ids=IDS.get)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)) or text.count("\n") <= 1


@pytest.mark.parametrize("path", SOURCES, ids=IDS.get)
def test_files_stay_readable(path: Path) -> None:
    most = MAX_KERNEL_LINES if path.stem == "kernels" else MAX_LINES
    assert path.read_text().count("\n") <= most


@pytest.mark.parametrize("path", SOURCES, ids=IDS.get)
def test_third_party_imports_are_declared(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["fit"]]
    names = {re.split(r"[^A-Za-z0-9-]", d)[0].lower() for d in declared}
    modules = names | {"elftools", "backports", "compression", "markupsafe", *PACKAGES, "mmtrace"}
    extra = imports(path) - modules - set(sys.stdlib_module_names)
    assert not extra


def test_the_front_door_imports_only_the_light() -> None:
    direct = imports(ROOT / "mmtrace.py", everywhere=False)
    assert direct - set(sys.stdlib_module_names) == {"reports", "tracer", "typer"}
    # The modules of reports that hold verbs import the heavy ones inside the verbs.
    for name in ("options", "replayverbs", "verbs", "recordverbs"):
        light = imports(ROOT / "reports" / f"{name}.py", everywhere=False)
        assert light - set(sys.stdlib_module_names) <= {"reports", "tracer", "typer"}, name


def test_no_trace_of_a_machine() -> None:
    """Paths of somebody's machine do not belong into sources."""
    pattern = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w")
    hits = [
        f"{IDS[p]}:{i}"
        for p in SOURCES
        for i, line in enumerate(p.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not hits
