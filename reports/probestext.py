# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``mmtrace probes`` prints: the probe set of one kernel, for people and for tools."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Final

from tracer import probes
from tracer.output import WIDTH, columns
from tracer.probes import Functions, Place, ProbeDefinition
from tracer.vocabulary import BY_NAME, OPERATIONS

TRACEFS: Final = "/sys/kernel/tracing"
_ROLE_COST: Final = {
    "op": "the replay leaves these operations out",
    "lead": "faults are told apart by what they map only",
    "witness": "verify has nothing recorded to compare this count with",
}
_STATUS: Final = {
    probes.CLONE: "only as {found}, whose arguments differ",
    probes.COPIES: "{found} of that name; a probe by name is refused",
    probes.CHANGED: "takes {found}, which the probe table does not know",
    probes.ABSENT: "inlined away, or not in this kernel",
    probes.OTHER_ARCH: "exists on {found} only",
}
# bpftrace types of kprobe field types.
_INTEGERS: Final = {"x64": "uint64", "x32": "uint32", "u32": "uint32", "s32": "int32",
                    "u8": "uint8"}  # fmt: skip


def probes_text(
    found: Sequence[ProbeDefinition],
    more: Sequence[ProbeDefinition],
    functions: Functions | None,
    btf_names: bool,
) -> str:
    """What can be recorded, what cannot, and what that costs.

    :param found: :func:`tracer.probes.resolve` of the table
    :param more: the same of :data:`tracer.probes.MORE`
    :param functions: the kernel's functions, None when only its BTF is known
    :param btf_names: whether the kernel takes arguments by name
    """
    good = [d for d in found if d.status == probes.OK]
    how = "BTF name" if btf_names else "register and offset, computed from BTF"
    out = [f"{len(good)} of {len(found)} probes can be recorded, arguments by {how}.", ""]
    out += _table([("function", "event", "tells")], good)
    bad = [d for d in found if d.status != probes.OK]
    if bad:
        out += ["", "Cannot be recorded:"]
        reasons: dict[tuple[str, str], list[str]] = {}
        for d in bad:
            reasons.setdefault(_reason(d), []).append(_functions(d))
        for (why, cost), names in reasons.items():
            out += [*_wrapped(f"{', '.join(names)}: {why}"), f"    {cost}"]
    out += _dropped(good)
    if functions is None:
        out += ["", "Inlining is unknown without kallsyms: name it with --kallsyms."]
    else:
        out += ["", "Inlined, and reconstructed from other probes:"]
        loops = [v for v in probes.LOOPS if v.function not in functions.copies]
        out += ["  " + line for line in columns([(v.function, v.stand_in) for v in loops])]
    return "\n".join([*out, *_blind(more), ""])


def _table(rows: list[tuple[str, str, str]], good: Sequence[ProbeDefinition]) -> list[str]:
    for d in good:
        probe = BY_NAME.get(d.event)
        tells = OPERATIONS.get(probe.op, "") if probe else ""
        rows.append((d.form.function, d.event, tells or (probe.role if probe else "")))
    return ["  " + line for line in columns(rows)]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")


def _functions(d: ProbeDefinition) -> str:
    return " or ".join(dict.fromkeys(form.function for form in d.spec.forms))


def _reason(d: ProbeDefinition) -> tuple[str, str]:
    """:return: why it cannot be recorded, and what stands in for it or is lost."""
    probe = BY_NAME.get(d.spec.names[-1])
    why = _STATUS[d.status].format(found=", ".join(d.found))
    if d.spec.stand_in:
        return why, f"instead: {d.spec.stand_in}"
    return why, f"cost: {_ROLE_COST[probe.role]}" if probe else ""


def _dropped(good: Sequence[ProbeDefinition]) -> list[str]:
    lost = [f"  {d.event}: {', '.join(d.dropped)}" for d in good if d.dropped]
    noted = [f"  {d.event}, from {d.form.function}: {d.form.note}" for d in good if d.form.note]
    out = ["", "Fields that this kernel does not have:", *lost] if lost else []
    return [*out, "", "Recorded with less detail:", *noted] if noted else out


