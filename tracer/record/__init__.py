# SPDX-License-Identifier: GPL-2.0-or-later
"""Recording: sets the probes, records a command, and always removes the probes again."""
