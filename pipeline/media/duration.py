"""How long a recording is, without decoding it."""

from __future__ import annotations

from pathlib import Path

from emopipe.pipeline.media.finding import open_av
from emopipe.pipeline.media.streams import promised_duration


def duration(path: Path, doubted: float) -> float | None:
    """Seconds of a recording: what its header says, or what its packets reach where that is more; None when unknown.

    Args:
        path: the recording.
        doubted: packets are read only when the header says less than this many seconds.
    """
    try:
        with open_av(path) as container:
            promised = promised_duration(container) or None
            if promised is not None and promised >= doubted:
                return promised
            first, last = float("inf"), float("-inf")
            for packet in container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    first = min(first, float(packet.pts * packet.time_base))
                    last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    except (OSError, ValueError, EOFError, OverflowError):
        return None
    reached = last - first if last > first else None
    return max((one for one in (promised, reached) if one is not None), default=None)
