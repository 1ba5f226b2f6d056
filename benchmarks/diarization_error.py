"""Diarization error rate as of NIST: missed speech, false alarms and speech given to the wrong person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

#: Seconds on both sides of every boundary of the truth that do not count, and the resolution.
COLLAR, STEP = 0.25, 0.01


def masks(spans: Iterable[tuple[float, float, Any]], steps: int) -> dict[Any, np.ndarray]:
    """Person -> in which steps of 10 ms they speak, from start, end and person of spans."""
    speaking: dict[Any, np.ndarray] = {}
    for start, end, person in spans:
        mask = speaking.setdefault(person, np.zeros(steps, bool))
        mask[round(start / STEP) : round(end / STEP)] = True
    return speaking


def error_rate(
    truth: dict[Any, np.ndarray], estimate: dict[Any, np.ndarray]
) -> tuple[dict[str, float], dict[Any, Any]]:
    """Seconds of each error and of speech in all, and estimated person -> true person under the best matching.

    Overlapped speech counts for each of its speakers.
    """
    length = len(next(iter(truth.values())))
    scored = np.ones(length, bool)
    for mask in truth.values():
        for edge in np.flatnonzero(np.diff(mask.astype(int), prepend=0, append=0)):
            scored[max(0, edge - round(COLLAR / STEP)) : edge + round(COLLAR / STEP)] = False
    estimate = estimate or {None: np.zeros(length, bool)}
    real, heard = (np.array([mask[scored] for mask in side.values()]) for side in (truth, estimate))
    together = (real[:, None] & heard[None]).sum(-1)
    rows, columns = linear_sum_assignment(-together)
    right = sum((real[row] & heard[column]).astype(int) for row, column in zip(rows, columns, strict=True))
    speaking, told = real.sum(0), heard.sum(0)
    seconds = {
        "missed": STEP * np.maximum(speaking - told, 0).sum(),
        "false": STEP * np.maximum(told - speaking, 0).sum(),
        "wrong": STEP * (np.minimum(speaking, told) - right).sum(),
        "speech": STEP * speaking.sum(),
    }
    names, people = list(truth), list(estimate)
    return seconds, {people[column]: names[row] for row, column in zip(rows, columns, strict=True)}


def described(seconds: dict[str, float]) -> str:
    """The error rate in words."""
    shares = {name: seconds[name] / max(seconds["speech"], 1e-9) for name in ("missed", "false", "wrong")}
    parts = ", ".join(f"{name} {100 * share:.1f}" for name, share in shares.items())
    return f"{seconds['speech']:.0f} s of speech, error rate {100 * sum(shares.values()):.1f} % ({parts})"
