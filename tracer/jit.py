# SPDX-License-Identifier: GPL-2.0-or-later
"""The numba decorators of the project and where the machine code is kept.

numba's cache is per source file and does not see changes in functions that
are imported from another file, so the cache directory is named by a hash of
the package's sources: an edit anywhere in it moves to a fresh directory.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

# numba fills its config module at run time.
config: Any = numba.config
unliteral: Callable[[Any], Any] = numba.types.unliteral
F = TypeVar("F", bound=Callable[..., Any])

# Modules without kernels whose constants are frozen into kernels.
_CONSTANTS = frozenset({"counters.py", "geometry.py", "policies.py", "state.py", "stream.py"})
_ROOT = Path(__file__).resolve().parent.parent


def cache_root() -> Path:
    """:return: ``$MMTRACE_CACHE_DIR``, else ``mmtrace`` in the XDG cache directory."""
    own = os.environ.get("MMTRACE_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mmtrace"


@functools.cache
def kernel_key(package: str) -> str:
    """Name of the cache directory of one package's kernels.

    :param package: top-level package, ``tracer`` or ``replay``
    :return: 16 hex digits that change when one of its sources, numba or Python does
    """
    digest = hashlib.sha256(f"{sys.version}\0{numba.__version__}".encode())
    for path in [Path(__file__), *sorted((_ROOT / package).rglob("*.py"))]:
        source = path.read_bytes()
        if b"tracer.jit import" in source or path.name in _CONSTANTS:
            digest.update(path.name.encode() + b"\0" + source)
    return digest.hexdigest()[:16]


@functools.cache
def _use_cache(package: str) -> str | None:
    """The package's cache directory, or None when it cannot be written."""
    if config.DISABLE_JIT:
        return None
    directory = cache_root() / "jit" / kernel_key(package)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(directory) if os.access(directory, os.W_OK) else None


_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
# The model's functions work on the caller's arrays and allocate none, so reference
# counting is off: with it, every call would touch the count of every array it passes.
_NO_COUNTING: dict[str, Any] = {"_nrt": False, "no_cfunc_wrapper": True}


def _compile(function: F, **options: Any) -> F:
    directory = _use_cache(function.__module__.partition(".")[0])
    if directory:
        config.CACHE_DIR = directory
    compiled = numba.njit(cache=directory is not None, **_OPTIONS, **options)(function)
    if not config.DISABLE_JIT:
        _one_version(compiled)
    return cast(F, compiled)


def kernel(function: F) -> F:
    """Compile a function that Python calls and that may allocate arrays."""
    return _compile(function)


def entry(function: F) -> F:
    """Compile a function that Python calls and that allocates nothing."""
    return _compile(function, **_NO_COUNTING)


def inner(function: F) -> F:
    """Compile a function that only :func:`entry` and its callees call."""
    return _compile(function, no_cpython_wrapper=True, **_NO_COUNTING)


def inlined(function: F) -> F:
    """Compile a function into its callers: for one whose many arrays cost more than its work."""
    return _compile(function, no_cpython_wrapper=True, forceinline=True, **_NO_COUNTING)


def _one_version(dispatcher: Any) -> None:
    """Compile calls with constants once, for the constants' type.

    numba makes a version for every combination of literal arguments, which
    costs a third of the compile time and buys nothing here.
    """
    template = dispatcher.get_call_template

    def general(args: Any, kws: Any) -> Any:
        plain = tuple(unliteral(arg) for arg in args)
        return template(plain, {k: unliteral(v) for k, v in kws.items()})

    dispatcher.get_call_template = general


def is_compiled(package: str) -> bool:
    """Whether an earlier run left machine code of this version of the package."""
    directory = _use_cache(package)
    return directory is not None and any(Path(directory).rglob("*.nbi"))
