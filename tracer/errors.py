# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors a user can act on: one sentence, a remedy, and an exit code."""

from __future__ import annotations

# Exit codes, documented in docs/ and --help.
EXIT_OK = 0
EXIT_INPUT = 1
EXIT_USAGE = 2
EXIT_GATE = 3
EXIT_QUALITY = 4
EXIT_INTERRUPTED = 130


class MmtraceError(Exception):
    """Bad input or an impossible request.

    The front door prints ``mmtrace: <message>`` and, if given, the hint, on
    stderr, without a traceback.

    :param message: one sentence saying what is wrong
    :param hint: what to do about it
    :param exit_code: one of the ``EXIT_*`` codes
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = EXIT_INPUT) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class CaptureError(MmtraceError):
    """A capture cannot be read at all; a partly readable one gets diagnostics instead."""


class UsageError(MmtraceError):
    """A request names something that does not exist."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, EXIT_USAGE)
