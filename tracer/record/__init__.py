# SPDX-License-Identifier: GPL-2.0-or-later
"""Recording: sets the probes, records a command, and always removes the probes again."""

from typing import Final

# Beside raw pages: what the recorder knows and the pages do not say.
RECORDING: Final = "recording.json"
