# SPDX-License-Identifier: GPL-2.0-or-later
"""From a capture of any kind to a store."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import polars as pl

from tracer import detect, schema
from tracer.btf import load
from tracer.capture import Capture
from tracer.compression import unwrap
from tracer.enums import KernelEnums, complete, from_btf
from tracer.errors import CaptureError
from tracer.store import SUFFIX, Store, refuse_existing, write_store
from tracer.versions import versions

# Container to the module and function that reads it. A reader of bytes is called as
# read(data, path), one of a directory as read(path).
READERS: Final[dict[str, tuple[str, str]]] = {
    detect.PERF: ("tracer.perfdata.reader", "read"),
    detect.PERF_DIR: ("tracer.perfdata.reader", "read_directory"),
    detect.TRACE_DAT: ("tracer.tracedat.reader", "read"),
    detect.RAW: ("tracer.rawpages", "read"),
    detect.RAW_DIR: ("tracer.rawpages", "read_directory"),
    detect.TEXT: ("tracer.text.reader", "read"),
}
STDIN: Final = "-"
SIDECARS: Final = ("vmlinux.btf", "vmlinux.btf.zst", "kernel.enums.json")
RUNNING_KERNEL: Final = Path("/sys/kernel/btf/vmlinux")
_PERF_TYPE_TRACEPOINT: Final = 2
_PIECE: Final = 64 << 20
_SUFFIXES: Final = frozenset({".zst", ".gz", ".xz", ".data", ".perf", ".dat", ".txt", ".trace"})


def ingest(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    btf: str | os.PathLike[str] | None = None,
    formats_from: str | os.PathLike[str] | None = None,
    symbols: str | os.PathLike[str] | None = None,
) -> Store:
    """Read a capture and write it as a store.

    :param path: capture file or directory, ``-`` for standard input
    :param out: store to write; default ``<stem>.mmtrace`` in the current directory
    :param force: replace a store that is there
    :param btf: BTF, ELF with BTF or kernel.enums.json of the captured kernel
    :param formats_from: another capture of the same kernel, whose event formats
        stand in for those a killed recorder could not write
    :param symbols: kallsyms text or vmlinux of the captured kernel
    :raises MmtraceError: when the capture cannot be read or the store not written
    """
    from tracer.normalize import normalize

    target = Path(out) if out is not None else default_store(str(path))
    refuse_existing(target, force)
    capture = read_capture(path, formats_from)
    enums = find_enums(str(path), capture, btf)
    ops = normalize(capture, enums)
    describe_fields(os.fspath(path), capture, enums, symbols)
    return write_store(target, capture, ops, enums, force)


def describe_fields(
    path: str,
    capture: Capture,
    enums: KernelEnums | None = None,
    symbols: str | os.PathLike[str] | None = None,
) -> None:
    """Put names beside a capture's flags and code addresses, in place; the numbers stay.

    :param path: the capture's path, for files beside it
    :param enums: the kernel's numbers; None looks for them without complaint
    :param symbols: see :func:`ingest`
    """
    from tracer.printfmt import decode_capture
    from tracer.symbolize import find_symbols, symbolize_capture

    if enums is None:
        before = capture.diagnostics
        enums = find_enums(path, capture)
        capture.diagnostics = before
    decode_capture(capture, enums)
    functions = find_symbols(path, capture, symbols)
    if functions is not None:
        symbolize_capture(capture, functions)


def default_store(path: str) -> Path:
    """:return: ``<stem>.mmtrace`` in the current directory, the stem without container suffixes."""
    stem = Path("stdin" if path == STDIN else os.path.abspath(path)).name
    while Path(stem).suffix in _SUFFIXES:
        stem = Path(stem).stem
    return Path((stem or "capture") + SUFFIX)


def read_capture(
    path: str | os.PathLike[str], formats_from: str | os.PathLike[str] | None = None
) -> Capture:
    """Read a capture of any kind into memory.

    :param path: file or directory, ``-`` for standard input
    :param formats_from: see :func:`ingest`
    :raises CaptureError: when it is not a capture or nothing in it can be read
    """
    name = os.fspath(path)
    extra: dict[str, Any] = {}
    if formats_from is not None:
        extra["formats"] = read_capture(formats_from).formats
    if name != STDIN and os.path.isdir(name):
        kind = detect.kind_of_directory(Path(name))
        capture = _reader(kind, name)(Path(name), **extra)
        digest, size = _directory_sha256(Path(name))
    else:
        raw = read_bytes(name)
        inner = unwrap(raw, name)
        kind = detect.kind_of(inner.data[: detect.HEAD], len(inner.data), name)
        with ThreadPoolExecutor(1) as beside:
            hashed = beside.submit(hashlib.sha256, inner.data)
            capture = _reader(kind, name)(inner.data, name, **extra)
        digest, size = hashed.result().hexdigest(), len(inner.data)
        if inner.kind:
            capture.provenance.extra["wrapper"] = {
                "kind": inner.kind,
                "sha256": hashlib.sha256(raw).hexdigest(),
                "size": len(raw),
            }
        if inner.note:
            diagnose(capture, "wrapper", "loss", f"{inner.note}.".capitalize())
    about = capture.provenance
    about.path, about.sha256, about.size = name, digest, size
    about.container = about.container or kind
    about.mmtrace = versions()["mmtrace"]
    about.probe_set = sorted({*about.probe_set, *capture.events, *_enabled(capture)})
    return capture


def _enabled(capture: Capture) -> set[str]:
    """Events that were recorded, hit or not: no hits is a count too, not a missing probe."""
    attrs = capture.provenance.extra.get("attrs", ())
    names = {a["name"] for a in attrs if a["type"] == _PERF_TYPE_TRACEPOINT}
    return {name for name in names if name and ":" in name}


def _reader(kind: str, name: str) -> Callable[..., Capture]:
    module, function = READERS[kind]
    try:
        read: Callable[..., Capture] = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as e:
        if not (e.name or "").startswith(("tracer", function)):
            raise
        raise CaptureError(f"{name} is {kind}, which this version does not read yet.") from None
    return read


def diagnose(capture: Capture, code: str, severity: str, message: str) -> None:
    """Add one row to the capture's diagnostics."""
    row = pl.DataFrame(
        [(code, severity, None, None, message)],
        schema=schema.polars_schema(schema.DIAGNOSTIC_COLUMNS),
        orient="row",
    )
    capture.diagnostics = pl.concat([capture.diagnostics, row])


