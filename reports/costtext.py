# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines, prices and predictions as plain text that survives a mail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from replay.cost import MODEL_VERSION, breakeven, seeds
from replay.cost.calibrate import WELL, Calibration
from replay.cost.freeze import Scored
from replay.cost.predict import Outcome
from replay.cost.price import Estimate, Priced, distinguishable, estimate, speedup
from replay.cost.schema import PRIMITIVES, SOFTWARE
from replay.cost.tables import Cost, Machine
from reports.text import Table, join, right, to_ascii, wrap

UNKNOWN: Final = "not distinguishable"
UNITS: Final = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}


def number(value: float) -> str:
    """:return: three significant digits, without an exponent"""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def time_text(ns: float) -> str:
    """:return: a time with a unit that keeps it short"""
    unit = next((u for u, size in UNITS.items() if abs(ns) >= size), "ns")
    return f"{number(ns / UNITS[unit])} {unit}"


def interval(e: Estimate, unit: float = 1.0) -> str:
    """:return: the 90 % interval, ``low..high``"""
    return f"{number(e.low / unit)}..{number(e.high / unit)}"


def ratio_text(e: Estimate) -> str:
    """:return: how many times faster, with its interval, or that it cannot be told"""
    if e.low == e.high == 1.0:
        return "1.00x, same counts"
    text = f"{e.median:.2f}x [{e.low:.2f}..{e.high:.2f}]"
    return text if distinguishable(e) else f"{text} {UNKNOWN}"


def machines_text(found: Mapping[str, Machine]) -> str:
    """Every machine on one line."""
    table = Table()
    table.row("machine", "what", right("CPUs"), right("TLBI+DSB"), right("atomic"), right("code"))
    table.rule()
    for m in found.values():
        flush = m.costs["tlbi_issue"].value + m.costs["tlbi_sync"].value
        shown = f"{number(flush)} ns" if flush else "-"
        table.row(
            m.name, m.title[:28], right(str(m.cpus)), right(shown),
            right(f"{number(m.costs['rmw_map'].value)} ns"), right(f"{m.costs['sw'].value:.2f}"),
        )  # fmt: skip
    notes = wrap(
        "TLBI+DSB: one flush, no other CPU broadcasts. atomic: on a line in L1. code: time of "
        "kernel code relative to xeon-4210r. 'mmtrace machines NAME' shows every cost with "
        "its source."
    )
    return to_ascii(join([table.lines(), notes]))


def machine_text(machine: Machine) -> str:
    """Every cost of a machine: value, interval, kind, source."""
    flags = ", ".join(k for k, v in machine.cpu.features().items() if v) or "none"
    waits = "yes" if machine.dsb_waits else "no"
    head = [
        f"{machine.name}: {machine.title}",
        f"{machine.arch}{', virtual' if machine.virtual else ''}, {machine.cpus} CPUs, "
        f"{machine.llc_mib:g} MiB last level cache",
        f"CPU features: {flags}",
        f"every DSB waits for TLBI: {waits} ({machine.dsb_waits_source})",
    ]
    if machine.leaves_out:
        head.append(f"left out: {machine.leaves_out}")
    means = {name: text for name, _, text in PRIMITIVES}
    means["sw"] = "kernel code, relative to xeon-4210r"
    body = _costs(machine.costs, means, "ns, 90 % interval")
    code = _costs(machine.software, dict(SOFTWARE), "ns on xeon-4210r")
    return to_ascii(join([head, body, code]))


def _costs(costs: Mapping[str, Cost], means: Mapping[str, str], unit: str) -> list[str]:
    lines = [f"cost ({unit})"]
    for name, c in costs.items():
        lines += wrap(
            f"{number(c.value)} [{number(c.low)}..{number(c.high)}] {c.kind}: "
            f"{means[name]}. {c.source}",
            f"  {name:<17} ", " " * 22,
        )  # fmt: skip
    return lines


def waterfall(base: Priced, new: Priced) -> list[str]:
    """The saved time by primitive group, largest first, with its sum."""
    table = Table()
    table.row("saved in", right("ms"), right("90 % interval"), right("share"))
    table.rule()
    total = base.total - new.total
    whole = float(total[0])
    parts = {g: base.parts[g] - new.parts[g] for g in base.parts}
    for group, samples in sorted(parts.items(), key=lambda p: -abs(float(p[1][0]))):
        if not samples.any():
            continue
        share = f"{100 * float(samples[0]) / whole:.0f} %" if whole else "-"
        found = estimate(samples)
        table.row(
            group, right(f"{samples[0] / 1e6:.3f}"), right(interval(found, 1e6)), right(share)
        )
    table.rule()
    table.row(
        "all", right(f"{whole / 1e6:.3f}"), right(interval(estimate(total), 1e6)), right("100 %")
    )
    return table.lines()


def priced_text(
    title: str, machine: Machine, labels: Sequence[str], found: Sequence[Priced]
) -> str:
    """Times of policies on a machine, and the first pair's difference by primitive."""
    table = Table()
    unit = UNITS[time_text(float(np.median(found[0].total))).split()[1]]
    name = next(k for k, v in UNITS.items() if v == unit)
    table.row("policy", right(name), right("90 % interval"), right("ns/page"), "faster")
    table.rule()
    for label, one in zip(labels, found, strict=True):
        e = estimate(one.total)
        ratio = "" if one is found[0] else ratio_text(speedup(found[0], one, labels[0], label))
        per = number(e.median / one.work.pages) if one.work.pages else "-"
        table.row(
            label, right(number(e.median / unit)), right(interval(e, unit)), right(per), ratio
        )
    blocks = [wrap(f"{title} on {machine.name}, cost model {MODEL_VERSION}"), table.lines()]
    blocks += [waterfall(found[0], one) for one in found[1:] if one.total[0] != found[0].total[0]]
    blocks.append(left_out(machine))
    return to_ascii(join(blocks))


