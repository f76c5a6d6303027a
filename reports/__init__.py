# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts to text, JSON and HTML."""
