# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe table fitted to one kernel: which functions it has, and where their arguments are.

``resolve(btf, functions)`` takes the newest form of each row that the kernel has. Fields
are taken by BTF name where kprobe events can, else by register and structure offset.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from tracer.btf import Btf
from tracer.errors import CaptureError
from tracer.probetable import BLIND, LOOPS, MORE, SPECS, STATIC, Form, Spec

__all__ = [
    "BLIND", "LOOPS", "MORE", "SPECS", "STATIC", "FieldPlan", "Form", "Functions", "Kernel",
    "Place", "ProbeDefinition", "Spec", "kernel_of", "resolve",
]  # fmt: skip

# Argument registers in order. Every parameter of the table fills one: pte_t and pgprot_t too.
REGISTERS: Final[dict[str, tuple[str, ...]]] = {
    "arm64": ("x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7"),
    "x86_64": ("di", "si", "dx", "cx", "r8", "r9"),
}
# Structure that a parameter or member of this name points to, wherever the table uses it.
POINTS_TO: Final = {
    "vma": "vm_area_struct", "src_vma": "vm_area_struct", "dst_vma": "vm_area_struct",
    "old": "vm_area_struct", "vmf": "vm_fault", "folio": "folio", "page": "folio",
    "walk": "mm_walk", "tlb": "mmu_gather", "pmc": "pagetable_move_control",
}  # fmt: skip
# Fields narrower than a register: its upper half is undefined by the calling convention.
NARROW: Final = {"nr_pages": "s32", "nr": "s32", "flags": "u32", "full": "s32", "dirty": "s32"}
# In kernel/trace/trace_btf.c, which is built with CONFIG_PROBE_EVENTS_BTF_ARGS since 6.6.
BTF_FIELDS: Final = "btf_find_struct_member"


class Place(NamedTuple):
    """A value at function entry: a parameter, then a pointer followed at each offset (bytes)."""

    parameter: int
    offsets: tuple[int, ...]


class FieldPlan(NamedTuple):
    """One field of a probe on one kernel.

    :ivar name: field name
    :ivar code: kprobe fetch argument with its type
    :ivar place: None for constants and return values, and when offsets are not known
    :ivar type: ``u8``, ``s32``, ``x64``, ...
    """

    name: str
    code: str
    place: Place | None
    type: str


OK: Final = "ok"
CLONE: Final = "clone"  # only compiler-made copies with other arguments
COPIES: Final = "copies"  # several functions of that name: the kernel refuses the name
CHANGED: Final = "changed"  # another prototype than any form of the table
ABSENT: Final = "absent"  # inlined away, or not in this kernel
OTHER_ARCH: Final = "other architecture"


@dataclass(frozen=True)
class ProbeDefinition:
    """A row of the table on one kernel.

    :ivar status: one of the constants above; only ``ok`` can be recorded
    :ivar dropped: fields whose member this kernel does not have
    :ivar found: clones, or what else explains the status
    """

    spec: Spec
    form: Form
    status: str
    event: str = ""
    fields: tuple[FieldPlan, ...] = ()
    dropped: tuple[str, ...] = ()
    found: tuple[str, ...] = ()

    def line(self, group: str | None = None) -> str:
        """:return: the line for kprobe_events, in ``group`` instead of the table's."""
        kind = f"r{self.spec.returns}" if self.spec.returns else "p"
        head = f"{kind}:{group or self.spec.group}/{self.event} {self.form.function}"
        return " ".join([head, *(f"{f.name}={f.code}" for f in self.fields)])


@dataclass(frozen=True)
class Functions:
    """Functions that a kernel image has out of line.

    :ivar copies: name to how many functions have it
    """

    copies: Mapping[str, int]

    @classmethod
    def from_kallsyms(cls, text: bytes) -> Functions:
        """:param text: /proc/kallsyms; modules are left out."""
        names = re.findall(rb"^[0-9a-f]+ [tTwW] (\S+)$", text, re.M)
        return cls.from_names(name.decode("utf-8", "replace") for name in names)

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Functions:
        """:param names: as in available_filter_functions, a name for each copy."""
        return cls(Counter(names))

    def clones(self, name: str) -> tuple[str, ...]:
        """:return: ``name.isra.0`` and the like; ``.cold`` is a part, not a clone."""
        suffix = re.compile(re.escape(name) + r"\.(?:isra|constprop|part)\..*")
        return tuple(sorted(n for n in self.copies if suffix.fullmatch(n)))


@dataclass(frozen=True)
class Kernel:
    """What resolving needs to know of a kernel.

    :ivar functions: None when unknown: BTF's word is taken
    :ivar btf_names: whether its kprobe events take BTF names
    """

    btf: Btf
    functions: Functions | None
    arch: str
    btf_names: bool


def kernel_of(btf: Btf, functions: Functions | None = None) -> Kernel:
    """Tell architecture and abilities from the kernel's own description.

    :raises CaptureError: when the kernel is of neither architecture
    """
    marks = {"arm64": "pstate", "x86_64": "orig_ax"}  # members of struct pt_regs
    arch = next((a for a, m in marks.items() if btf.offset_of("pt_regs", m) is not None), "")
    if not arch:
        raise CaptureError(
            "This BTF is of neither an arm64 nor an x86-64 kernel.",
            "The probe table knows the argument registers of these two.",
        )
    names = functions is not None and BTF_FIELDS in functions.copies
    return Kernel(btf, functions, arch, names or btf.function(BTF_FIELDS) is not None)