def left_out(machine: Machine) -> list[str]:
    """What a figure does not contain, in one paragraph."""
    text = (
        "Time is a model: counts are exact, costs have intervals; inlining and code size "
        "are not seen."
    )
    if machine.leaves_out:
        text += f" x86 figures leave out {machine.leaves_out}."
    if machine.virtual:
        text += " The machine is a VM; absolute times of VMs differ between runs of one author."
    return wrap(text)


def orders_text(machine: Machine, rows: Sequence[breakeven.OrderRow]) -> str:
    """Every folio order; break-even; losers."""
    table = Table()
    table.row("folio order", right("saved ns/page"), "faster")
    table.rule()
    for row in rows:
        title = f"{row.order}" if row.title == breakeven.WHOLE else f"{row.order}, {row.title}"
        table.row(title, right(number(row.saved)), ratio_text(row.faster))
    even = breakeven.break_even(list(rows))
    said = f"Pays from order {even} on." if even is not None else "Pays at no order."
    losing = [
        f"order {r.order} ({r.title}): {ratio_text(r.faster)}" for r in breakeven.losers(list(rows))
    ]
    block = ["Where it has it hardest:", *[f"  {line}" for line in losing]]
    return to_ascii(join([[f"by folio order on {machine.name}"], table.lines(), wrap(said), block]))


def seed_text(seed: str) -> str:
    """One seed: prediction beside published figure."""
    found = seeds.lines(seed)
    places = list(dict.fromkeys(line.machine for line in found))
    table, left = Table(), ""
    lead = ["what"] if len(places) == 1 else ["what", "machine"]
    table.row(*lead, right("predicted"), right("90 % interval"), "", "published")
    table.rule()
    for line in found:
        e = line.predicted
        digits = "{:.2f}" if line.unit == "x" else "{:.1f}"
        shown = f"{digits.format(e.low)}..{digits.format(e.high)}"
        cells = [line.what] if len(places) == 1 else [line.what, line.machine]
        middle = right(digits.format(e.median))
        table.row(*cells, middle, right(shown), line.unit, line.published)
        left = line.note or left
    head = [f"seed {seed}: {seeds.TITLES[seed]}", f"on {', '.join(places)}"]
    notes = [seeds.LEFT_OUT.get(seed, "")] + ([f"x86 figures leave out {left}."] if left else [])
    return to_ascii(join([head, table.lines(), *[wrap(n) for n in notes if n]]))


def outcomes_text(title: str, found: Sequence[Outcome]) -> str:
    """Predictions of a case, machine by machine, the null model beside them."""
    table = Table()
    table.row("machine", "side", right("time"), "faster than the first", right("null model"))
    table.rule()
    for o in found:
        ratio = "" if o.ratio is None else ratio_text(o.ratio)
        beside = "-" if o.null_ns is None else time_text(o.null_ns)
        table.row(o.machine, o.label, right(time_text(o.time.median)), ratio, right(beside))
    left = {o.leaves_out for o in found if o.leaves_out}
    notes = [wrap(f"xeon-4210r leaves out {text}.") for text in sorted(left)]
    return to_ascii(join([[title], table.lines(), *notes]))


def score_text(
    scored: Sequence[Scored], found: Mapping[str, float], frozen: Mapping[str, Any]
) -> str:
    """Measured ratios beside the frozen ones, and how good the model and the null model were."""
    table = Table()
    table.row(
        "case",
        "machine",
        "side",
        right("measured"),
        right("predicted"),
        right("error"),
        right("null"),
        "",
    )
    table.rule()
    for s in scored:
        mark = "" if s.sign else "wrong sign"
        mark = mark or ("" if s.hit else "outside")
        beside = "-" if s.null_error is None else f"{100 * s.null_error:+.0f} %"
        table.row(
            s.case, s.machine, s.side, right(f"{s.measured:.2f}x"), right(f"{s.predicted[0]:.2f}x"),
            right(f"{100 * s.error:+.0f} %"), right(beside), mark,
        )  # fmt: skip
    lines = [
        f"ratios scored: {found['ratios']:.0f}",
        f"right sign: {100 * found['sign']:.0f} %, "
        f"inside the 90 % interval: {100 * found['inside']:.0f} %",
        f"error of the ratio: median {100 * found['median_error']:.1f} %, "
        f"largest {100 * found['maximum_error']:.1f} %",
    ]
    if "median_null_error" in found:
        lines.append(
            f"where the null model has rows: {100 * found['median_error_where_null']:.1f} % "
            f"against its {100 * found['median_null_error']:.1f} %"
        )
    head = [f"frozen by model {frozen['model_version']}, {frozen['sha256'][:12]}"]
    return to_ascii(join([head, table.lines(), lines]))


def calibration_text(found: Calibration) -> str:
    """What the timings say of every cost, best determined first."""
    table = Table()
    table.row("cost", right("fitted"), right("90 % interval"), right("left of before"), "")
    table.rule()
    for name, share in sorted(found.determined.items(), key=lambda p: p[1]):
        c = found.machine.costs[name]
        said = "set by the timings" if share < WELL else "as assumed" if share > 0.95 else "partly"
        shown = f"{number(c.low)}..{number(c.high)}"
        table.row(
            name, right(number(c.value)), right(shown), right(f"{100 * min(share, 1):.0f} %"), said
        )
    lines = [f"{title}: {100 * error:+.1f} %" for title, error in found.errors]
    return to_ascii(join([table.lines(), ["error of each timing after the fit:", *lines]]))
