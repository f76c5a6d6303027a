# SPDX-License-Identifier: GPL-2.0-or-later
"""Versions of everything that decides a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """:return: package or ``python`` to its version, without importing any."""
    out = {"python": platform.python_version()}
    for name in ("mmtrace", "polars", "numpy", "numba"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out
