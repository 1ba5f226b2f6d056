"""Events of training, and the hooks that are told about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Hook = Callable[[dict[str, Any]], None]


def silent(event: dict[str, Any]) -> None:
    """Ignore an event: the hook that tells nobody."""
