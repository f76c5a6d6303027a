# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixture captures for every test."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tracer.compression import unwrap
from tracer.ingest import ingest
from tracer.store import Store

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
KERNELS = ("linux-6.12", "linux-7.3")
DEMO = "linux-7.3/pageout-64k"


@cache
def content(name: str) -> bytes:
    """:return: bytes of a fixture, unwrapped; ``.zst`` may be left out of the name."""
    path = FIXTURES / name
    if not path.exists():
        path = path.with_name(path.name + ".zst")
    return unwrap(path.read_bytes(), str(path)).data


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The fixtures directory."""
    return FIXTURES


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Store]:
    """Ingest a capture of fixtures/ once per session, ``make_store("linux-7.3/zap-64k")``."""

    @cache
    def make(name: str) -> Store:
        out = tmp_path_factory.mktemp("store") / (Path(name).name + ".mmtrace")
        return ingest(FIXTURES / f"{name}.perf.data.zst", out)

    return make


@pytest.fixture(scope="session")
def store(make_store: Callable[[str], Store]) -> Store:
    """The capture of ``make demo`` as a store."""
    return make_store(DEMO)