def resolve(
    btf: Btf, functions: Functions | None = None, specs: Iterable[Spec] = SPECS
) -> list[ProbeDefinition]:
    """Fit the table to one kernel.

    :param btf: the kernel's BTF
    :param functions: its functions, from kallsyms or available_filter_functions
    :return: a definition for each row
    """
    kernel = kernel_of(btf, functions)
    return [_resolve(spec, kernel) for spec in specs]


def _resolve(spec: Spec, kernel: Kernel) -> ProbeDefinition:
    newest = spec.forms[-1]
    if spec.arch not in ("", kernel.arch):
        return ProbeDefinition(spec, newest, OTHER_ARCH, found=(spec.arch,))
    changed: Form | None = None
    for form in reversed(spec.forms):
        if not _copies(form, kernel):
            continue
        if spec.returns or _takes(form, kernel):
            return _define(spec, form, kernel)
        changed = changed or form
    if changed:
        prototype = ", ".join(kernel.btf.function(changed.function) or ("unknown arguments",))
        return ProbeDefinition(spec, changed, CHANGED, found=(prototype,))
    clones = [c for f in spec.forms for c in (_clones(f.function, kernel))]
    return ProbeDefinition(spec, newest, CLONE if clones else ABSENT, found=tuple(clones))


def _copies(form: Form, kernel: Kernel) -> int:
    """:return: how many functions of the form's name there are."""
    if kernel.functions is None:
        return int(kernel.btf.function(form.function) is not None)
    return kernel.functions.copies.get(form.function, 0)


def _clones(name: str, kernel: Kernel) -> tuple[str, ...]:
    return kernel.functions.clones(name) if kernel.functions else ()


def _takes(form: Form, kernel: Kernel) -> bool:
    """:return: whether the function has every parameter that the form names."""
    wanted = {p for _, _, p in map(_parse, form.fields.split()) if not p[0].startswith("\\")}
    return {p[0] for p in wanted} <= set(kernel.btf.function(form.function) or ())


def _parse(field: str) -> tuple[str, str, tuple[str, ...]]:
    """``name=+vma->vm_mm:x64`` to name, type and ("+", ...) free path."""
    name, _, rest = field.partition("=")
    path, _, kind = rest.partition(":")
    return name, kind, tuple(path.removeprefix("+").split("->"))


def _define(spec: Spec, form: Form, kernel: Kernel) -> ProbeDefinition:
    event = form.event or form.function
    planned = [_plan(field, form, kernel) for field in form.fields.split()]
    fields = tuple(p for p in planned if isinstance(p, FieldPlan))
    dropped = tuple(p for p in planned if isinstance(p, str))
    copies = _copies(form, kernel)
    if copies > 1:
        return ProbeDefinition(spec, form, COPIES, found=(f"{copies} functions",))
    return ProbeDefinition(spec, form, OK, event, fields, dropped)


def _plan(field: str, form: Form, kernel: Kernel) -> FieldPlan | str:
    """One field on one kernel, or its name when a member is missing."""
    name, kind, path = _parse(field)
    if path[0].startswith(("\\", "$")):
        return FieldPlan(name, path[0] + (":s32" if path[0][0] == "\\" else ""), None, "s32")
    found = _place(path, form, kernel)
    if found is None:
        return name
    place, members = found
    raw = "=+" in field
    if kernel.btf_names and not raw:
        code = "->".join((path[0], *members))
        return FieldPlan(name, code + (f":{kind}" if kind else ""), place, kind or _type(name))
    return FieldPlan(name, f"{_fetch(place, kernel)}:{kind or _type(name)}", place,
                     kind or _type(name))  # fmt: skip


def _type(name: str) -> str:
    return NARROW.get(name, "x64")


def _place(
    path: tuple[str, ...], form: Form, kernel: Kernel
) -> tuple[Place, tuple[str, ...]] | None:
    """Parameter and offsets of a path, and the members taken of ``a|b`` alternatives."""
    parameters = kernel.btf.function(form.function) or ()
    at = parameters.index(path[0])
    if at >= len(REGISTERS[kernel.arch]):
        return None
    offsets: list[int] = []
    members: list[str] = []
    before = path[0]
    for step in path[1:]:
        struct = POINTS_TO[before]
        for member in step.split("|"):
            offset = kernel.btf.offset_of(struct, member)
            if offset is not None:
                break
        else:
            return None
        offsets.append(offset)
        members.append(member)
        before = member
    return Place(at, tuple(offsets)), tuple(members)


def _fetch(place: Place, kernel: Kernel) -> str:
    """:return: register and offsets, ``+16(+0(%x0))``."""
    code = "%" + REGISTERS[kernel.arch][place.parameter]
    for offset in place.offsets:
        code = f"+{offset}({code})"
    return code
