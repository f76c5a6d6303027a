# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures to events: containers, event formats, and the probe vocabulary."""
