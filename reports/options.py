# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that the verbs share, and what every verb does around its work.

Nothing heavy is imported here: ``mmtrace --help`` answers at once.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tracer import errors

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


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """``NAME=VALUE`` options as a mapping.

    :raises UsageError: for an option without a name, an equals sign or a value
    """
    found = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise errors.UsageError(f"{option} {text} is not NAME=VALUE.")
        found[name] = value
    return found


def switches(given: list[str] | None) -> dict[str, int]:
    found = pairs(given, "--cpu-feature")
    wrong = next((f"{k}={v}" for k, v in found.items() if v not in ("0", "1")), None)
    if wrong:
        raise errors.UsageError(f"--cpu-feature {wrong} takes 0 or 1.")
    return {name: int(value) for name, value in found.items()}


def compile_notice() -> None:
    """Say once that the model is compiled; later runs use the kept machine code."""
    from tracer.jit import is_compiled

    if not is_compiled("replay"):
        print("Compiling the model; this is needed once and takes about a minute.", file=sys.stderr)


def replays(
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
    compile_notice()
    done = replay(
        found,
        policies,
        cpu=cpu,
        cpu_features=switches(features),
        sets=pairs(sets, "--set"),
        granule_name=granule,
        folio_size=folio_size,
        checked=checked,
        detailed=detailed,
    )
    return found, done


def write(output: Path | None, content: bytes, force: bool) -> None:
    """Data to a file, whole or not at all, or to standard output."""
    if output is None or str(output) == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    from tracer.files import write_file

    write_file(output, content, force)
    print(f"Wrote {output}", file=sys.stderr)
