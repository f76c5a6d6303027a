# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that appear whole or not at all, and never in place of a user's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tracer.errors import MmtraceError


def refuse_existing(path: Path, force: bool) -> None:
    """:raises MmtraceError: when the file exists and may not be replaced."""
    if path.exists() and not force:
        raise MmtraceError(f"{path} exists.", "Use --force to overwrite it.")


def write_file(path: Path, content: bytes, force: bool) -> None:
    """Write under a temporary name beside ``path`` and rename.

    :raises MmtraceError: when the file exists and not ``force``, or cannot be written
    """
    refuse_existing(path, force)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name[:64]}.", delete=False
        ) as out:
            temporary = Path(out.name)
            out.write(content)
        # A temporary file is private; a result is meant to be read by others.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise MmtraceError(f"Cannot write {path}: {error.strerror}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
