# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF and functions of the running kernel, or of a kernel given as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tracer.btf import Btf, load
from tracer.compression import unwrap
from tracer.errors import CaptureError, MmtraceError
from tracer.probes import Functions

RUNNING_BTF: Final = Path("/sys/kernel/btf/vmlinux")
RUNNING_KALLSYMS: Final = Path("/proc/kallsyms")
_BESIDE: Final = ("kallsyms", "kallsyms.txt", "kallsyms.zst", "kallsyms.txt.zst")


def load_kernel(
    btf: Path | None = None, vmlinux: Path | None = None, kallsyms: Path | None = None
) -> tuple[Btf, Functions | None]:
    """Read what the probe table is fitted to; the running kernel by default.

    :param btf: BTF file, plain or compressed
    :param vmlinux: kernel image with a .BTF section; its .symtab names the functions
    :param kallsyms: text of /proc/kallsyms of the same kernel
    :return: BTF, and the functions out of line, None when nothing tells them
    :raises MmtraceError: when a file cannot be read or the running kernel has no BTF
    """
    named = btf or vmlinux
    if named is None and not RUNNING_BTF.exists():
        raise MmtraceError(
            "The running kernel has no BTF.",
            "Name a file of that kernel with --kernel-btf or --vmlinux, or boot a kernel with "
            "CONFIG_DEBUG_INFO_BTF, as distributions build it.",
        )
    path = named or RUNNING_BTF
    data = _read(path)
    found = load(data, str(path))
    if kallsyms is None and named is None:
        kallsyms = RUNNING_KALLSYMS
    if kallsyms is None and btf is not None:
        kallsyms = next((p for n in _BESIDE if (p := btf.with_name(n)).is_file()), None)
    if kallsyms is not None:
        return found, _functions(kallsyms)
    return found, _symtab(unwrap(data, str(path)).data) if vmlinux else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise MmtraceError(f"Cannot read {path}: {e.strerror or e}.") from None


def _functions(path: Path) -> Functions:
    found = Functions.from_kallsyms(unwrap(_read(path), str(path)).data)
    if not found.copies:
        raise CaptureError(
            f"{path} names no function.", "Read /proc/kallsyms of that kernel as root."
        )
    return found


def _symtab(data: bytes) -> Functions | None:
    """Functions of an image that was not stripped; every copy of a static one counts."""
    from io import BytesIO

    from elftools.elf.elffile import ELFFile  # 90 ms: only for ELF input

    try:
        table: Any = ELFFile(BytesIO(data)).get_section_by_name(".symtab")
        names = [] if table is None else [
            s.name for s in table.iter_symbols() if s["st_info"]["type"] == "STT_FUNC"
        ]  # fmt: skip
    except Exception as e:  # pyelftools raises whatever it trips over in a damaged file
        raise CaptureError(f"The image is a damaged ELF file ({type(e).__name__}).") from None
    return Functions.from_names(names) if names else None
