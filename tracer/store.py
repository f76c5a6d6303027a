# SPDX-License-Identifier: GPL-2.0-or-later
"""The store: one capture as a directory of parquet files and a meta.json.

::

    NAME.mmtrace/
      meta.json                       schema, provenance, event formats, kernel numbers, counts
      ops.parquet                     tracer.schema.OP_COLUMNS
      loss.parquet                    tracer.schema.LOSS_COLUMNS
      diagnostics.parquet             tracer.schema.DIAGNOSTIC_COLUMNS
      events/SYSTEM.NAME.parquet      EVENT_COLUMNS, then the event's own fields
      records/NAME.parquet            side records (comm, mmap, ...)

A store appears under its name only when it is complete, and the same capture
gives the same bytes with the same versions of mmtrace, polars and Python.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import polars as pl

from tracer import schema
from tracer.capture import Capture, Provenance
from tracer.enums import KernelEnums
from tracer.errors import MmtraceError, UsageError
from tracer.eventformat import EventFormat, Field
from tracer.versions import versions

SCHEMA: Final = "mmtrace.store/1"
SUFFIX: Final = ".mmtrace"
META: Final = "meta.json"
MAX_META: Final = 256 << 20
_PLAIN = re.compile(r"[a-z0-9_][a-z0-9_-]*(?:\.[a-z0-9_-]+)?")
_FILE = re.compile(r"(?:events/|records/)?[A-Za-z0-9_%-][A-Za-z0-9_.%-]*\.parquet")
_MAX_STEM: Final = 120  # file systems allow 255 bytes


class Store:
    """A store opened for reading. Frames are read on first use and kept.

    :param path: the directory
    :raises MmtraceError: when it is not a store
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meta = _read_meta(path)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    @cached_property
    def ops(self) -> pl.DataFrame:
        """The operations, :data:`tracer.schema.OP_COLUMNS`."""
        return schema.check(self._read("ops.parquet"), schema.OP_COLUMNS, f"{self.path}: ops")

    @cached_property
    def loss(self) -> pl.DataFrame:
        """Lost events, :data:`tracer.schema.LOSS_COLUMNS`."""
        return schema.check(self._read("loss.parquet"), schema.LOSS_COLUMNS, f"{self.path}: loss")

    @cached_property
    def diagnostics(self) -> pl.DataFrame:
        """What went wrong on the way here, :data:`tracer.schema.DIAGNOSTIC_COLUMNS`."""
        frame = self._read("diagnostics.parquet")
        return schema.check(frame, schema.DIAGNOSTIC_COLUMNS, f"{self.path}: diagnostics")

    @cached_property
    def provenance(self) -> Provenance:
        """Where the capture comes from."""
        known = {f.name for f in fields(Provenance)}
        return Provenance(**{k: v for k, v in self.meta["provenance"].items() if k in known})

    @cached_property
    def enums(self) -> KernelEnums:
        """The kernel's numbers that the operations were decoded with."""
        return KernelEnums.from_json(self.meta["enums"], f"{self.path / META}: enums")

    @cached_property
    def formats(self) -> dict[str, EventFormat]:
        """Event formats by ``system:name``: the probe definitions as far as a capture has them."""
        return {key: _format(key, e) for key, e in self.meta["events"].items()}

    @property
    def counts(self) -> dict[str, int]:
        """Rows per ``system:name``."""
        return {key: int(e["rows"]) for key, e in self.meta["events"].items()}

    def event(self, key: str) -> pl.DataFrame:
        """One event's frame, :data:`tracer.schema.EVENT_COLUMNS` and its fields.

        :param key: ``system:name``
        :raises UsageError: when the capture has no such event
        """
        return self._lookup("events", key)

    def record(self, name: str) -> pl.DataFrame:
        """One kind of side record, for example ``comm``.

        :raises UsageError: when the capture has none
        """
        return self._lookup("records", name)

    def _lookup(self, group: str, key: str) -> pl.DataFrame:
        entry = self.meta[group].get(key)
        if entry is None:
            close = difflib.get_close_matches(key, self.meta[group], 3, 0.5)
            near = "Did you mean " + " or ".join(close) + "?" if close else ""
            raise UsageError(f"{self.path} has no {key} {group}.", near)
        return self._read(entry["file"])

    def _read(self, name: str) -> pl.DataFrame:
        # meta.json may come from someone else: its file names stay inside the store.
        if not isinstance(name, str) or not _FILE.fullmatch(name):
            raise MmtraceError(f"{self.path} names a file outside the store: {name!r}.")
        try:
            return pl.read_parquet(self.path / name, glob=False)
        except (OSError, pl.exceptions.PolarsError) as e:
            raise MmtraceError(
                f"{self.path} is damaged: {name} cannot be read ({type(e).__name__}).",
                "Ingest the capture again.",
            ) from None


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a store.

    :param path: a directory that ``mmtrace ingest`` wrote
    :raises MmtraceError: when it is not there or is not a store
    """
    return Store(Path(path))


def is_store(path: Path) -> bool:
    """:return: whether the directory has a meta.json of any store version."""
    try:
        with open(path / META, encoding="utf-8") as f:
            return '"mmtrace.store/' in f.read(200)
    except (OSError, UnicodeDecodeError):
        return False


def newest_store(directory: str | os.PathLike[str] = ".") -> Path:
    """The store that was written last, the default of every verb that takes one.

    :param directory: where to look, not below
    :raises UsageError: when there is none
    """
    found = [p for p in Path(directory).glob(f"*{SUFFIX}") if is_store(p)]
    if not found:
        raise UsageError(
            f"There is no *{SUFFIX} store in {Path(directory).absolute()}.",
            "Name one, or make one with: mmtrace ingest CAPTURE",
        )
    return max(found, key=lambda p: ((p / META).stat().st_mtime_ns, p.name))


def _read_meta(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise MmtraceError(f"{path} does not exist.", "Make it with: mmtrace ingest CAPTURE")
    if not path.is_dir() or not is_store(path):
        raise MmtraceError(
            f"{path} is not an mmtrace store.",
            f"A capture becomes one with: mmtrace ingest {path}" if path.is_file() else "",
        )
    try:
        if (path / META).stat().st_size > MAX_META:
            raise ValueError("too large")
        meta = json.loads((path / META).read_text(encoding="utf-8"))
        groups = [meta[k] for k in ("provenance", "enums", "events", "records")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise MmtraceError(
            f"{path} is damaged: {META} cannot be read ({type(e).__name__}).",
            "Ingest the capture again.",
        ) from None
    if meta.get("schema") != SCHEMA:
        raise MmtraceError(
            f"{path} was written by another version of mmtrace (schema {meta.get('schema')!r}).",
            f"This one reads {SCHEMA}; ingest the capture again.",
        )
    tables = [*groups[2].values(), *groups[3].values()] if _all_dicts(groups) else [None]
    if not all(isinstance(t, dict) and {"file", "rows"} <= t.keys() for t in tables):
        raise MmtraceError(f"{path} is damaged: {META} has the wrong shape.")
    return dict(meta)


def _all_dicts(values: list[Any]) -> bool:
    return all(isinstance(v, dict) for v in values)


def write_store(
    path: Path, capture: Capture, ops: pl.DataFrame, enums: KernelEnums, force: bool = False
) -> Store:
    """Write a store; it appears complete or not at all.

    :param path: the directory to make
    :param capture: what the reader returned
    :param ops: :data:`tracer.schema.OP_COLUMNS`
    :param enums: the numbers the ops were decoded with
    :param force: replace a store that is there
    :raises UsageError: when something is there already
    :raises MmtraceError: when it cannot be written
    """
    refuse_existing(path, force)
    try:
        with _sibling(path) as temporary:
            _write_frames(temporary, capture, ops, enums)
            _put_in_place(temporary, path)
    except (OSError, pl.exceptions.PolarsError) as e:
        raise MmtraceError(f"Cannot write {path}: {getattr(e, 'strerror', None) or e}.") from None
    return open_store(path)


def refuse_existing(path: Path, force: bool) -> None:
    """Never replace what is not a store, and a store only when asked.

    :raises UsageError: naming the remedy
    """
    if not path.exists() and not path.is_symlink():
        return
    if not is_store(path):
        raise UsageError(f"{path} exists and is not an mmtrace store.", "Choose another -o.")
    if not force:
        raise UsageError(f"{path} exists.", "Replace it with --force, or choose another -o.")


@contextlib.contextmanager
def _sibling(path: Path) -> Iterator[Path]:
    """A temporary directory beside ``path``; gone afterwards, also after ^C."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:64]}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, path: Path) -> None:
    old = temporary / "old"  # removed with the temporary directory
    try:
        if path.exists():
            path.rename(old)
        (temporary / "new").rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise


def _write_frames(temporary: Path, capture: Capture, ops: pl.DataFrame, enums: KernelEnums) -> None:
    root = temporary / "new"
    for directory in (root, root / "events", root / "records"):
        directory.mkdir()
    tags = {"mmtrace.store": SCHEMA, "mmtrace.capture_sha256": capture.provenance.sha256 or ""}

    def write(frame: pl.DataFrame, name: str) -> None:
        frame.write_parquet(root / name, compression="zstd", metadata=tags)

    write(schema.check(ops, schema.OP_COLUMNS, "ops"), "ops.parquet")
    write(schema.check(capture.loss, schema.LOSS_COLUMNS, "loss"), "loss.parquet")
    write(
        schema.check(capture.diagnostics, schema.DIAGNOSTIC_COLUMNS, "diagnostics"),
        "diagnostics.parquet",
    )
    events: dict[str, Any] = {}
    for key, frame in sorted(capture.events.items()):
        schema.check(frame, schema.EVENT_COLUMNS, key)
        file = "events/" + file_name(key)
        write(frame, file)
        events[key] = {"file": file, "rows": frame.height, **_describe(capture.formats.get(key))}
    records: dict[str, Any] = {}
    for name, frame in sorted(capture.records.items()):
        file = "records/" + file_name(name)
        write(frame, file)
        records[name] = {"file": file, "rows": frame.height}
    meta = {
        "schema": SCHEMA,
        "created": _created(),
        "versions": versions(),
        "provenance": asdict(capture.provenance),
        "rows": {
            "ops": ops.height,
            "loss": capture.loss.height,
            "diagnostics": capture.diagnostics.height,
        },
        "events": events,
        "records": records,
        "enums": enums.to_json(),
    }
    text = json.dumps(meta, indent=1, default=_plain)
    (root / META).write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's; bytes and the rest as text."""
    return value.item() if hasattr(value, "item") else str(value)