def _blind(more: Sequence[ProbeDefinition]) -> list[str]:
    out = ["", "What no probe of the set shows:"]
    events = [d.event for d in more if d.status == probes.OK]
    for blind in probes.BLIND:
        shown = [e for e in events if e in blind.more]
        out += _wrapped(f"{blind.what}: {blind.cost}")
        out += [f"    --more records {', '.join(shown)}"] if shown else []
    return out


def emit(found: Sequence[ProbeDefinition], form: str) -> str:
    """The probe set for a tool.

    :param found: definitions; those that cannot be recorded are left out
    :param form: ``tracefs``, ``perf``, ``trace-cmd`` or ``bpftrace``
    """
    good = [d for d in found if d.status == probes.OK]
    return _EMITTERS[form](good)


def _tracefs(good: Sequence[ProbeDefinition]) -> str:
    return "".join(d.line() + "\n" for d in good)


def _script(good: Sequence[ProbeDefinition], record: Sequence[str]) -> str:
    """A shell script that sets the probes, records, and removes them whatever happens."""
    groups = sorted({d.spec.group for d in good})
    # perf and trace-cmd take an event by pattern; a tracepoint the kernel lacks is left out.
    static = " ".join(probes.STATIC)
    return "\n".join([
        "#!/bin/sh",
        "# Usage: sh THIS COMMAND...; needs root. Sets the probes, records, removes the probes.",
        f"cd {TRACEFS} || exit 1",
        "remove() {",
        *(f"    echo '-:{d.spec.group}/{d.event}' >> {TRACEFS}/kprobe_events" for d in good),
        "}",
        "trap 'remove 2>/dev/null' EXIT",
        "trap 'exit 130' INT TERM HUP",
        "cat >> kprobe_events <<'EOF' || exit 1",
        *(d.line() for d in good),
        "EOF",
        'cd "$OLDPWD" || exit 1',
        f"static= events={TRACEFS}/events",
        f"for event in {static}; do",
        '    [ -d "$events/${event%%:*}/${event##*:}" ] && static="$static -e $event"',
        "done",
        "cp /sys/kernel/btf/vmlinux vmlinux.btf",
        " ".join([*record, *(f"-e '{g}:*'" for g in groups), "$static", '"$@"']),
        "",
    ])  # fmt: skip


def _perf(good: Sequence[ProbeDefinition]) -> str:
    return _script(good, ("perf", "record", "-a", "-m", "16M", "-o", "perf.data"))


def _trace_cmd(good: Sequence[ProbeDefinition]) -> str:
    return _script(good, ("trace-cmd", "record", "-b", "16384", "-o", "trace.dat"))


def _bpftrace(good: Sequence[ProbeDefinition]) -> str:
    """A script whose output reads as tracefs text, which ``mmtrace ingest`` takes."""
    out = ["#!/usr/bin/env -S bpftrace -q", "config = { max_strlen = 64 }", ""]
    for d in good:
        at = f"kretprobe:{d.form.function}" if d.spec.returns else f"kprobe:{d.form.function}"
        fields = [(f.name, _value(f.place, f.type, f.code)) for f in d.fields]
        body = "".join(f" {name}=0x%lx" for name, _ in fields)
        head = f"%16s-%-7d [%03d] ..... %lu.%06lu: {d.event}: ({d.form.function}+0x0/0x0)"
        values = ["comm", "tid", "cpu", "nsecs / 1000000000", "nsecs / 1000 % 1000000"]
        values += [value for _, value in fields]
        out += [
            f"{at}",
            "{",
            f'    printf("{head}{body}\\n",',
            f"        {', '.join(values)});",
            "}",
        ]
    return "\n".join([*out, ""])


def _value(place: Place | None, kind: str, code: str) -> str:
    """A field as a bpftrace expression."""
    if place is None:
        return "retval" if code == "$retval" else code[1:].partition(":")[0]
    value = f"arg{place.parameter}"
    for offset in place.offsets[:-1]:
        value = f"*(uint64 *)({value} + {offset})"
    integer = _INTEGERS[kind]
    if place.offsets:
        return f"*({integer} *)({value} + {place.offsets[-1]})"
    return value if integer == "uint64" else f"({integer}){value}"


_EMITTERS: Final[dict[str, Callable[[Sequence[ProbeDefinition]], str]]] = {
    "tracefs": _tracefs,
    "perf": _perf,
    "trace-cmd": _trace_cmd,
    "bpftrace": _bpftrace,
}
