# SPDX-License-Identifier: GPL-2.0-or-later
"""The captured kernel's own numbers for page flags, VMA flags and the like.

Flag numbers move between kernels and configurations (7.3 put PG_dropbehind
before PG_mlocked), so they come from that kernel's BTF, or from the flag tables
in its event formats, and a name that neither holds is unknown: None, never a guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tracer.btf import Btf
from tracer.errors import CaptureError
from tracer.eventformat import EventFormat

SCHEMA: Final = "mmtrace.enums/1"

# Whole enums of the BTF that the store keeps. PG_* are bit numbers, the others masks or values.
ENUMS: Final = ("pageflags", "pagetype", "fault_flag", "vm_fault_reason", "ttu_flags")
# sizeof() and offsetof() that decode captured pointers and words.
SIZES: Final = ("page", "folio", "vm_area_struct", "mm_struct")
OFFSETS: Final = (
    "folio.flags",
    "folio._flags_1",
    "folio.mapping",
    "folio.index",
    "vm_area_struct.vm_start",
    "vm_area_struct.vm_end",
    "vm_area_struct.vm_mm",
    "vm_area_struct.vm_flags",
    "vm_area_struct.vm_pgoff",
    "mm_struct.tlb_flush_batched",
)
# include/linux/mm.h has had these four since 2.6; used only when the kernel's own are not at hand.
DOCUMENTED_VM_FLAGS: Final = {"VM_READ": 0x1, "VM_WRITE": 0x2, "VM_EXEC": 0x4, "VM_SHARED": 0x8}

_VMA_BIT = re.compile(r"VMA_(\w+?)_BIT")
# Names of __def_vmaflag_names (include/trace/events/mmflags.h) that are not VM_<upper case>.
_PRINTED: Final = {"seqread": "SEQ_READ", "randread": "RAND_READ"}
# Bounded repeats: a crafted print fmt must not make the search quadratic.
_FLAGS_CALL = re.compile(
    r"__print_flags\([^,]{0,200}?vm_?flags[^,]{0,200},\s{0,9}\"[^\"]{0,9}\"\s{0,9},"
)
_FLAG_ROW = re.compile(r"[\s,]{0,9}\{([^{},]{1,128}),\s{0,9}\"(\w{1,64})\"\s{0,9}\}")
_SHIFT = re.compile(r"(0[xX][0-9a-fA-F]{1,16}|\d{1,19})(?:<<(\d{1,2}))?")


@dataclass
class KernelEnums:
    """Named numbers of one kernel.

    :ivar enums: enum name to enumerators, as the kernel declares them
    :ivar vm_flags: VM_* to mask
    :ivar sizes: structure name to sizeof in bytes
    :ivar offsets: ``struct.member`` to offsetof in bytes
    :ivar sources: group (``pageflags``, ``vm_flags``, ...) to where it is from:
        ``btf``, ``print_fmt`` or ``documented``
    :ivar release: kernel release it belongs to, None when unknown
    :ivar origin: the file it was read from
    """

    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    vm_flags: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    release: str | None = None
    origin: str | None = None

    def page_flag(self, name: str) -> int | None:
        """:return: mask of a page flag such as ``PG_head`` in ``folio->flags``, or None."""
        bit = self.enums.get("pageflags", {}).get(name)
        return None if bit is None or not 0 <= bit < 64 else 1 << bit

    def vm_flag(self, name: str) -> int | None:
        """:return: mask of a VMA flag such as ``VM_SHARED``, or None."""
        return self.vm_flags.get(name)

    def value(self, enum: str, name: str) -> int | None:
        """:return: an enumerator, for example ``("ttu_flags", "TTU_SYNC")``, or None."""
        return self.enums.get(enum, {}).get(name)

    def page_flag_names(self, word: int) -> list[str]:
        """Names of the set page flags, lowest bit first; aliases by their first name.

        Bits above __NR_PAGEFLAGS hold the node, zone and section and are left out.
        """
        flags = self.enums.get("pageflags", {})
        bits = {n: b for n, b in flags.items() if not n.startswith("__")}
        return _names(word & _below(flags.get("__NR_PAGEFLAGS")), bits.items(), shift=True)

    def vm_flag_names(self, word: int) -> list[str]:
        """Names of the set VMA flags, lowest bit first; unnamed bits as hexadecimal."""
        return _names(word, self.vm_flags.items(), shift=False)

    def to_json(self) -> dict[str, Any]:
        """:return: what :meth:`from_json` reads back."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any, name: str = "kernel.enums.json") -> KernelEnums:
        """Read :meth:`to_json`.

        :param data: parsed JSON
        :param name: the file's name, for messages
        :raises CaptureError: when it is something else
        """
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise CaptureError(f"{name} is not a table of kernel numbers (schema {SCHEMA}).")
        new = cls(**{k: data[k] for k in cls.__dataclass_fields__ if k in data})
        tables = [new.vm_flags, new.sizes, new.offsets, *_tables(new.enums)]
        if not all(isinstance(t, dict) for t in [*tables, new.sources]) or not all(
            type(v) is int for t in tables for v in t.values()
        ):
            raise CaptureError(f"{name} holds something else than names and numbers.")
        return new

    def dumps(self) -> str:
        """:return: :meth:`to_json` as text, the content of a ``kernel.enums.json``."""
        return json.dumps(self.to_json(), indent=1) + "\n"


