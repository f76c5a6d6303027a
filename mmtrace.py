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
import shlex
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

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


# --- options shared by the verbs that replay -------------------------------------------

StoreArgument = Annotated[
    str | None,
    typer.Argument(metavar="[STORE]", help="Store or capture. Default: the newest *.mmtrace here."),
]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--policy", "-p", help="Policy by name, or FILE.toml; may be given again. See policies."
    ),
]
CpuOption = Annotated[str, typer.Option(help="CPU profile, for example neoverse-n1.")]
FeatureOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cpu-feature",
        metavar="NAME=0|1",
        help="Change a CPU feature: tlbi_range, lpa2, kpti, bbm, repeat_tlbi.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="OP=HOW",
        help="fork=unbatched, zap=batched, ..., or a feature of the policy as NAME=NUMBER.",
    ),
]
GranuleOption = Annotated[
    str | None, typer.Option(help="4K, 16K or 64K. Default: the capture's page size.")
]
FolioOption = Annotated[
    str,
    typer.Option(help="Lay anon faults on folios of 4K, 16K, ..., 2M instead of as-recorded."),
]
RawOption = Annotated[
    bool, typer.Option("--raw", help="Keep names of tasks, hosts and files; default is to hide.")
]


class By(StrEnum):
    """What the rows of ``mmtrace replay`` are summed by; ``all`` sums nothing."""

    TOTAL = "total"
    OP = "op"
    SYSCALL = "syscall"
    TASK = "task"
    ALL = "all"


class CompareBy(StrEnum):
    """What the rows of ``mmtrace compare`` are summed by."""

    TOTAL = "total"
    OP = "op"
    SYSCALL = "syscall"
    TASK = "task"
    ORDER = "order"


