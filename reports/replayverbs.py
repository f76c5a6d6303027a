# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs that replay a store or capture; :mod:`mmtrace` adds them to its own."""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from reports.options import (
    By,
    CompareBy,
    CompareFormat,
    CompareStyle,
    CpuOption,
    FeatureOption,
    FolioOption,
    GranuleOption,
    PolicyOption,
    RawOption,
    ReplayFormat,
    SetOption,
    StoreArgument,
    compile_notice,
    pairs,
    replays,
    switches,
    write,
)
from tracer import errors


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
    _, done = replays(store, policy or ["own"], cpu, cpu_feature, set_, granule, check, folio_size)
    write(output, render(done, by=(by or default).value, fmt=format.value), force)


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
            _, one = replays(
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
        _, done = replays(
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
    write(output, text.encode() if text.endswith("\n") else text.encode() + b"\n", force)
    if machine is not None and len(stores or ()) < 2:
        from reports.scenariotext import priced_source

        names = policy or ["unbatched", "batched"]
        print()
        print(priced_source(stores[0] if stores else None, names, machine, pairs(set_, "--set")))
    trips = tripped(found, fail_if or [])
    for trip in trips:
        print(f"mmtrace: gate: {trip}", file=sys.stderr)
    if trips:
        raise typer.Exit(errors.EXIT_GATE)


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
    source, done = replays(store, names, cpu, cpu_feature, set_, granule, detailed=True)
    fidelity = verify(
        source, truth_path=truth, workload=workload, cpu=cpu, cpu_features=switches(cpu_feature)
    )
    write_report(
        output,
        done,
        verification=fidelity,
        prices=machine_prices(source, names, sets=pairs(set_, "--set"), granule_name=granule),
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
    source, done = replays(store, names, cpu, cpu_feature, set_, granule, detailed=True)
    print(show(done, source.loss, Look.of(sys.stdout, os.environ), raw), end="")


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
    source, done = replays(store, names, cpu, cpu_feature, set_, granule, detailed=True)
    if to is ExportTo.PERFETTO:
        write(output, perfetto(source.ops, done, raw).encode(), force)
    elif to is ExportTo.FOLDED:
        write(output, folded(done[0], counter, raw).encode(), force)
    elif output is not None:
        for path in parquet(output, done, raw, force):
            print(f"Wrote {path}", file=sys.stderr)


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
    compile_notice()
    done = verify(
        source,
        policy,
        truth_path=truth,
        workload=workload,
        cpu=cpu,
        cpu_features=switches(cpu_feature),
        sets=pairs(set_, "--set"),
    )
    print(verify_text(done, failures_only=failures), end="")
    if not done.passed:
        raise typer.Exit(errors.EXIT_GATE)


def _policies(
    name: Annotated[
        str | None, typer.Argument(metavar="[POLICY]", help="Show this policy's features.")
    ] = None,
) -> None:
    """List the policies, or one policy's features with the series each came with."""
    from reports.policytext import policies_text, policy_text

    print(policies_text() if name is None else policy_text(name), end="")


def add(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("replay")(_replay)
    app.command("compare")(_compare)
    app.command("report")(_report)
    app.command("show")(_show)
    app.command("export")(_export)
    app.command("anonymize")(_anonymize)
    app.command("verify")(_verify)
    app.command("policies")(_policies)