def read_bytes(name: str) -> bytes:
    """A whole file, pipe or standard input, read rather than mapped: files may shrink meanwhile.

    :raises CaptureError: when it is not there, not readable or larger than memory
    """
    try:
        if name == STDIN:
            return _bounded(sys.stdin.buffer, "standard input")
        with open(name, "rb", buffering=0) as f:
            mode = os.fstat(f.fileno()).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise CaptureError(f"{name} is a device, not a capture.")
            return _bounded(f, name)
    except OSError as e:
        raise CaptureError(f"Cannot read {name}: {e.strerror or e}.") from None


def _bounded(f: BinaryIO | FileIO, name: str) -> bytes:
    """Read to the end; a pipe says its size only by ending."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = os.fstat(f.fileno()).st_size
    pieces, room = [], memory - size
    if isinstance(f, FileIO) and size and room >= 0:
        # In one piece: the first touch of memory costs more than reading or parsing.
        return f.readall()
    while room >= 0 and (piece := f.read(_PIECE)):
        pieces.append(piece)
        room = memory - sum(map(len, pieces))
    if room < 0:
        raise CaptureError(f"{name} is larger than this machine's memory.")
    return b"".join(pieces)


def _directory_sha256(path: Path) -> tuple[str, int]:
    """SHA-256 over ``sha256  name`` lines of every file, sorted, and the bytes in all."""
    lines, total = [], 0
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        data = read_bytes(str(file))
        total += len(data)
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {file.relative_to(path)}\n")
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest(), total


def find_enums(
    path: str, capture: Capture, btf: str | os.PathLike[str] | None = None
) -> KernelEnums:
    """The captured kernel's numbers: ``--btf``, a file beside the capture, the running kernel.

    What was passed over or is missing becomes a diagnostic of the capture.

    :param path: the capture's path, ``-`` for standard input
    :param capture: for its kernel release and event formats
    :param btf: file named by the user, which must be readable
    :raises CaptureError: when the named file is unusable
    """
    release = capture.provenance.kernel_release
    found = load_enums(os.fspath(btf), release) if btf is not None else None
    found = found or _beside(path, capture)
    if found is None and release == platform.release() and RUNNING_KERNEL.exists():
        found = load_enums(str(RUNNING_KERNEL), release)
    if found is None:
        found = KernelEnums(release=release)
        diagnose(
            capture,
            "no-kernel-numbers",
            "warning",
            "Page and folio flags of this kernel are unknown; copy its /sys/kernel/btf/vmlinux "
            "beside the capture as vmlinux.btf, or name it with --btf.",
        )
    return complete(found, capture.formats.values())


def _beside(path: str, capture: Capture) -> KernelEnums | None:
    release = capture.provenance.kernel_release
    directory = Path.cwd() if path == STDIN else Path(path).absolute().parent
    for sidecar in (directory / name for name in SIDECARS):
        if not sidecar.is_file():
            continue
        try:
            found = load_enums(str(sidecar), release)
        except CaptureError as e:
            diagnose(capture, "kernel-numbers", "warning", f"{sidecar.name} is not used: {e}")
            continue
        if release and found.release not in (None, release):
            diagnose(
                capture,
                "kernel-numbers",
                "warning",
                f"{sidecar.name} is not used: it belongs to {found.release}, not {release}.",
            )
            continue
        return found
    return None


def load_enums(name: str, release: str | None = None) -> KernelEnums:
    """Read kernel numbers from BTF, from an ELF file, or from a kernel.enums.json.

    :param name: the file
    :param release: the release to note for BTF, which does not hold its own
    :raises CaptureError: when it is none of them
    """
    data = read_bytes(name)
    if data.lstrip()[:1] == b"{":
        try:
            return KernelEnums.from_json(json.loads(data), name)
        except (ValueError, RecursionError):
            raise CaptureError(f"{name} is damaged JSON.") from None
    return from_btf(load(data, name), os.path.basename(name), release)
