# SPDX-License-Identifier: GPL-2.0-or-later
"""The one numba decorator of the project and where its machine code is kept.

numba's cache is per source file and does not see changes in functions that
are imported from another file, so the cache directory is named by a hash of
every kernel source: an edit anywhere moves to a fresh directory.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_ROOT = Path(__file__).resolve().parent.parent
# Packages whose files hold kernels.
_KERNEL_GLOBS = ("tracer/*.py", "tracer/*/*.py", "replay/*.py", "replay/*/*.py")


def cache_root() -> Path:
    """:return: ``$MMTRACE_CACHE_DIR``, else ``mmtrace`` in the XDG cache directory."""
    own = os.environ.get("MMTRACE_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mmtrace"


def kernel_key() -> str:
    """:return: 16 hex digits that change when any kernel source, numba or Python does."""
    digest = hashlib.sha256(f"{sys.version}\0{numba.__version__}".encode())
    for pattern in _KERNEL_GLOBS:
        for path in sorted(_ROOT.glob(pattern)):
            source = path.read_bytes()
            if b"@kernel" in source or b"njit" in source or path.name == "state.py":
                digest.update(path.name.encode() + b"\0" + source)
    return digest.hexdigest()[:16]


def _use_cache() -> bool:
    """Point numba at our cache directory; False when it cannot be written."""
    if numba.config.DISABLE_JIT:
        return False
    directory = cache_root() / "jit" / kernel_key()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    if not os.access(directory, os.W_OK):
        return False
    numba.config.CACHE_DIR = str(directory)
    return True


_CACHE = _use_cache()


def kernel(function: F) -> F:
    """Compile ``function`` with numba on first call and keep the machine code."""
    return cast(F, numba.njit(cache=_CACHE, nogil=True, error_model="numpy")(function))
