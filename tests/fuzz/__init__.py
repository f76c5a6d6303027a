# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutation fuzzing of every reader: mutate, read, judge."""
