# SPDX-License-Identifier: GPL-2.0-or-later
"""The cost model: counters of a replay, priced on a machine.

Counts are exact, time is a model: every cost has a kind, a source and an
interval, and so has every result. See docs/cost-model.md.
"""

from __future__ import annotations

from typing import Final

# Part of every frozen prediction; change it with the tables, the events or the formulas.
MODEL_VERSION: Final = "1"
