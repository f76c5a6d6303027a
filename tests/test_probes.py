# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe table fitted to kernels, and its agreement with vocabulary and fixtures."""

from __future__ import annotations

import re
import subprocess
from functools import cache

import pytest

from reports.probestext import emit, probes_text
from tests.conftest import FIXTURES, KERNELS, ROOT
from tests.test_btf import FUNC, INT, PROTO, Maker
from tracer import probes
from tracer.btf import Btf
from tracer.errors import CaptureError
from tracer.kernelfiles import load_kernel
from tracer.normalize import missing_fields
from tracer.probes import Functions, ProbeDefinition, resolve
from tracer.recipes import LINES
from tracer.text.reader import read
from tracer.vocabulary import BY_NAME

KERNEL_FILES = ROOT.parent / "shared" / "captures"
needs_kernels = pytest.mark.skipif(
    not (KERNEL_FILES / "linux-7.3" / "vmlinux.btf.zst").exists(),
    reason="BTF of the measured kernels is not beside the repository",
)


@cache
def kernel(name: str) -> tuple[Btf, Functions | None]:
    return load_kernel(KERNEL_FILES / name / "vmlinux.btf.zst")


def recorded(name: str) -> set[str]:
    return set((FIXTURES / name / "kprobe_events.txt").read_text().splitlines())


def by_event(found: list[ProbeDefinition]) -> dict[str, ProbeDefinition]:
    return {d.event or d.spec.names[-1]: d for d in found}


# A 6.1-like kernel for x86: no folio rmap functions, order in a member of its own.
PROTOTYPES = {
    "page_add_new_anon_rmap": ("page", "vma", "address"),
    "page_remove_rmap": ("page", "vma", "compound"),
    "do_set_pte": ("vmf", "page", "addr"),
    "unmap_page_range": ("tlb", "vma", "addr", "end", "details"),
    "move_page_tables": ("vma", "old_addr", "new_vma", "new_addr", "len", "need_rmap_locks"),
    "try_to_unmap_one": ("folio", "vma", "address", "arg"),
    "change_protection": ("tlb", "vma", "begin", "finish"),
    "exit_mmap": ("mm",),
}


def old_btf(mark: str = "orig_ax", prototypes: dict[str, tuple[str, ...]] = PROTOTYPES) -> Btf:
    m = Maker()
    u64 = m.add(INT, "unsigned long", 8, (64,))
    members = {
        "pt_regs": (mark,),
        "vm_area_struct": ("vm_start", "vm_end", "vm_mm", "vm_flags", "vm_pgoff"),
        "vm_fault": ("vma", "address", "flags"),
        "folio": ("flags", "index", "_flags_1", "_folio_order"),
    }
    for name, fields in members.items():
        rows = [(f, u64, 64 * i) for i, f in enumerate(fields)]
        m.struct(name, 8 * len(rows), rows)
    for name, parameters in prototypes.items():
        words = tuple(w for p in parameters for w in (m.name(p), u64))
        m.add(FUNC, name, m.add(PROTO, "", 0, words, len(parameters)))
    return Btf(m.bytes())


@needs_kernels
@pytest.mark.parametrize("name", KERNELS)
def test_lines_are_those_the_booted_kernel_took(name: str) -> None:
    found = resolve(*kernel(name))
    assert {d.line() for d in found if d.status == probes.OK} == recorded(name)
    assert not [d for d in found if d.dropped]
    assert not [d for d in found if d.status not in (probes.OK, probes.ABSENT)]


def test_vocabulary_and_table_have_the_same_functions() -> None:
    table = {name for spec in probes.SPECS for name in spec.names}
    functions = {form.function for spec in probes.SPECS for form in spec.forms}
    for name in BY_NAME:
        assert name in table | functions, f"{name} has no row in tracer/probes.py"
    for name in table:
        assert name in BY_NAME, f"{name} has no entry in tracer/vocabulary.py"


def test_every_form_has_the_fields_that_ingest_requires() -> None:
    for spec in probes.SPECS:
        for form in spec.forms:
            probe = BY_NAME[form.event or form.function]
            fields = {field.partition("=")[0] for field in form.fields.split()}
            assert missing_fields(probe, fields) == [], form


@needs_kernels
def test_recipes_are_lines_of_the_table() -> None:
    lines = {d.line() for name in KERNELS for d in resolve(*kernel(name))}
    assert {line for rows in LINES.values() for _, line in rows} <= lines


@needs_kernels
def test_without_btf_names_offsets_are_those_of_the_kernel() -> None:
    btf, functions = kernel("linux-7.3")
    assert functions is not None
    plain = probes.Kernel(btf, functions, "arm64", False)
    found = [probes._resolve(spec, plain) for spec in probes.SPECS]
    lines = {d.event: d.line().partition(" ")[2] for d in found}
    # Offsets as measured on 7.2 and 7.3: vm_mm 16, vm_pgoff 80, vmf->vma 0, vmf->address 24.
    assert "mm=+16(%x1):x64" in lines["try_to_unmap_one"]
    assert "vm_pgoff=+80(%x1):x64" in lines["try_to_unmap_one"]
    assert "mm=+16(+0(%x0)):x64" in lines["do_swap_page"]
    assert "address=+24(%x0):x64" in lines["do_swap_page"]
    assert "nr_pages=%x2:s32" in lines["folio_remove_rmap_ptes"]
    assert "new_addr=+32(%x0):x64 old_end=+24(%x0):x64" in lines["move_page_tables"]


