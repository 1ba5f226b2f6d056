"""Times and file names as text, for the terminal and for pages."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Minutes and seconds, "1:02.5"."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def span(seconds: float) -> str:
    """A length of time, "1:02:03"."""
    total = round(seconds)
    return f"{total // 3600}:{total // 60 % 60:02}:{total % 60:02}"


def printable(text: str) -> str:
    """Text with everything escaped that would break a line or upset a terminal: file names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
