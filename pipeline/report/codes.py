"""Explain the codes of errors and reasons on the pages that show them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from emopipe.errors import REASONS, error_types


@dataclass(frozen=True)
class Code:
    """A code of an error or a reason.

    Attributes:
        code: as reasons carry it.
        meaning: what happened, one sentence.
        advice: what to do next, one sentence without a full stop.
    """

    code: str
    meaning: str
    advice: str


@cache
def known_codes() -> dict[str, Code]:
    """Every code with its meaning: errors first, then reasons for incomplete results."""
    errors = {
        kind.code: Code(kind.code, " ".join((inspect.getdoc(kind) or "").split()), kind.advice)
        for kind in error_types()
    }
    reasons = {
        code: Code(code, f"{kind.meaning[:1].upper()}{kind.meaning[1:]}.", kind.advice)
        for code, kind in REASONS.items()
    }
    return errors | reasons


def explained(codes: Iterable[str]) -> list[Code]:
    """The meanings of codes that a page shows, each once; codes of other versions are left out."""
    shown = set(codes)
    return [one for code, one in known_codes().items() if code in shown]


def anchor(code: str) -> str:
    """Where a page explains a code: `emo-104`, `no_face`."""
    return code.lower()


def parted(text: str, code: str) -> tuple[str, str, str]:
    """The text of a reason before its code, the code, and the text after it; no code where there is no such one."""
    if code not in known_codes() or code not in text:
        return text, "", ""
    return text.partition(code) if code.startswith("EMO-") else text.rpartition(code)
