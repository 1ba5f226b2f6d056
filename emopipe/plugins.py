"""What other packages declare under groups of entry points, also where the metadata of some package are damaged."""

from __future__ import annotations

from importlib.metadata import Distribution, EntryPoint, distributions


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group, by name; packages whose metadata cannot be read are left out.

    Of two installations of one package, the one that comes first on Python's path counts.
    """
    found: dict[tuple[str, str, str], EntryPoint] = {}
    for distribution in distributions():
        for point in _declared(distribution) or ():
            if point.group == group and point.name:
                found.setdefault((origin(point).partition(" ")[0], point.name, point.value), point)
    return sorted(found.values(), key=lambda point: point.name)


def origin(point: EntryPoint) -> str:
    """Name and version of the distribution that brings an entry point; "unknown" where its metadata do not say."""
    try:
        return f"{point.dist.name} {point.dist.version}" if point.dist and point.dist.name else "unknown"
    except Exception:  # damaged metadata
        return "unknown"


def unreadable() -> list[str]:
    """Where packages lie whose entry points cannot be read."""
    return [str(getattr(one, "_path", one)) for one in distributions() if _declared(one) is None]


def _declared(distribution: Distribution) -> list[EntryPoint] | None:
    """All entry points of a distribution; None where they cannot be read: importlib raises whatever it stumbles on."""
    try:
        return list(distribution.entry_points)
    except Exception:
        return None
