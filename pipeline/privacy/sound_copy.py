"""The sound of a recording for a copy of it: its tracks mixed, in step with the media clock, its pitch shifted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from emopipe.pipeline.media.streams import first_time, open_container, select_streams

#: Sampling rates that AAC has.
_RATES: Final = frozenset((8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000))
#: Damaged packets that are passed over, and are silent; what fails more often has ended.
_MOST_FAILURES: Final = 10_000


class SoundCopy:
    """Sound of a recording, frame by frame.

    Gaps between its time stamps are silence, and what overlaps is left out, so that it stays in step with the pictures.

    Args:
        path: the recording.
        pitch: semitones.
    """

    def __init__(self, path: Path, pitch: float) -> None:
        self._path, self._pitch = path, pitch
        with closing(open_container(path)) as container:
            streams = select_streams(container, path).audio
            rates = [stream.codec_context.sample_rate for stream in streams]
            self.has_sound = bool(streams)
            self.rate = max((rate for rate in rates if rate in _RATES), default=48_000)
            one = all(stream.codec_context.layout.nb_channels == 1 for stream in streams)
            self.layout = "mono" if one else "stereo"

    def frames(self) -> Iterator[Any]:
        """Frames of sound, without gaps from time 0 on; their `pts` count samples."""
        import av

        with closing(open_container(self._path)) as container:
            selection = select_streams(container, self._path)
            streams = list(selection.audio)
            video = [] if selection.video is None else [selection.video]
            origin = first_time([*video, *streams])
            graph, inputs = self._graph(streams)
            packets = container.demux(streams)
            samples = failures = 0
            while True:
                try:
                    packet = next(packets)
                    decoded = packet.decode()
                except (StopIteration, IndexError):
                    break
                except (av.FFmpegError, OSError, ValueError):
                    failures += 1
                    if failures > _MOST_FAILURES:
                        break
                    continue
                for frame in decoded:
                    if frame.pts is None:
                        continue
                    frame.pts -= round(origin / frame.time_base)
                    inputs[packet.stream.index].push(frame)
                    for one in _pulled(graph):
                        yield _counted(one, samples)
                        samples += one.samples
            for source in inputs.values():
                source.push(None)
            for one in _pulled(graph):
                yield _counted(one, samples)
                samples += one.samples

    def _graph(self, streams: Sequence[Any]) -> tuple[Any, dict[int, Any]]:
        """FFmpeg's filters: each track in step, mixed, and shifted in pitch without change of pace."""
        from av.filter import Graph

        graph = Graph()
        inputs: dict[int, Any] = {}
        ends = []
        for stream in streams:
            source = graph.add_abuffer(template=stream)
            steps = [
                graph.add("aresample", f"{self.rate}:async=1:first_pts=0"),
                graph.add("aformat", f"sample_fmts=fltp:sample_rates={self.rate}:channel_layouts={self.layout}"),
            ]
            inputs[stream.index] = source
            ends.append(_chained(source, steps))
        last = ends[0]
        if len(ends) > 1:
            mix = graph.add("amix", f"inputs={len(ends)}:duration=longest:normalize=0")
            for index, end in enumerate(ends):
                end.link_to(mix, 0, index)
            last = mix
        if self._pitch:
            factor = 2 ** (self._pitch / 12)
            steps = [
                graph.add("asetrate", str(round(self.rate * factor))),
                graph.add("aresample", str(self.rate)),
                graph.add("atempo", f"{self.rate / round(self.rate * factor):.9f}"),
            ]
            last = _chained(last, steps)
        form = graph.add("aformat", f"sample_fmts=fltp:sample_rates={self.rate}:channel_layouts={self.layout}")
        _chained(last, [form, graph.add("abuffersink")])
        graph.configure()
        return graph, inputs


def _chained(first: Any, rest: Sequence[Any]) -> Any:
    for step in rest:
        first.link_to(step)
        first = step
    return first


def _pulled(graph: Any) -> Iterator[Any]:
    import av

    with suppress(av.BlockingIOError, EOFError):
        while True:
            yield graph.pull()


def _counted(frame: Any, samples: int) -> Any:
    from fractions import Fraction

    frame.pts, frame.time_base = samples, Fraction(1, frame.sample_rate)
    return frame
