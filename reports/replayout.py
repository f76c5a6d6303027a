# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``mmtrace replay`` prints: text, json, csv or parquet.

The JSON document, schema ``mmtrace.replay/1``::

    {"schema": "mmtrace.replay/1",
     "store": "pageout.mmtrace",            # null when the replays have several
     "by": "op",
     "replays": [
       {"policy": "batched", "policy_title": "...", "store": "pageout.mmtrace",
        "cpu": {"tlbi_range": true, ...},   # CPU features of the replay
        "nr_ops": 196,
        "unmodelled": {"collapse": 3},      # operations that counted nothing
        "inferred": {"accessed": 5},        # state the capture does not show
        "rows": [
          {"seq": 101,                      # of the row's first operation
           "task": {"pid": 100, "tid": 100, "comm": "mmwork"},
           "syscall": "madvise", "args": "start=..., behavior=21",
           "op": "try_to_unmap",
           "nr_ops": 64, "nr_pages": 1024,
           "counters": {"ld": 416, ..., "tlbi": 64}}]}]}

``nr_pages`` counts pages of folios: an operation on a range has none. Keys that
``by`` sums over are null (``task`` for ``by=op``). ``by=all`` gives
the finest rows, which also have ``order``, ``ts`` and ``window``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from replay import counters
from replay.result import BY, Replay
from reports import config
from reports.replaytext import to_text
from tracer.errors import UsageError

SCHEMA: Final = "mmtrace.replay/1"
FORMATS: Final = ("text", "json", "csv", "parquet")
_VALUES: Final = (*counters.NAMES, *counters.SUMS)


def summed(replay: Replay, by: str) -> pl.DataFrame:
    """Rows of one replay, as fine as asked for.

    :param by: a key of :data:`replay.result.BY`, or ``all``
    :raises UsageError: for another word
    """
    if by == "all":
        return replay.rows.sort("seq")
    if by not in BY:
        raise UsageError(f"Cannot sum by {by!r}.", f"Choose one of {', '.join([*BY, 'all'])}.")
    return replay.by(by)


def unmodelled(replay: Replay) -> dict[str, int]:
    """:return: operation name to how many were not replayed."""
    return {row[0]: row[1] for row in replay.unmodelled.iter_rows()}


def to_dict(replays: Sequence[Replay], by: str = "total") -> dict[str, Any]:
    """:return: the document of the module's docstring."""
    stores = list(dict.fromkeys(r.store for r in replays))
    return {
        "schema": SCHEMA,
        "store": stores[0] if len(stores) == 1 else None,
        "by": by,
        "replays": [_replay(r, by) for r in replays],
    }


def _replay(replay: Replay, by: str) -> dict[str, Any]:
    return {
        "policy": replay.policy,
        "policy_title": replay.policy_title,
        "store": replay.store,
        "cpu": replay.cpu,
        "nr_ops": replay.nr_ops,
        "unmodelled": unmodelled(replay),
        "inferred": replay.inferred,
        "rows": [_row(r) for r in summed(replay, by).iter_rows(named=True)],
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    task = {k: row.get(k) for k in ("pid", "tid", "comm")}
    extra = {k: row[k] for k in ("ts", "window", "order") if "op" in row and "window" in row}
    return {
        "seq": row.get("seq"),
        "task": task if "tid" in row else None,
        "syscall": row.get("syscall"),
        "args": row.get("args"),
        "op": row.get("op"),
        **extra,
        "nr_ops": row["nr_ops"],
        "nr_pages": row["nr_pages"],
        "counters": {name: row[name] for name in _VALUES},
    }


def to_json(replays: Sequence[Replay], by: str = "total") -> str:
    """:return: the document, indented; keys in reading order."""
    return json.dumps(to_dict(replays, by), indent=1) + "\n"


def to_frame(replays: Sequence[Replay], by: str = "total") -> pl.DataFrame:
    """:return: all replays under each other: policy, key columns, every counter and sum."""
    frames = [summed(r, by).select(pl.lit(r.policy).alias("policy"), pl.all()) for r in replays]
    return pl.concat(frames)


def to_parquet(replays: Sequence[Replay], by: str = "total") -> bytes:
    """:return: :func:`to_frame` with the schema and the capture's hash as file metadata."""
    out = io.BytesIO()
    shas = list(dict.fromkeys(str(r.provenance.get("sha256")) for r in replays))
    facts = {"schema": SCHEMA, "mmtrace": config.version(), "sha256": " ".join(shas), "by": by}
    to_frame(replays, by).write_parquet(out, metadata=facts)
    return out.getvalue()


def render(replays: Sequence[Replay], *, by: str = "total", fmt: str = "text") -> bytes:
    """Write replays.

    :param by: ``total``, ``op``, ``syscall``, ``task`` or ``all``
    :param fmt: one of :data:`FORMATS`; only parquet is not text
    :raises UsageError: for an unknown word
    """
    if fmt == "text":
        frames = [summed(r, by) for r in replays]
        return to_text(replays, frames, by).encode("ascii")
    if fmt == "json":
        return to_json(replays, by).encode()
    if fmt == "csv":
        return to_frame(replays, by).write_csv().encode()
    if fmt == "parquet":
        return to_parquet(replays, by)
    raise UsageError(f"There is no format {fmt!r}.", f"Choose one of {', '.join(FORMATS)}.")
