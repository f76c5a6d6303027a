# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of scenarios and of the cost model; :mod:`mmtrace` adds them to its own.

Everything heavy is imported by the verb that needs it: ``mmtrace --help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Notice = Callable[[], None]
Write = Callable[[Path | None, bytes, bool], None]

MachineOption = Annotated[
    str, typer.Option("--machine", "-m", help="Machine by name, or FILE.toml. See machines.")
]
MachinesOption = Annotated[
    list[str] | None,
    typer.Option("--machine", "-m", help="Only on this; FILE.toml for your own. Again for more."),
]


def machines(
    name: Annotated[
        str | None, typer.Argument(metavar="[MACHINE]", help="Show this machine's costs.")
    ] = None,
) -> None:
    """List the machines of the cost model, or one machine's costs with their sources."""
    from replay.cost.tables import get
    from replay.cost.tables import machines as listed
    from reports.costtext import machine_text, machines_text

    print(machines_text(listed()) if name is None else machine_text(get(name)), end="")


def score(
    predictions: Annotated[Path, typer.Argument(help="File that predict --freeze wrote.")],
    measurements: Annotated[Path, typer.Argument(help="CSV: case,machine,side,time_ns.")],
) -> None:
    """Hold measured times against frozen predictions."""
    from replay.cost import freeze
    from reports.costtext import score_text

    document = freeze.load(predictions)
    scored = freeze.score(document, freeze.read_measurements(measurements))
    print(score_text(scored, freeze.summary(scored), document), end="")


def add(app: typer.Typer, notice: Notice, write: Write) -> None:
    """Add the verbs.

    :param notice: says once that the model is being compiled
    :param write: writes bytes to a file or to standard output
    """
    app.command("machines")(machines)
    app.command("score")(score)
    _add_calibrate(app, notice, write)
    _add_predict(app, notice, write)
    _add_scenario(app, notice)


def _add_calibrate(app: typer.Typer, notice: Notice, write: Write) -> None:
    @app.command("calibrate")
    def calibrate(
        timings: Annotated[
            Path,
            typer.Argument(help="CSV: workload,size,folio_order,time_ns[,policy,cpus,spread]."),
        ],
        machine: MachineOption = "generic-arm64",
        name: Annotated[str, typer.Option(help="Name of the new machine.")] = "mine",
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="Machine file to write.")
        ] = None,
        force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file.")] = False,
    ) -> None:
        """Fit a machine to your own timings and say how well they determine each cost."""
        from replay.cost.calibrate import calibrate, to_toml
        from replay.cost.tables import get
        from reports.costtext import calibration_text

        notice()
        found = calibrate(get(machine), timings, name)
        print(calibration_text(found), end="")
        if output is not None:
            write(output, to_toml(found, machine).encode(), force)


def _add_predict(app: typer.Typer, notice: Notice, write: Write) -> None:
    @app.command("predict")
    def predict(
        cases: Annotated[
            list[str] | None, typer.Argument(metavar="[CASE]...", help="Cases; all by default.")
        ] = None,
        machine: MachinesOption = None,
        seed: Annotated[
            list[str] | None,
            typer.Option("--seed", help="000 to 004: a known thread, beside published figures."),
        ] = None,
        freeze: Annotated[
            bool, typer.Option("--freeze", help="Write all predictions into one hashed file.")
        ] = False,
        output: Annotated[
            Path, typer.Option("--output", "-o", help="Folder of the frozen file.")
        ] = Path("docs/predictions"),
    ) -> None:
        """Predict published workloads, with intervals and the null model beside them."""
        from replay.cost import freeze as frozen
        from replay.cost.predict import find_cases, predict_on
        from reports.costtext import outcomes_text, seed_text

        notice()
        if freeze:
            document = frozen.freeze(cases)
            output.mkdir(parents=True, exist_ok=True)
            write(output / frozen.file_name(document), frozen.to_text(document).encode(), True)
            return
        for name in seed or ():
            print(seed_text(name))
        if seed and not cases:
            return
        for case in find_cases(cases):
            found = predict_on(case, machine)
            if found:
                print(outcomes_text(f"{case.name}: {case.title}", found))


def _add_scenario(app: typer.Typer, notice: Notice) -> None:
    @app.command("scenario")
    def scenario(
        name: Annotated[
            str | None,
            typer.Argument(metavar="[NAME]", help="Scenario or preset. Default: list them."),
        ] = None,
        size: Annotated[str | None, typer.Option(help="Of the region: 64K, 256M, 1G.")] = None,
        folio_order: Annotated[int | None, typer.Option(help="Of the folios, 0 to 15.")] = None,
        alignment: Annotated[
            str | None, typer.Option(help="Distance of the start from a PUD boundary.")
        ] = None,
        dirty: Annotated[bool | None, typer.Option(help="Entries were written.")] = None,
        young: Annotated[bool | None, typer.Option(help="Entries were used.")] = None,
        shared: Annotated[bool | None, typer.Option(help="Another process maps them.")] = None,
        pte_mapped: Annotated[bool | None, typer.Option(help="2M folios mapped by PTEs.")] = None,
        partial: Annotated[int | None, typer.Option(help="Pages of every 16 covered.")] = None,
        tasks: Annotated[int | None, typer.Option(help="Processes that do the same.")] = None,
        cpus: Annotated[int | None, typer.Option(help="CPUs that run them at once.")] = None,
        iterations: Annotated[int | None, typer.Option(help="Of the timed phases.")] = None,
        how: Annotated[str | None, typer.Option(help="Variant of the scenario.")] = None,
        policy: Annotated[
            list[str] | None, typer.Option("--policy", "-p", help="Policy; may be given again.")
        ] = None,
        machine: MachinesOption = None,
        by_order: Annotated[
            bool, typer.Option("--by-order", help="Every folio order, break-even and losers.")
        ] = False,
    ) -> None:
        """Generate a workload, replay it under policies and price it, without a capture."""
        from reports.scenariotext import listing, report

        if name is None:
            print(listing(), end="")
            return
        given: dict[str, Any] = {
            "size": size, "alignment": alignment, "dirty": dirty, "young": young,
            "shared": shared, "pte_mapped": pte_mapped, "partial": partial, "tasks": tasks,
            "cpus": cpus, "iterations": iterations, "how": how,
        }  # fmt: skip
        params = {k: v for k, v in given.items() if v is not None}
        if folio_order is not None:
            params["folio_size"] = 4096 << max(0, min(folio_order, 20))
        notice()
        print(report(name, params, policy, machine, by_order=by_order), end="")
