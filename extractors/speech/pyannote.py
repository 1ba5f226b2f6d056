"""Who speaks when, by pyannote.audio's pipeline (Bredin, 2023), whose weights need an account of the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Backend, Interval, Locate, Samples, SpeakerTurns, Turn
from emopipe.extractors.speech.diarize import STEP


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> Pyannote:
    """The diarizer that a table `people` of a configuration describes."""
    return Pyannote(settings["pyannote"], device, offline=settings["offline"])


BACKEND: Final = Backend(
    "pyannote",
    create,
    weights=lambda settings: [settings["pyannote"]] if Path(settings["pyannote"]).is_dir() else [],
    libraries=("pyannote.audio", "torch"),
    settings=("pyannote", "offline"),
    gpu=False,
    install="Run `pip install pyannote.audio`, or use --diarizer campplus",
    obtain="Accept its terms on the hub and log in there, or name a folder that holds it in [people] pyannote; "
    "or use --diarizer campplus",
)


class Pyannote:
    """Speaker diarization that also hears two people at once.

    Args:
        where: a folder with the pipeline, or its hub id.
        device: "cpu" or "cuda".
        offline: use only what the hub's cache holds.

    Raises:
        ImportError: pyannote.audio is not installed.
        FileNotFoundError: the pipeline is not there, or may not be fetched.
    """

    def __init__(self, where: str, device: str = "cpu", *, offline: bool = False) -> None:
        import torch
        from pyannote.audio import Pipeline

        if offline and not Path(where).exists():
            raise FileNotFoundError(f"pyannote's pipeline {where} is not a local folder, and network use is forbidden")
        try:
            pipeline = Pipeline.from_pretrained(where)
        except (OSError, ValueError) as error:  # the hub's errors are OSError or ValueError
            raise FileNotFoundError(f"pyannote's pipeline {where} cannot be had: {error}") from error
        if pipeline is None:  # what pyannote 3 returns for a gated pipeline
            raise FileNotFoundError(f"pyannote's pipeline {where} is gated, and its terms were not accepted")
        pipeline.to(torch.device(device))
        self._pipeline: Any = pipeline

    def turns(
        self,
        samples: Samples,
        speech: Sequence[Interval],
        *,
        people: int = 0,
        least: int = 1,
        most: int = 4,
        several_seen: bool = False,
    ) -> SpeakerTurns:
        """Turns within `speech`; arguments as for :class:`emopipe.extractors.contracts.Diarizer`."""
        import torch

        sound = torch.from_numpy(np.ascontiguousarray(samples[0 : len(samples)], np.float32))[None]
        counts = {"num_speakers": people} if people else {"min_speakers": min(least, most), "max_speakers": most}
        found = self._pipeline({"waveform": sound, "sample_rate": SAMPLE_RATE}, **counts)
        annotation = getattr(found, "speaker_diarization", found)  # pyannote 4 wraps what 3 returned
        heard = [(turn.start, turn.end, str(name)) for turn, _, name in annotation.itertracks(yield_label=True)]
        return SpeakerTurns(exclusive_turns(heard, speech))


def exclusive_turns(heard: Sequence[tuple[float, float, str]], speech: Sequence[Interval]) -> list[Turn]:
    """One speaker for every moment of speech, flagged where more speak; who spoke already goes on speaking.

    Args:
        heard: start, end and name of stretches of speech, which may overlap.
        speech: spans of speech; what lies between stretches goes to the nearest one.
    """
    if not heard:
        return [Turn(start, end, 0) for start, end in speech]
    turns: list[Turn] = []
    numbers: dict[str, int] = {}
    for low, high in speech:
        inner = {edge for start, end, _ in heard for edge in (start, end) if low < edge < high}
        edges = [low, *sorted(inner), high]
        for start, end in pairwise(edges):
            names = _speaking(heard, start, end)
            going_on = next((one for one in names if turns and numbers.get(one) == turns[-1].person), names[0])
            person = numbers.setdefault(going_on, len(numbers))
            turns.append(Turn(start, end, person, len(names) > 1))
    return _tidied(turns)


def _speaking(heard: Sequence[tuple[float, float, str]], start: float, end: float) -> list[str]:
    """Who speaks between two edges, the nearest one when nobody does."""
    middle = (start + end) / 2
    names = list(dict.fromkeys(name for low, high, name in heard if low <= middle < high))
    return names or [min(heard, key=lambda one: max(one[0] - middle, middle - one[1]))[2]]


def _tidied(turns: Sequence[Turn]) -> list[Turn]:
    """Neighbours alike in all but time as one; slivers shorter than a step go to the turn before."""
    tidy: list[Turn] = []
    for turn in turns:
        last = tidy[-1] if tidy else None
        touching = last is not None and turn.start - last.end < 1e-6
        if (
            last is not None
            and touching
            and ((last.person, last.overlapped) == (turn.person, turn.overlapped) or turn.end - turn.start < STEP)
        ):
            tidy[-1] = Turn(last.start, turn.end, last.person, last.overlapped)
        else:
            tidy.append(turn)
    return tidy