def test_older_kernel_is_served_by_its_own_functions() -> None:
    functions = Functions.from_names(list(PROTOTYPES))
    found = by_event(resolve(old_btf(), functions))
    anon = found["folio_add_new_anon_rmap"]
    assert anon.line() == (
        "p:mmtrace/folio_add_new_anon_rmap page_add_new_anon_rmap folio=%di:x64 vma=%si:x64 "
        "address=%dx:x64 mm=+16(%si):x64 vm_start=+0(%si):x64 vm_end=+8(%si):x64 "
        "vm_flags=+24(%si):x64 vm_pgoff=+32(%si):x64 index=+8(%di):x64 page_flags=+0(%di):x64 "
        "order_byte=+24(%di):u8"
    )
    assert anon.form.note == "without rmap flags"
    assert "nr=\\1:s32" in found["set_pte_range"].line()
    assert "old_addr=%si:x64 new_addr=%cx:x64 len=%r8:x64" in found["move_page_tables"].line()
    assert found["unmap_page_range"].line("mine").startswith("p:mine/unmap_page_range ")
    assert found["contpte_convert"].status == probes.OTHER_ARCH


def test_what_cannot_be_recorded_has_its_reason() -> None:
    names = [*PROTOTYPES, "try_to_migrate_one.isra.0", "try_to_migrate_one.cold", "exit_mmap"]
    names.remove("do_set_pte")
    functions = Functions.from_names(names)
    found = resolve(old_btf(), functions)
    status = {d.spec.names[-1]: (d.status, d.found) for d in found}
    assert status["try_to_migrate_one"] == (probes.CLONE, ("try_to_migrate_one.isra.0",))
    assert status["exit_mmap"] == (probes.COPIES, ("2 functions",))
    assert status["set_pte_range"][0] == probes.ABSENT
    assert status["change_protection"] == (probes.CHANGED, ("tlb, vma, begin, finish",))
    text = " ".join(probes_text(found, [], functions, False).split())
    assert "only as try_to_migrate_one.isra.0, whose arguments differ" in text
    assert "the replay leaves these operations out" in text
    assert "by register and offset" in text


def test_member_that_is_missing_drops_its_field() -> None:
    functions = Functions.from_names(["folio_referenced_one"])
    btf = old_btf(prototypes={"folio_referenced_one": ("folio", "vma", "address", "arg")})
    assert by_event(resolve(btf, functions))["folio_referenced_one"].dropped == ()
    btf = old_btf(prototypes={"do_wp_page": ("vmf",)})
    found = by_event(resolve(btf))["do_wp_page"]
    assert found.dropped == ("real_address",)
    assert "real_address" in probes_text([found], [], None, False)


def test_functions_of_kallsyms() -> None:
    text = b"ff00 T _text\nff40 t tlb_flush\nff80 t tlb_flush\nff90 t other\t[module]\nff D x\n"
    assert Functions.from_kallsyms(text).copies == {"_text": 1, "tlb_flush": 2}


def test_other_architectures_are_refused() -> None:
    with pytest.raises(CaptureError, match="neither"):
        resolve(old_btf("epc"))


@pytest.mark.parametrize("form", ["perf", "trace-cmd"])
def test_scripts_are_shell_and_remove_what_they_set(form: str) -> None:
    found = resolve(old_btf(), Functions.from_names(list(PROTOTYPES)))
    script = emit(found, form)
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    for d in found:
        if d.status == probes.OK:
            assert d.line() in script
            assert f"echo '-:{d.spec.group}/{d.event}' >>" in script


def test_bpftrace_prints_what_ingest_reads() -> None:
    found = resolve(old_btf(), Functions.from_names(list(PROTOTYPES)))
    script = emit(found, "bpftrace")
    assert "*(uint64 *)(*(uint64 *)(arg0 + 0) + 16)" in script  # vmf->vma->vm_mm
    assert "kretprobe:try_to_unmap_one" in script
    head = "%16s-%-7d [%03d] ..... %lu.%06lu"
    lines = [
        body.replace(head, "            comm-7       [001] .....    12.345678").replace("%lx", "10")
        for body in re.findall(r'printf\("(.*)\\n",', script)
    ]
    capture = read(("\n".join(lines) + "\n").encode(), "x.txt")
    names = {key.partition(":")[2] for key in capture.events}
    assert names == {d.event for d in found if d.status == probes.OK}
    frame = capture.events["kprobes:set_pte_range"]
    assert frame["nr"].to_list() == [16]
    assert frame["tid"].to_list() == [7]


@needs_kernels
def test_text_of_a_measured_kernel() -> None:
    btf, functions = kernel("linux-7.3")
    text = probes_text(
        resolve(btf, functions), resolve(btf, functions, probes.MORE), functions, True
    )
    assert text.startswith("34 of 34 probes can be recorded, arguments by BTF name.")
    assert "zap_pte_range" in text
    assert "--more records pte_seen" in text
