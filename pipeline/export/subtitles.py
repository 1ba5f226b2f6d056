"""Export to subtitles: SubRip (SRT) and WebVTT, who speaks and which emotion is displayed with the words."""

from __future__ import annotations

import re
from datetime import timedelta
from html import escape
from pathlib import Path

from emopipe.pipeline.export.recording import Recording
from emopipe.pipeline.records import UtteranceResult


def write_srt(recording: Recording, path: Path) -> None:
    """SubRip: "S1: words", and the emotion with its probability in brackets below."""
    import srt

    cues = [
        srt.Subtitle(index, *map(_time, _milliseconds(utterance)), _subtitle(utterance))
        for index, utterance in enumerate(recording.result.utterances, start=1)
    ]
    path.write_text(srt.compose(cues, reindex=False), "utf-8", "backslashreplace", newline="\n")


def write_vtt(recording: Recording, path: Path) -> None:
    """WebVTT: words in voice tags that name the speaker, with the emotion as class; `uncertain` where it abstained."""
    from webvtt import Caption, WebVTT

    page = WebVTT()
    for utterance in recording.result.utterances:
        start, end = map(_clock, _milliseconds(utterance))
        page.captions.append(Caption(start, end, _cue(utterance)))
    path.write_text(page.content + "\n", "utf-8", "backslashreplace", newline="\n")


def _milliseconds(utterance: UtteranceResult) -> tuple[int, int]:
    """Start and end; a cue lasts a millisecond at least."""
    start = round(utterance.start * 1000)
    return start, max(round(utterance.end * 1000), start + 1)


def _time(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"


def one_line(text: str) -> str:
    """Text without breaks of lines and other control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def answer(utterance: UtteranceResult) -> str:
    """What is predicted, in words: "happiness 82%", "uncertain: happiness 41%", "0.73"; "" without evidence."""
    if utterance.value is not None:
        return f"{utterance.value:.2f}"
    if utterance.label is None:
        return ""
    share = "" if utterance.confidence is None else f" {utterance.confidence:.0%}"
    return f"{'uncertain: ' if utterance.abstained else ''}{utterance.label}{share}"


def _subtitle(utterance: UtteranceResult) -> str:
    speaker = f"{one_line(utterance.speaker)}: " if utterance.speaker else ""
    predicted = answer(utterance)
    lines = [f"{speaker}{one_line(utterance.text)}".strip(), f"[{predicted}]" if predicted else ""]
    return "\n".join(line for line in lines if line) or "-"


def _cue(utterance: UtteranceResult) -> str:
    classes = [re.sub(r"\W+", "-", utterance.label)] if utterance.label else []
    classes += ["uncertain"] if utterance.abstained else []
    text = escape(one_line(utterance.text), quote=False) or "-"
    tag = ".".join(["v" if utterance.speaker else "c", *classes])
    speaker = f" {escape(one_line(utterance.speaker), quote=False)}" if utterance.speaker else ""
    return f"<{tag}{speaker}>{text}</{tag[0]}>"