def from_btf(btf: Btf, origin: str | None = None, release: str | None = None) -> KernelEnums:
    """Collect the numbers that mmtrace uses from a kernel's BTF.

    :param btf: parsed BTF
    :param origin: file it is from
    :param release: kernel release, when known
    """
    new = KernelEnums(origin=origin, release=release)
    for enum in btf.enums():
        if enum.name in ENUMS and enum.name not in new.enums:
            new.enums[enum.name] = enum.values
            new.sources[enum.name] = "btf"
        # Linux 7: VM_* follow from an anonymous enum of VMA_*_BIT; before, they are macros.
        elif "VMA_READ_BIT" in enum.values:
            new.vm_flags = _vm_flags(enum.values)
            new.sources["vm_flags"] = "btf"
    new.sizes = {s: n for s in SIZES if (n := btf.size(s)) is not None}
    for path in OFFSETS:
        at = btf.offset_of(*path.split(".", 1))
        if at is not None:
            new.offsets[path] = at
    return new


def complete(enums: KernelEnums, formats: Iterable[EventFormat]) -> KernelEnums:
    """Fill in VMA flags that BTF did not give, from event formats, else as documented.

    :param enums: changed in place
    :param formats: the capture's event formats
    :return: the same object
    """
    if not enums.vm_flags:
        for fmt in formats:
            enums.vm_flags.update(vm_flags_of(fmt.print_fmt))
        if enums.vm_flags:
            enums.sources["vm_flags"] = "print_fmt"
    if not enums.vm_flags:
        enums.vm_flags = dict(DOCUMENTED_VM_FLAGS)
        enums.sources["vm_flags"] = "documented"
    return enums


def vm_flags_of(print_fmt: str) -> dict[str, int]:
    """VMA flags of a ``__print_flags(REC->vm_flags, ...)`` table, as show_vma_flags() prints.

    :return: VM_* to mask; rows whose value is not a number or a shift are left out
    """
    out: dict[str, int] = {}
    for call in _FLAGS_CALL.finditer(print_fmt):
        at = call.end()
        # Only rows that follow one another belong to this call.
        while row := _FLAG_ROW.match(print_fmt, at):
            mask = _number(row[1])
            if mask:
                out.setdefault("VM_" + _PRINTED.get(row[2], row[2].upper()), mask)
            at = row.end()
    return out


def _number(text: str) -> int | None:
    """A C constant, or one shifted left: ``((1UL) << (3))``."""
    bare = re.sub(r"[\s()]|(?<=[0-9a-fA-F])[uUlL]+\b", "", text)
    m = _SHIFT.fullmatch(bare)
    return int(m[1], 0) << int(m[2] or 0) if m and not re.match(r"0\d", m[1]) else None


def _vm_flags(values: dict[str, int]) -> dict[str, int]:
    """VMA_READ_BIT = 0 and so on to {"VM_READ": 1}."""
    out = {}
    for name, bit in values.items():
        m = _VMA_BIT.fullmatch(name)
        if m and 0 <= bit < 64:
            out[f"VM_{m[1]}"] = 1 << bit
    return out


def _names(word: int, flags: Iterable[tuple[str, int]], shift: bool) -> list[str]:
    first: dict[int, str] = {}
    for name, value in flags:
        first.setdefault(1 << value if shift and 0 <= value < 64 else value, name)
    return [first.get(bit, hex(bit)) for bit in _bits(word)]


def _bits(word: int) -> Iterator[int]:
    while word:
        yield word & -word
        word &= word - 1


def _below(bit: int | None) -> int:
    return (1 << 64) - 1 if bit is None or not 0 < bit < 64 else (1 << bit) - 1


def _tables(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else [value]
