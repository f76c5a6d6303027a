# SPDX-License-Identifier: GPL-2.0-or-later
"""Predictions on record: a file whose name and content say what was predicted, and by which model.

The hash covers everything in the file but itself; the model's hash covers its
version, the tables and the fitted costs. Later :func:`score` holds measurements
against the file, not against whatever the model says by then.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from replay.cost import MODEL_VERSION
from replay.cost.predict import Outcome, find_cases, predict_all
from replay.cost.price import SAMPLES, SEED, Estimate
from replay.cost.tables import FOLDER
from tracer.errors import EXIT_QUALITY, MmtraceError, UsageError

SCHEMA: Final = "mmtrace.predictions/1"
COLUMNS: Final = ("case", "machine", "side", "time_ns")
DIGITS: Final = 5


def model_hash() -> str:
    """:return: sha256 of the model's version, machine tables and fitted costs."""
    digest = hashlib.sha256(MODEL_VERSION.encode())
    for path in sorted(FOLDER.glob("*.toml")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _numbers(e: Estimate | None) -> list[float] | None:
    return None if e is None else [float(f"{v:.{DIGITS}g}") for v in (e.median, e.low, e.high)]


def _entry(o: Outcome) -> dict[str, Any]:
    return {
        "case": o.case, "machine": o.machine, "side": o.label, "policy": o.policy,
        "time_ns": _numbers(o.time), "faster": _numbers(o.ratio),
        "distinguishable": o.told_apart,
        "null_time_ns": None if o.null_ns is None else float(f"{o.null_ns:.{DIGITS}g}"),
        "leaves_out": o.leaves_out,
    }  # fmt: skip


def content_hash(document: Mapping[str, Any]) -> str:
    """:return: sha256 of a prediction file's content, its own hash apart."""
    rest = {k: v for k, v in document.items() if k != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def freeze(names: Sequence[str] | None = None) -> dict[str, Any]:
    """Predict and make the document.

    :param names: cases; all of :data:`replay.cost.cases.CASES` by default
    """
    cases = find_cases(names)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "model_version": MODEL_VERSION,
        "model_sha256": model_hash(),
        "seed": SEED,
        "samples": SAMPLES,
        "columns": "median, 5 % and 95 % of the samples; faster: than the case's first side",
        "titles": {case.name: case.title for case in cases},
        "predictions": [_entry(o) for o in predict_all([case.name for case in cases])],
    }
    return {**document, "sha256": content_hash(document)}


def to_text(document: Mapping[str, Any]) -> str:
    """:return: JSON, one prediction a line so that two versions can be compared"""
    head = {k: v for k, v in document.items() if k != "predictions"}
    lines = [json.dumps(p, separators=(",", ":")) for p in document["predictions"]]
    body = json.dumps(head, indent=1)[:-2]
    return body + ',\n "predictions": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


def file_name(document: Mapping[str, Any]) -> str:
    """:return: ``v1-0123456789ab.json``"""
    return f"v{document['model_version']}-{document['sha256'][:12]}.json"


def load(path: Path) -> dict[str, Any]:
    """Read a frozen file.

    :raises UsageError: when it is no such file
    :raises MmtraceError: when it was changed after it was written
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UsageError(
            f"{path} is not a file of predictions.", "mmtrace predict --freeze makes one."
        )
    if content_hash(document) != document.get("sha256"):
        raise MmtraceError(
            f"{path} was changed after it was frozen.", "Its hash does not fit.", EXIT_QUALITY
        )
    return document


def read_measurements(path: Path) -> list[dict[str, Any]]:
    """Measured times, CSV with the columns of :data:`COLUMNS`.

    :raises UsageError: for missing columns or times that are not positive numbers
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None
    if not rows or any(c not in rows[0] for c in COLUMNS):
        raise UsageError(f"{path} needs the columns {', '.join(COLUMNS)}.")
    for number, row in enumerate(rows, 2):
        try:
            positive = float(row["time_ns"]) > 0
        except (TypeError, ValueError):
            positive = False
        if not positive:
            raise UsageError(f"{path}, line {number}: time_ns is not a positive number.")
    return rows


@dataclass(frozen=True)
class Scored:
    """One measured ratio beside the prediction.

    :ivar error: of the ratio, relative; ``null_error`` the null model's, None where it has none
    :ivar sign: whether faster was called faster, and no change no change
    :ivar hit: whether the measured ratio lies in the interval
    """

    case: str
    machine: str
    side: str
    measured: float
    predicted: tuple[float, float, float]
    error: float
    null_error: float | None
    sign: bool
    hit: bool


NO_CHANGE: Final = 0.03  # a measured ratio this close to 1 has no sign


def _sign(ratio: float) -> int:
    return 0 if abs(ratio - 1) <= NO_CHANGE else 1 if ratio > 1 else -1


def score(document: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> list[Scored]:
    """Hold measured ratios of each case and machine against the frozen ones.

    :raises UsageError: when nothing measured was predicted
    """
    entries = {(p["case"], p["machine"], p["side"]): p for p in document["predictions"]}
    times = {(m["case"], m["machine"], m["side"]): float(m["time_ns"]) for m in measured}
    out = []
    for key, time in times.items():
        entry = entries.get(key)
        if entry is None or entry["faster"] is None:
            continue
        base = next(
            p for p in document["predictions"] if p["case"] == key[0] and p["machine"] == key[1]
        )
        base_time = times.get((key[0], key[1], base["side"]))
        if base_time is None:
            continue
        ratio = base_time / time
        middle, low, high = entry["faster"]
        beside = None
        if base["null_time_ns"] and entry["null_time_ns"]:
            beside = base["null_time_ns"] / entry["null_time_ns"] / ratio - 1
        right = _sign(ratio) == _sign(middle) or (_sign(ratio) == 0 and low <= 1 <= high)
        inside = low <= ratio <= high
        out.append(
            Scored(*key, ratio, (middle, low, high), middle / ratio - 1, beside, right, inside)
        )
    if not out:
        raise UsageError(
            "No measured side was predicted together with its base.",
            "case, machine and side have to be those of the file; the base side has to be there.",
        )
    return out


def summary(scored: Sequence[Scored]) -> dict[str, float]:
    """Shares and errors over all scored ratios; the null model's over those it has."""
    errors = np.abs([s.error for s in scored])
    both = [(abs(s.error), abs(s.null_error)) for s in scored if s.null_error is not None]
    found = {
        "ratios": float(len(scored)),
        "sign": float(np.mean([s.sign for s in scored])),
        "inside": float(np.mean([s.hit for s in scored])),
        "median_error": float(np.median(errors)),
        "maximum_error": float(np.max(errors)),
    }
    if both:
        found["median_error_where_null"] = float(np.median([a for a, _ in both]))
        found["median_null_error"] = float(np.median([b for _, b in both]))
    return found