def file_name(key: str) -> str:
    """A safe and unique file name for an event or record name of a capture.

    :param key: ``system:name``, from the capture and thus anything
    :return: ``system.name.parquet``; unusual names get a hash so that no two meet
    """
    stem = key.replace(":", ".", 1)
    # Lower case only: some file systems do not tell case apart.
    if ("." in key) or len(stem) > _MAX_STEM or not _PLAIN.fullmatch(stem):
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        stem = "_" + re.sub(r"[^A-Za-z0-9_.-]", "_", stem)[:_MAX_STEM] + f".{digest}"
    return f"{stem}.parquet"


def _created() -> int | None:
    """SOURCE_DATE_EPOCH, seconds; None without it, so that equal input gives equal bytes."""
    value = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(value) if value.isascii() and value.isdigit() else None


def _describe(fmt: EventFormat | None) -> Mapping[str, Any]:
    if fmt is None:
        return {"id": None, "fields": [], "print_fmt": ""}
    return {"id": fmt.id, "fields": [asdict(f) for f in fmt.fields], "print_fmt": fmt.print_fmt}


def _format(key: str, entry: Mapping[str, Any]) -> EventFormat:
    system, _, name = key.partition(":")
    defined = tuple(Field(**f) for f in entry["fields"])
    return EventFormat(system, name, entry["id"] or 0, defined, entry["print_fmt"])
