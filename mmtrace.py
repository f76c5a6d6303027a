# SPDX-License-Identifier: GPL-2.0-or-later
"""mmtrace: replay rmap, zap and TLB captures on a simulated arm64 page table.

The console script, ``python -m mmtrace``, and the public API::

    import mmtrace

    store = mmtrace.ingest("perf.data")
    store.ops.filter(op="zap")

Everything heavy is imported when it is first used: ``mmtrace --help`` must answer at once.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from reports import recordverbs, replayverbs, verbs
from reports.options import compile_notice, write
from tracer import errors

if TYPE_CHECKING:
    from tracer.capture import Capture
    from tracer.store import Store

# Public name to the module that has it.
_API = {
    "ingest": "tracer.ingest",
    "read_capture": "tracer.ingest",
    "open_store": "tracer.store",
    "newest_store": "tracer.store",
    "Store": "tracer.store",
    "open_source": "replay.api",
    "replay": "replay.api",
    "verify": "replay.api",
    "POLICIES": "replay.policies",
    "compare": "reports.compare",
    "write_report": "reports.html",
    "anonymize": "reports.anonymize",
    "Capture": "tracer.capture",
    "Provenance": "tracer.capture",
    "MmtraceError": "tracer.errors",
    "CaptureError": "tracer.errors",
    "UsageError": "tracer.errors",
}
__all__ = ["main", *_API]

EXIT_CODES = """Exit codes: 0 done, 1 input that cannot be used, 2 wrong usage,
3 a gate failed (verify: a count differs), 4 capture quality too low,
130 interrupted."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mmtrace")
    if name in _API:
        return getattr(importlib.import_module(_API[name]), name)
    raise AttributeError(f"module 'mmtrace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])


class _Verbs(TyperGroup):
    """Turns what a verb raises into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except errors.MmtraceError as e:
            _complain(str(e))
            raise typer.Exit(e.exit_code) from None
        except MemoryError:
            _complain("Not enough memory for this capture.")
            raise typer.Exit(errors.EXIT_INPUT) from None
        except KeyboardInterrupt:
            _complain("Interrupted.")
            raise typer.Exit(errors.EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of a pipe, such as head, has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(128 + signal.SIGPIPE) from None


def _complain(message: str) -> None:
    from tracer.output import printable

    print(f"mmtrace: {printable(message)}", file=sys.stderr)


app = typer.Typer(
    cls=_Verbs,
    help="Replay rmap, zap and TLB captures on a simulated arm64 page table and "
    "count every primitive.",
    epilog=EXIT_CODES,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        from tracer.versions import versions

        have = versions()
        print("mmtrace", have.pop("mmtrace"), end=" (")
        print(*(f"{name} {version}" for name, version in have.items()), sep=", ", end=")\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print versions.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


class InfoFormat(StrEnum):
    """Output formats of ``mmtrace info``."""

    TEXT = "text"
    JSON = "json"


@app.command("ingest")
def _ingest(
    capture: Annotated[
        str, typer.Argument(help="perf.data, trace.dat, raw pages or text; - for stdin.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Store to write. Default: <stem>.mmtrace here."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace an existing store.")
    ] = False,
    btf: Annotated[
        Path | None,
        typer.Option(help="BTF, vmlinux with BTF, or kernel.enums.json of the captured kernel."),
    ] = None,
    formats_from: Annotated[
        Path | None,
        typer.Option(help="Capture of the same kernel to take missing event formats from."),
    ] = None,
    symbols: Annotated[
        Path | None, typer.Option(help="kallsyms text or vmlinux of the captured kernel.")
    ] = None,
) -> None:
    """Read a capture and write it as a store of parquet tables."""
    from tracer.info import diagnoses, lost
    from tracer.ingest import ingest

    store = ingest(capture, output, force, btf, formats_from, symbols)
    for line in diagnoses(store.diagnostics):
        print(line, file=sys.stderr)
    counts = store.counts
    print(
        f"{sum(counts.values()):,} events of {len(counts)} kinds, "
        f"{store.ops.height:,} operations, lost: {lost(store.loss)}"
    )
    print(f"Wrote {store.path}", file=sys.stderr)


@app.command("info")
def _info(
    source: Annotated[
        str | None, typer.Argument(help="Store or capture. Default: the newest *.mmtrace here.")
    ] = None,
    format: Annotated[InfoFormat, typer.Option(help="Output format.")] = InfoFormat.TEXT,
) -> None:
    """Say what a store or capture holds, where it is from and what is wrong with it."""
    from tracer.info import as_json, describe

    found = _open(source)
    if format is InfoFormat.JSON:
        print(as_json(found))
    else:
        print(*describe(found), sep="\n")


@app.command("script")
def _script(
    source: Annotated[
        str | None, typer.Argument(help="Store or capture. Default: the newest *.mmtrace here.")
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option("--event", "-e", help="Events by name or pattern; may be given again."),
    ] = None,
    tid: Annotated[int | None, typer.Option(help="Only this thread.")] = None,
    time: Annotated[
        str | None, typer.Option(metavar="START,STOP", help="Seconds of the capture's clock.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Stop after this many lines.")] = None,
    symbols: Annotated[
        Path | None, typer.Option(help="kallsyms text or vmlinux of the captured kernel.")
    ] = None,
) -> None:
    """Print the events in time order, one line each, as perf script does."""
    from itertools import islice

    from tracer.script import Selection, lines, parse_time

    start, stop = parse_time(time) if time else (None, None)
    found = _open(source, symbols)
    chosen = Selection(event or (), tid, start, stop)
    for line in islice(lines(found, chosen), limit):
        print(line)


@app.command("events")
def _events(
    source: Annotated[
        str | None, typer.Argument(help="Store or capture. Default: the newest *.mmtrace here.")
    ] = None,
) -> None:
    """List the events with their losses, and the probes that are missing."""
    from tracer.events import describe

    print(*describe(_open(source)), sep="\n")


# --- verbs ---------------------------------------------------------------------------


def _open(source: str | None, symbols: Path | None = None) -> Store | Capture:
    from tracer.ingest import describe_fields, read_capture
    from tracer.store import is_store, newest_store, open_store

    path = newest_store() if source is None else Path(source)
    if is_store(path):
        return open_store(path)
    capture = read_capture(source or path)
    describe_fields(str(source or path), capture, symbols=symbols)
    return capture


replayverbs.add(app)
verbs.add(app, compile_notice, write)
recordverbs.add(app)


def _terminate(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def main() -> None:
    """The console script."""
    # Without this a terminated ingest would leave its temporary directory.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(errors.EXIT_INTERRUPTED) from None


if __name__ == "__main__":
    main()