class ReplayFormat(StrEnum):
    """Output formats of ``mmtrace replay``."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


class CompareFormat(StrEnum):
    """Output formats of ``mmtrace compare``."""

    TEXT = "text"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


class CompareStyle(StrEnum):
    """Table shapes of ``mmtrace compare --format text``."""

    BENCHSTAT = "benchstat"
    ROBOT = "robot"
    PIPE = "pipe"


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """``NAME=VALUE`` options as a mapping."""
    pairs = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise errors.UsageError(f"{option} {text} is not NAME=VALUE.")
        pairs[name] = value
    return pairs


def _switches(given: list[str] | None) -> dict[str, int]:
    pairs = _pairs(given, "--cpu-feature")
    wrong = next((f"{k}={v}" for k, v in pairs.items() if v not in ("0", "1")), None)
    if wrong:
        raise errors.UsageError(f"--cpu-feature {wrong} takes 0 or 1.")
    return {name: int(value) for name, value in pairs.items()}


def _compile_notice() -> None:
    """Say once that the model is compiled; later runs use the kept machine code."""
    from tracer.jit import is_compiled

    if not is_compiled("replay"):
        print("Compiling the model; this is needed once and takes about a minute.", file=sys.stderr)


def _replays(
    source: str | None,
    policies: list[str],
    cpu: str,
    features: list[str] | None,
    sets: list[str] | None,
    granule: str | None,
    checked: bool = False,
    folio_size: str = "as-recorded",
    detailed: bool = False,
) -> tuple[Any, list[Any]]:
    """Open the source and replay it under every policy."""
    from replay.api import open_source, replay

    found = open_source(source)
    _compile_notice()
    done = replay(
        found,
        policies,
        cpu=cpu,
        cpu_features=_switches(features),
        sets=_pairs(sets, "--set"),
        granule_name=granule,
        folio_size=folio_size,
        checked=checked,
        detailed=detailed,
    )
    return found, done


def _write(output: Path | None, content: bytes, force: bool) -> None:
    """Data to a file, whole or not at all, or to standard output."""
    if output is None or str(output) == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    from tracer.files import write_file

    write_file(output, content, force)
    print(f"Wrote {output}", file=sys.stderr)


# --- verbs ---------------------------------------------------------------------------


@app.command("replay")
def _replay(
    store: StoreArgument = None,
    policy: PolicyOption = None,
    by: Annotated[
        By | None,
        typer.Option(help="What a row is. Default: total; in other formats than text all."),
    ] = None,
    format: Annotated[ReplayFormat, typer.Option(help="Output format.")] = ReplayFormat.TEXT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file.")] = False,
    cpu: CpuOption = "qemu-max",
    cpu_feature: FeatureOption = None,
    set_: SetOption = None,
    granule: GranuleOption = None,
    folio_size: FolioOption = "as-recorded",
    check: Annotated[
        bool, typer.Option("--check", help="Check the model's invariants after every operation.")
    ] = False,
) -> None:
    """Re-execute the operations under policies and count every primitive."""
    from reports.replayout import render

    # A program that reads the counts wants them whole; a person wants the sums.
    default = By.TOTAL if format is ReplayFormat.TEXT else By.ALL
    _, done = _replays(store, policy or ["own"], cpu, cpu_feature, set_, granule, check, folio_size)
    _write(output, render(done, by=(by or default).value, fmt=format.value), force)


@app.command("compare")
def _compare(
    stores: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STORE]...",
            help="Stores or captures, each as PATH or LABEL=PATH. Default: the newest store.",
        ),
    ] = None,
    policy: PolicyOption = None,
    by: Annotated[CompareBy, typer.Option(help="What a row is.")] = CompareBy.TOTAL,
    format: Annotated[CompareFormat, typer.Option(help="Output format.")] = CompareFormat.TEXT,
    style: Annotated[
        CompareStyle, typer.Option(help="Table shape of the text.")
    ] = CompareStyle.BENCHSTAT,
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", metavar="EXPR", help="Exit 3 when it holds: 'tlbi > +5%'."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file.")] = False,
    raw: RawOption = False,
    machine: Annotated[
        str | None, typer.Option("--machine", "-m", help="Price the text on a machine too.")
    ] = None,
    cpu: CpuOption = "qemu-max",
    cpu_feature: FeatureOption = None,
    set_: SetOption = None,
    granule: GranuleOption = None,
    folio_size: FolioOption = "as-recorded",
) -> None:
    """Set policies, or captures, side by side: exact deltas for a mail.

    One store: --policy A --policy B, by default unbatched and batched.
    Several stores: each under one policy, by default its own kernel's.
    """
    from reports.compare import compare
    from reports.gates import tripped
    from reports.styles import render

    labels: list[str] | None = None
    done: list[Any] = []
    if stores and len(stores) > 1:
        if policy and len(policy) > 1:
            raise errors.UsageError("Several stores compare under one policy.", "Name one.")
        labels = []
        for text in stores:
            label, equals, path = text.partition("=")
            _, one = _replays(
                path if equals else text,
                policy or ["own"],
                cpu,
                cpu_feature,
                set_,
                granule,
                folio_size=folio_size,
                detailed=True,
            )
            done += one
            labels.append(label if equals else Path(text).name.removesuffix(".mmtrace"))
    else:
        names = policy or ["unbatched", "batched"]
        _, done = _replays(
            stores[0] if stores else None,
            names,
            cpu,
            cpu_feature,
            set_,
            granule,
            folio_size=folio_size,
            detailed=by is CompareBy.ORDER,
        )
    if labels and len(set(labels)) < len(labels):
        labels = None  # the same file name in two places: the kernels tell them apart
    found = compare(done, by=by.value, labels=labels, raw=raw)
    text = render(found, fmt=format.value, style=style.value)
    _write(output, text.encode() if text.endswith("\n") else text.encode() + b"\n", force)
    if machine is not None and len(stores or ()) < 2:
        from reports.scenariotext import priced_source

        names = policy or ["unbatched", "batched"]
        print()
        print(priced_source(stores[0] if stores else None, names, machine, _pairs(set_, "--set")))
    trips = tripped(found, fail_if or [])
    for trip in trips:
        print(f"mmtrace: gate: {trip}", file=sys.stderr)
    if trips:
        raise typer.Exit(errors.EXIT_GATE)


@app.command("report")
def _report(
    store: StoreArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path(
        "report.html"
    ),
    policy: PolicyOption = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file.")] = False,
    truth: Annotated[
        Path | None, typer.Option(help="Truth file of a booted kernel for the fidelity panel.")
    ] = None,
    workload: Annotated[
        str | None, typer.Option(help="Workload in the truth file, for example pageout-64k.")
    ] = None,
    raw: RawOption = False,
    cpu: CpuOption = "qemu-max",
    cpu_feature: FeatureOption = None,
    set_: SetOption = None,
    granule: GranuleOption = None,
) -> None:
    """Write one offline HTML file: verdict, deltas, breakdowns, fidelity, provenance."""
    from replay.api import machine_prices, verify
    from reports.html import write_report
    from tracer.files import refuse_existing

    refuse_existing(output, force)
    names = policy or ["unbatched", "batched"]
    source, done = _replays(store, names, cpu, cpu_feature, set_, granule, detailed=True)
    fidelity = verify(
        source, truth_path=truth, workload=workload, cpu=cpu, cpu_features=_switches(cpu_feature)
    )
    write_report(
        output,
        done,
        verification=fidelity,
        prices=machine_prices(source, names, sets=_pairs(set_, "--set"), granule_name=granule),
        loss=source.loss,
        diagnostics=source.diagnostics,
        provenance=source.provenance,
        command=shlex.join(["mmtrace", *sys.argv[1:]]),
        raw=raw,
        force=force,
    )
    print(f"Wrote {output}", file=sys.stderr)


class ExportTo(StrEnum):
    """Formats of ``mmtrace export``."""

    PERFETTO = "perfetto"
    FOLDED = "folded"
    PARQUET = "parquet"


@app.command("show")
def _show(
    store: StoreArgument = None,
    policy: PolicyOption = None,
    raw: RawOption = False,
    cpu: CpuOption = "qemu-max",
    cpu_feature: FeatureOption = None,
    set_: SetOption = None,
    granule: GranuleOption = None,
) -> None:
    """Print a summary for the terminal: verdict, bars per counter and order, time line."""
    from reports.show import Look, show

    names = policy or ["unbatched", "batched"]
    source, done = _replays(store, names, cpu, cpu_feature, set_, granule, detailed=True)
    print(show(done, source.loss, Look.of(sys.stdout, os.environ), raw), end="")


@app.command("export")
def _export(
    store: StoreArgument = None,
    to: Annotated[ExportTo, typer.Option(help="Format to write.")] = ExportTo.PERFETTO,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File, or directory for parquet. Default: stdout."),
    ] = None,
    policy: PolicyOption = None,
    counter: Annotated[str, typer.Option(help="What folded stacks count.")] = "tlbi",
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite files.")] = False,
    raw: RawOption = False,
    cpu: CpuOption = "qemu-max",
    cpu_feature: FeatureOption = None,
    set_: SetOption = None,
    granule: GranuleOption = None,
) -> None:
    """Write a replay for Perfetto, for flame graphs, or as parquet tables."""
    from reports.export import folded, parquet, perfetto

    if to is ExportTo.FOLDED and policy and len(policy) > 1:
        raise errors.UsageError("Folded stacks are of one policy.", "Name one.")
    if to is ExportTo.PARQUET and (output is None or str(output) == "-"):
        raise errors.UsageError("Parquet tables need a directory.", "Name one with -o.")
    names = policy or (["own"] if to is ExportTo.FOLDED else ["unbatched", "batched"])
    source, done = _replays(store, names, cpu, cpu_feature, set_, granule, detailed=True)
    if to is ExportTo.PERFETTO:
        _write(output, perfetto(source.ops, done, raw).encode(), force)
    elif to is ExportTo.FOLDED:
        _write(output, folded(done[0], counter, raw).encode(), force)
    elif output is not None:
        for path in parquet(output, done, raw, force):
            print(f"Wrote {path}", file=sys.stderr)


@app.command("anonymize")
def _anonymize(
    store: StoreArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Store to write.")] = Path(
        "anonymous.mmtrace"
    ),
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace an existing store.")
    ] = False,
) -> None:
    """Copy a store without names and kernel addresses; replays count the same."""
    import tempfile

    from reports.anonymize import anonymize
    from tracer.ingest import ingest
    from tracer.store import is_store, newest_store, open_store

    path = newest_store() if store is None else Path(store)
    if is_store(path):
        made = anonymize(open_store(path), output, force)
    else:
        with tempfile.TemporaryDirectory() as directory:
            found = ingest(store or path, Path(directory) / "store.mmtrace")
            made = anonymize(found, output, force)
    print(f"Wrote {made.path}", file=sys.stderr)


@app.command("verify")
def _verify(
    store: StoreArgument = None,
    policy: Annotated[
        str, typer.Option("--policy", "-p", help="Policy. Default: the capture's own kernel.")
    ] = "own",
    truth: Annotated[
        Path | None,
        typer.Option(help="Truth file of a booted kernel. Default: the capture's own events."),
    ] = None,
    workload: Annotated[
        str | None, typer.Option(help="Workload in the truth file, for example pageout-64k.")
    ] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="Show only what is not equal.")
    ] = False,
    cpu: CpuOption = "qemu-max",
    cpu_feature: FeatureOption = None,
    set_: SetOption = None,
) -> None:
    """Hold simulated counts against real ones; exit 3 when any differs."""
    from replay.api import open_source, verify
    from reports.verifytext import verify_text

    source = open_source(store)
    _compile_notice()
    done = verify(
        source,
        policy,
        truth_path=truth,
        workload=workload,
        cpu=cpu,
        cpu_features=_switches(cpu_feature),
        sets=_pairs(set_, "--set"),
    )
    print(verify_text(done, failures_only=failures), end="")
    if not done.passed:
        raise typer.Exit(errors.EXIT_GATE)


@app.command("policies")
def _policies(
    name: Annotated[
        str | None, typer.Argument(metavar="[POLICY]", help="Show this policy's features.")
    ] = None,
) -> None:
    """List the policies, or one policy's features with the series each came with."""
    from reports.policytext import policies_text, policy_text

    print(policies_text() if name is None else policy_text(name), end="")


def _open(source: str | None, symbols: Path | None = None) -> Store | Capture:
    from tracer.ingest import describe_fields, read_capture
    from tracer.store import is_store, newest_store, open_store

    path = newest_store() if source is None else Path(source)
    if is_store(path):
        return open_store(path)
    capture = read_capture(source or path)
    describe_fields(str(source or path), capture, symbols=symbols)
    return capture


def _add_verbs() -> None:
    from reports.verbs import add

    add(app, _compile_notice, _write)


_add_verbs()


def _add_recording() -> None:
    from reports.recordverbs import add

    add(app)


_add_recording()


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
