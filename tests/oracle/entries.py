# SPDX-License-Identifier: GPL-2.0-or-later
"""Page table entries as records; a none entry is simply absent from its table."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(slots=True)
class Pte:
    """A present entry: valid, or present-invalid as PROT_NONE makes it.

    :ivar write: DBM; with ``rdonly`` clear the hardware has made it dirty
    :ivar executable: UXN clear
    """

    pfn: int
    valid: bool = True
    write: bool = False
    rdonly: bool = True
    sw_dirty: bool = False
    young: bool = False
    executable: bool = False
    special: bool = False
    uffd: bool = False
    cont: bool = False

    @property
    def dirty(self) -> bool:
        return self.sw_dirty or (self.write and not self.rdonly)

    @property
    def valid_cont(self) -> bool:
        return self.valid and self.cont

    def mkdirty(self) -> Pte:
        return replace(self, sw_dirty=True, rdonly=self.rdonly and not self.write)

    def mkclean(self) -> Pte:
        return replace(self, sw_dirty=False, rdonly=True)

    def mkwrite(self) -> Pte:
        return replace(self, write=True, rdonly=self.rdonly and not self.sw_dirty)

    def wrprotect(self) -> Pte:
        return replace(self, write=False, rdonly=True, sw_dirty=self.dirty)

    def mkuffd_wp(self) -> Pte:
        return replace(self.wrprotect(), uffd=True)

    def advance(self, nr: int) -> Pte:
        return replace(self, pfn=self.pfn + nr)

    def attributes(self) -> tuple[bool, ...]:
        """What the entries of a contpte block, or of a batch, have in common."""
        return (self.valid, self.executable, self.special, self.uffd, self.cont)


SWAP = "swap"
MIGRATION_READ = "migration read"
MIGRATION_READ_EXCL = "migration read exclusive"
MIGRATION_WRITE = "migration write"
MARKER_UFFD = "uffd-wp marker"
HWPOISON = "hwpoison"
MIGRATION = frozenset({MIGRATION_READ, MIGRATION_READ_EXCL, MIGRATION_WRITE})


@dataclass(slots=True)
class NonPresent:
    """A swap, migration, marker or hwpoison entry.

    :ivar pfn: frame, or offset in the swap file
    :ivar cont: painted by a kernel that does not look whether the entry is valid
    """

    kind: str
    pfn: int = 0
    exclusive: bool = False
    uffd: bool = False
    young: bool = False
    dirty: bool = False
    cont: bool = False

    def advance(self, nr: int) -> NonPresent:
        return replace(self, pfn=self.pfn + nr)


Entry = Pte | NonPresent | None


def present(entry: Entry) -> bool:
    return isinstance(entry, Pte)


def is_swap(entry: Entry) -> bool:
    return isinstance(entry, NonPresent) and entry.kind == SWAP


def is_migration(entry: Entry) -> bool:
    return isinstance(entry, NonPresent) and entry.kind in MIGRATION
