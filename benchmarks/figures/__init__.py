"""The figures, a module each, in the order of their numbers."""

from __future__ import annotations

from benchmarks.figures import connects, crowds, latency, memory, processor, start_up, throughput

FIGURES = tuple(module.FIGURE for module in (throughput, latency, connects, processor, start_up, memory, crowds))
