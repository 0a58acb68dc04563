"""What the benchmarks share: measuring things in turn, so that other load on the machine meets all alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time every work once a round, after one round that is thrown away.

    Returns:
        Seconds of each round, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_number in range(rounds + 1):
        for name, work in works.items():
            taken = seconds(work)
            if round_number:
                times[name].append(taken)
    return times


def ratio_line(name: str, over: list[float], under: list[float]) -> str:
    """One line: the ratio of the medians, and the smallest and largest ratio of a round."""
    by_round = sorted(a / b for a, b in zip(over, under, strict=True))
    return (
        f"{name:<34} {median(over) / median(under):6.3f}   (rounds: {by_round[0]:.3f} to {by_round[-1]:.3f})"
    )
