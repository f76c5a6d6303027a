# SPDX-License-Identifier: GPL-2.0-or-later
"""One self-contained HTML file: it makes no request and carries its own charts.

The same inputs give the same bytes: no clock is read (``SOURCE_DATE_EPOCH``
gives a date), every mapping is written in a fixed order, figures have fixed
ids. Scripts are pinned by hash in a Content-Security-Policy that allows
nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from replay.cost.capture import MachinePrice
from replay.result import Replay
from reports import config, page, palette
from reports.compare import Comparison, compare
from reports.figures import Figure
from reports.redact import Redactor
from reports.styles import render
from reports.verdict import verdict
from reports.verifytext import Verification
from tracer.files import refuse_existing, write_file

PLOTLY: Final = "plotly-cartesian.min.js"
PLOTLY_VERSION: Final = "4.1.1"

_LIGHT: Final = {
    "paper": palette.PAPER,
    "ink": palette.INK,
    "muted": palette.MUTED,
    "grid": palette.GRID,
    "axis": palette.AXIS,
}
_CONTENTS_AFTER: Final = (
    ("fidelity", "Fidelity"),
    ("warnings", "Losses, inferred"),
    ("provenance", "Provenance"),
    ("method", "Method and limits"),
    ("glossary", "Glossary"),
)


def write_report(
    path: Path | str,
    replays: Sequence[Replay],
    *,
    verification: Verification | None = None,
    prices: Sequence[MachinePrice] = (),
    loss: pl.DataFrame | None = None,
    diagnostics: pl.DataFrame | None = None,
    provenance: dict[str, Any],
    command: str,
    labels: Sequence[str] | None = None,
    raw: bool = False,
    force: bool = False,
    tool: str | None = None,
) -> Path:
    """Write the report, whole or not at all.

    :param replays: the first is the base
    :param prices: of the same policies on machines; none for a report without times
    :param loss: :data:`tracer.schema.LOSS_COLUMNS`
    :param diagnostics: :data:`tracer.schema.DIAGNOSTIC_COLUMNS`
    :param provenance: ``meta.json`` of the base's store
    :param command: the command line that makes this report
    :param labels: column titles; the policies by default
    :param raw: keep names of tasks, hosts and files
    :param force: overwrite
    :param tool: version to print; the installed one by default
    :return: the path
    :raises MmtraceError: when the file exists and not ``force``, or cannot be written
    """
    target = Path(path)
    refuse_existing(target, force)
    text = report_html(
        replays,
        verification=verification,
        prices=prices,
        loss=loss,
        diagnostics=diagnostics,
        provenance=provenance,
        command=command,
        labels=labels,
        raw=raw,
        tool=tool,
    )
    write_file(target, text.encode(), force)
    return target


def report_html(
    replays: Sequence[Replay],
    *,
    verification: Verification | None,
    prices: Sequence[MachinePrice] = (),
    loss: pl.DataFrame | None,
    diagnostics: pl.DataFrame | None,
    provenance: dict[str, Any],
    command: str,
    labels: Sequence[str] | None = None,
    raw: bool = False,
    tool: str | None = None,
) -> str:
    """:return: the page; parameters as in :func:`write_report`."""
    redactor = Redactor.of(replays, raw)
    comparison = compare(replays, labels=labels, raw=raw)
    sections = page.sections(comparison, redactor, prices)
    figures = [f for s in sections for row in s.figures for f in row]
    scripts = _scripts()
    made = tool or config.version()
    context = {
        **scripts,
        "csp": csp(list(scripts.values())),
        "css": Markup(_asset("report.css")),
        "colours": _colours(),
        "figures_json": figures_json(figures),
        "title": _title(comparison),
        "verdict": verdict(comparison),
        "labels": comparison.labels,
        "facts": comparison.facts,
        "policies": page.policies(comparison),
        "tiles": page.tiles(comparison),
        "counts": page.count_sections(comparison),
        "mail": render(comparison, tool=made),
        "sections": sections,
        "contents": _contents(sections),
        "fidelity": page.fidelity(verification, redactor),
        "warnings": page.warnings(comparison, loss, diagnostics, redactor),
        "provenance": redactor.provenance(provenance),
        "probes": provenance.get("probe_set") or [],
        "command": redactor.command(command),
        "method": page.METHOD,
        "glossary": page.glossary(),
        "trailer": config.trailer(replays, made),
        "tool": made,
        "software": _software(made),
        "date": _date(),
        "plotlyjs": PLOTLY_VERSION,
    }
    return _environment().get_template("report.html").render(context)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _asset(name: str) -> str:
    return files("reports").joinpath("assets", name).read_text(encoding="utf-8")


def _scripts() -> dict[str, Markup]:
    """:return: the scripts by the template's names; our own files, so not escaped."""
    names = {"theme_js": "theme.js", "plotly_js": PLOTLY, "report_js": "report.js"}
    return {key: Markup(_asset(name)) for key, name in names.items()}


def csp(scripts: Sequence[str]) -> str:
    """:return: a Content-Security-Policy under which only these scripts run."""
    hashes = " ".join(f"'sha256-{_sha256(s)}'" for s in scripts)
    # plotly sets style attributes; its "download as image" goes through blob: URLs.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def figures_json(figures: Sequence[Figure]) -> Markup:
    """:return: every figure and the dark colours; cannot end its script element."""
    data = {"dark": palette.DARK, "figures": {f.id: f.variants for f in figures}}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    escaped = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(escaped)


def _colours() -> dict[str, list[tuple[str, str]]]:
    light = [*_LIGHT.items(), ("link", "#00558c"), ("wash", "#f4f6f8"), ("warn", "#b45309")]
    dark = [(name, palette.DARK[value]) for name, value in _LIGHT.items()]
    return {
        "light": light,
        "dark": [*dark, ("link", "#79bdf0"), ("wash", "#1c2229"), ("warn", "#e5a54b")],
    }


def _title(comparison: Comparison) -> str:
    new = list(comparison.labels[1:])
    if not new:
        return f"Replay of a capture under {comparison.labels[0]}"
    return f"{', '.join(new)} against {comparison.labels[0]}"


def _contents(sections: Sequence[page.Section]) -> list[tuple[str, str]]:
    return [("table", "Counts"), *[(s.id, s.title) for s in sections], *_CONTENTS_AFTER]


def _software(tool: str) -> str:
    have = [f"{name} {metadata.version(name)}" for name in ("polars", "plotly")]
    return ", ".join([f"mmtrace {tool}", *have])


def _date() -> str:
    """:return: the day of ``SOURCE_DATE_EPOCH``, or nothing: a clock would change the bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch), UTC).date().isoformat() if epoch.isdigit() else ""
