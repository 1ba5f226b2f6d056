"""What the script of a clip's page works with: the utterances, the people, and the curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

#: Classes that speak for a pleasant state, and for an unpleasant one.
POSITIVE: Final = frozenset({"happiness", "happy", "joy", "excited", "excitement", "positive", "amusement", "love"})
NEGATIVE: Final = frozenset(
    {"anger", "angry", "contempt", "disgust", "fear", "frustrated", "frustration", "negative", "sad", "sadness"}
)
#: What the data begin with on a page.
DATA: Final = '<script type="application/json" id="data">'
#: Of an utterance, as it is.
_PLAIN: Final = ("start", "end", "speaker", "text", "label", "value", "confidence", "abstained", "absent")


def page_data(
    facts: Mapping[str, Any],
    labels: Sequence[str],
    colours: Mapping[str, str],
    duration: float,
    *,
    name: str | None = None,
    curves: Sequence[Mapping[str, Any]] = (),
    link: str = "",
    server: str | None = None,
) -> dict[str, Any]:
    """A recording as its page's script reads it.

    Args:
        facts: the recording's document.
        labels: the classes, in the order in which their probabilities are given.
        colours: of the classes.
        duration: in seconds.
        name: of the result file, without suffix; None: the recording's.
        curves: of :func:`~emopipe.pipeline.report.curves.curves`.
        link: address from which the page plays the recording.
        server: address at which a server saves corrections; None: there is none.
    """
    media = PurePosixPath(facts["media"])
    speakers = [row["speaker"] for row in facts["utterances"] if row["speaker"]]
    people = [person["name"] for person in facts.get("people", ())]
    return {
        "name": name or media.stem,
        "media": media.name,
        "probe": facts.get("keys", {}).get("probe"),
        "duration": duration,
        "labels": list(labels),
        "colours": dict(colours),
        "signs": [(label in POSITIVE) - (label in NEGATIVE) for label in labels],
        "people": list(dict.fromkeys([*people, *speakers])),
        "rows": [_row(row, labels) for row in facts["utterances"]],
        "curves": list(curves),
        "link": link,
        "server": server,
    }


def _row(row: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """An utterance; probabilities as lists in the order of the labels."""
    return {
        **{key: row[key] for key in _PLAIN},
        "probabilities": _listed(row["probabilities"], labels),
        "weights": _finite(row["weights"]),
        "quality": _finite(row["quality"]),
        "unimodal": {modality: _listed(shares, labels) for modality, shares in row["unimodal"].items()},
        "without": {modality: _listed(shares, labels) for modality, shares in row.get("without", {}).items()},
    }


def _listed(shares: Mapping[str, float], labels: Sequence[str]) -> list[float]:
    """Probabilities by label; a value alone where a checkpoint predicts numbers."""
    if "value" in shares and "value" not in labels:
        return [shares["value"]]
    return [round(shares.get(label, 0.0), 3) for label in labels] if shares else []


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(number, 3) for name, number in numbers.items() if math.isfinite(number)}


def data_on(page: Path) -> dict[str, Any]:
    """What the script of a page works with; empty where there is no such page."""
    try:
        text = page.read_text("utf-8")
        data = json.loads(text.partition(DATA)[2].partition("</script>")[0])
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def curves_on(page: Path) -> list[Mapping[str, Any]]:
    """The curves that a page has already; none where there is no such page."""
    return list(data_on(page).get("curves", ()))
