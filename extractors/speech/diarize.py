"""Who speaks when: speaker vectors of short pieces of speech, clustered into people, smoothed in time.

The number of people is the largest at which no two of them sound alike; it can be given instead. People are numbered
in the order in which they first speak. Still shorter pieces tell the moment at which one speaker follows another; see
`handovers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np

from emopipe.extractors.contracts import Backend, Interval, Likeness, Locate, Samples, SpeakerTurns, Turn, VoiceEncoder
from emopipe.extractors.speech.handovers import with_handovers_placed
from emopipe.extractors.speech.speakers import SHORTEST, SpeakerEncoder, unit

#: The weight that is loaded when the configuration names no other.
WEIGHT: Final = "speaker-encoder"
#: Length of a piece, in seconds: what the encoder was trained on.
PIECE: Final = 1.6
#: The greatest distance between the starts of two pieces, in seconds.
PIECE_HOP: Final = 0.4
#: Resolution of the result, in seconds.
STEP: Final = 0.1
#: A piece speaks for the steps around its middle with weights that fall off at this rate, in seconds.
REACH: Final = 0.35
#: Similarity counts so much per second of speech against the cost of a change of speaker.
SHARPNESS: Final = 240.0
CHANGE: Final = 3.0
#: A pause makes a change of speaker cheaper, by this factor.
CHANGE_AT_PAUSE: Final = 0.3
#: Whoever speaks less than this is nobody, in seconds; a third person must speak longer to be one.
LEAST_SPEECH: Final = 1.5
LEAST_SPEECH_OF_MORE: Final = 3.0
#: Where the speaker changes without a pause, both may be speaking for this long before and after, in seconds.
OVERLAP: Final = 0.5
#: Rounds of assigning speech to people and people's vectors to their speech.
ROUNDS: Final = 5
#: How often k-means begins anew, each time elsewhere.
STARTS: Final = 40


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> VoiceClusters:
    """The diarizer that a table `people` of a configuration describes."""
    return VoiceClusters(SpeakerEncoder(locate(settings["encoder"] or WEIGHT), device))


BACKEND: Final = Backend(
    "ge2e",
    create,
    weights=lambda settings: [settings["encoder"] or WEIGHT],
    libraries=("librosa", "scipy", "torch"),
    settings=("encoder",),
    gpu=False,
)


class VoiceClusters:
    """The diarizer of this module.

    Args:
        encoder: gives pieces of speech their vectors.
    """

    def __init__(self, encoder: VoiceEncoder) -> None:
        self.encoder = encoder
        self._prepared: _Embedded | None = None

    def prepare(self, samples: Samples, speech: Sequence[Interval], *, people: int = 0, most: int = 4) -> None:
        """Embed beforehand what :meth:`turns` asks for when a picture tells nothing of the number of people.

        The next call of :meth:`turns`, with the same samples, then embeds what is left.
        """
        self._prepared = embedded = _Embedded(samples, self.encoder)
        self.turns(samples, speech, people=people, most=most)
        self._prepared = embedded

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
        """Turns that together cover exactly `speech`; see :class:`emopipe.extractors.contracts.Diarizer`."""
        prepared, self._prepared = self._prepared, None
        embedded = prepared if prepared and prepared.samples is samples else _Embedded(samples, self.encoder)
        pieces = cut_pieces(speech)
        if not pieces or people == 1:
            return SpeakerTurns(one_speaker(speech))
        vectors = embedded.vectors(pieces)
        times = step_times(speech)
        shares = _Shares(pieces, times)
        likeness = self.encoder.likeness
        doubt = ""
        for count in [min(people, len(pieces))] if people else range(min(most, len(pieces)), 1, -1):
            labels = _settle(vectors, shares, times, count)
            if people or count <= least:
                break
            cosine = _greatest_cosine(labels, vectors, shares)
            doubt = _doubt(cosine, count, likeness, several_seen) or doubt
            if cosine < _limit(count, likeness, several_seen):
                break
        else:
            return SpeakerTurns(one_speaker(speech), doubt)
        means = _means(vectors, labels[shares.step_of_piece], labels.max() + 1)
        if means is not None:
            voices = means
            labels = with_handovers_placed(labels, times, speech, lambda parts: embedded.vectors(parts) @ voices.T)
        return SpeakerTurns(turns_of(labels, times, speech), doubt)


class _Embedded:
    """Pieces of a sound with their vectors; a piece that is asked for again is not embedded again.

    Args:
        samples: the sound.
        encoder: gives pieces their vectors.
    """

    def __init__(self, samples: Samples, encoder: VoiceEncoder) -> None:
        self.samples = samples
        self._encoder = encoder
        self._known: dict[Interval, np.ndarray] = {}

    def vectors(self, pieces: Sequence[Interval]) -> np.ndarray:
        """Unit vectors (pieces, dims)."""
        new = [piece for piece in pieces if piece not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.embed(self.samples, new), strict=True))
        return np.stack([self._known[piece] for piece in pieces])


def _limit(count: int, likeness: Likeness, several_seen: bool) -> float:
    """The cosine above which two of so many people are one."""
    alike = likeness.alike_if_several_seen if several_seen else likeness.alike
    return alike if count == 2 else min(alike, likeness.alike_of_more)


def _doubt(cosine: float, count: int, likeness: Likeness, several_seen: bool) -> str:
    """What is to be told of a close call between so many people and fewer; "" when it is clear.

    Only the call between one person and two is told: a doubtful third one is most often one of the two in another mood.
    """
    low, high = likeness.doubtful
    if count > 2 or several_seen or not low <= cosine <= high:
        return ""
    two = "two voices were told apart that are much alike" if cosine < likeness.alike else "one voice was heard"
    other = "they may be one person's" if cosine < likeness.alike else "it may be those of two people"
    return f"{two}; {other} (cosine {cosine:.2f}, two people below {likeness.alike:.2f})"


def one_speaker(speech: Sequence[Interval]) -> list[Turn]:
    """All speech as turns of person 0."""
    return [Turn(start, end, 0) for start, end in speech]


def cut_pieces(speech: Sequence[Interval]) -> list[Interval]:
    """Pieces of 1.6 s, or whole spans that are shorter; spans that are too short for the encoder give none."""
    pieces: list[Interval] = []
    for start, end in speech:
        if end - start < SHORTEST:
            continue
        if end - start <= PIECE:
            pieces.append((start, end))
            continue
        count = int(np.ceil((end - start - PIECE) / PIECE_HOP))
        pieces += [(first, first + PIECE) for first in np.linspace(start, end - PIECE, count + 1).tolist()]
    return pieces


def step_times(speech: Sequence[Interval]) -> np.ndarray:
    """Middles in seconds (steps,) of steps of 0.1 s that fill the speech."""
    steps = [np.arange(start + STEP / 2, max(end, start + STEP), STEP) for start, end in speech]
    return np.concatenate(steps) if steps else np.zeros(0)


class _Shares:
    """How much each piece tells of each step: a sparse matrix (steps, pieces) whose rows sum to one."""

    def __init__(self, pieces: Sequence[Interval], times: np.ndarray) -> None:
        from scipy.sparse import csr_array

        edges = np.array(pieces)
        middles = edges.mean(1)
        order = np.argsort(middles)
        rows, columns, weights = [], [], []
        for column in order:
            near = slice(*np.searchsorted(times, edges[column] + [-STEP, STEP]))
            steps = np.arange(near.start, near.stop)
            rows.append(steps)
            columns.append(np.full(len(steps), column))
            weights.append(np.exp(-(((times[steps] - middles[column]) / REACH) ** 2)) + 1e-9)
        self.nearest = order[np.clip(np.searchsorted(middles[order], times), 0, len(order) - 1)]
        self.step_of_piece = np.clip(np.searchsorted(times, middles), 0, len(times) - 1)
        matrix = csr_array(
            (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), (len(times), len(pieces))
        )
        sums = matrix.sum(1)
        self._alone = sums <= 0
        self._matrix = matrix.multiply(1 / np.where(self._alone, 1, sums)[:, None]).tocsr()

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values of pieces (pieces, k) as weighted means per step (steps, k); steps without a piece take the next's."""
        means: np.ndarray = self._matrix @ values
        means[self._alone] = values[self.nearest[self._alone]]
        return means


def _settle(vectors: np.ndarray, shares: _Shares, times: np.ndarray, count: int) -> np.ndarray:
    """The person of each step: clusters of pieces, then Viterbi and the people's mean vectors by turns."""
    of_piece = _clusters(vectors, count)
    steps: np.ndarray = of_piece[shares.nearest]
    for _ in range(ROUNDS):
        means = _means(vectors, of_piece, count)
        if means is None:
            break
        likeness = shares.spread(vectors @ means.T)
        steps = smoothest(likeness * (SHARPNESS * STEP), times)
        of_piece = steps[shares.step_of_piece]
    return steps


def _clusters(vectors: np.ndarray, count: int) -> np.ndarray:
    """The cluster of each vector (pieces,): the tightest of STARTS times k-means; one where there are not so many."""
    from scipy.cluster.vq import ClusterError, kmeans2

    runs = []
    for seed in range(STARTS):
        with suppress(ClusterError), np.errstate(invalid="ignore"):  # fewer different vectors than clusters
            runs.append(kmeans2(vectors, count, minit="++", missing="raise", rng=seed))
    if not runs:
        return np.zeros(len(vectors), int)
    _, labels = min(runs, key=lambda run: float(((vectors - run[0][run[1]]) ** 2).sum()))
    return np.asarray(labels)


def _means(vectors: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray | None:
    """Mean unit vectors of each label, (count, dims); None when a label has lost all its pieces."""
    if len(np.unique(labels)) < count:
        return None
    return unit(np.stack([vectors[labels == label].mean(0) for label in range(count)]))


def smoothest(scores: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The best path (steps,) through scores (steps, people) when a change of speaker costs something."""
    costs = np.where(np.diff(times, prepend=times[0]) > 2 * STEP, CHANGE * CHANGE_AT_PAUSE, CHANGE)
    return best_path(scores, costs)


def best_path(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The path (steps,) through scores (steps, states) of the greatest sum (Viterbi).

    Args:
        scores: of each state at each step.
        costs: of entering each step (steps,) in another state than the last.
    """
    everyone = np.arange(scores.shape[1])
    best, came_from = scores[0].copy(), np.zeros(scores.shape, np.int32)
    for step in range(1, len(scores)):
        leader = int(best.argmax())
        jump = best[leader] - costs[step]
        came_from[step] = np.where(best >= jump, everyone, leader)
        best = np.maximum(best, jump) + scores[step]
    path = np.zeros(len(scores), np.int64)
    path[-1] = best.argmax()
    for step in range(len(scores) - 1, 0, -1):
        path[step - 1] = came_from[step, path[step]]
    return path


def _greatest_cosine(labels: np.ndarray, vectors: np.ndarray, shares: _Shares) -> float:
    """The greatest cosine of two people's mean vectors; 1 when somebody speaks too little to be a person."""
    _, lengths = np.unique(labels, return_counts=True)
    count = labels.max() + 1
    needed = LEAST_SPEECH if count <= 2 else LEAST_SPEECH_OF_MORE
    if count < 2 or len(lengths) < count or lengths.min() * STEP < needed:
        return 1.0
    means = _means(vectors, labels[shares.step_of_piece], count)
    return 1.0 if means is None else float((means @ means.T)[np.triu_indices(count, 1)].max())


def turns_of(labels: np.ndarray, times: np.ndarray, speech: Sequence[Interval]) -> list[Turn]:
    """Turns from the person of each step; people are numbered anew as they first speak."""
    order = {int(person): number for number, person in enumerate(dict.fromkeys(labels.tolist()))}
    turns: list[Turn] = []
    for start, end in speech:
        low, high = np.searchsorted(times, [start, max(end, start + STEP)])
        inside = labels[low:high]
        changes = np.flatnonzero(np.diff(inside)) + 1
        edges = [start, *(start + STEP * changes).tolist(), end]
        people = [order[int(inside[at])] for at in [0, *changes]]
        turns += _with_overlap(edges, people)
    return turns


def _with_overlap(edges: list[float], people: list[int]) -> list[Turn]:
    """Turns that follow each other without a pause; half a second on both sides of where they meet is overlapped."""
    turns = []
    for index, person in enumerate(people):
        start, end = edges[index], edges[index + 1]
        first = min(start + OVERLAP, end) if index > 0 else start
        last = max(end - OVERLAP, first) if index < len(people) - 1 else end
        parts = [(start, first, True), (first, last, False), (last, end, True)]
        turns += [Turn(low, high, person, met) for low, high, met in parts if high > low]
    return turns


def merged(turns: Sequence[Turn], same: Mapping[int, int]) -> list[Turn]:
    """Turns of fewer people, numbered anew as they first speak; where one goes on speaking, nobody else does.

    Args:
        turns: as :class:`VoiceClusters` finds them.
        same: person -> the person that they are.
    """
    order: dict[int, int] = {}
    people = [order.setdefault(same[turn.person], len(order)) for turn in turns]
    runs: list[list[Turn]] = []
    for whole in joined([replace(turn, person=person) for turn, person in zip(turns, people, strict=True)]):
        if runs and whole.start - runs[-1][-1].end < 1e-6:
            runs[-1].append(whole)
        else:
            runs.append([whole])
    edges = [[run[0].start, *(turn.end for turn in run)] for run in runs]
    return [
        turn for edge, run in zip(edges, runs, strict=True) for turn in _with_overlap(edge, [one.person for one in run])
    ]


def joined(turns: Sequence[Turn]) -> list[Turn]:
    """Turns of one person that touch as one; it counts as overlapped when half of it is.

    Args:
        turns: in order of their starts.
    """
    groups: list[list[Turn]] = []
    latest: dict[int, list[Turn]] = {}
    for turn in turns:
        group = latest.get(turn.person)
        if group is None or turn.start - group[-1].end >= 1e-6:
            group = latest[turn.person] = []
            groups.append(group)
        group.append(turn)
    return [
        Turn(group[0].start, group[-1].end, group[0].person, 2 * _overlapped(group) > _length(group))
        for group in groups
    ]


def _length(turns: Sequence[Turn]) -> float:
    return sum(turn.end - turn.start for turn in turns)


def _overlapped(turns: Sequence[Turn]) -> float:
    return _length([turn for turn in turns if turn.overlapped])


def overlap_share(turns: Sequence[Turn], start: float, end: float) -> float:
    """Share of the speech within [start, end] that is overlapped; 0 without speech."""
    inside = [
        Turn(max(turn.start, start), min(turn.end, end), turn.person, turn.overlapped)
        for turn in turns
        if turn.start < end and turn.end > start
    ]
    whole = _length(inside)
    return _overlapped(inside) / whole if whole > 0 else 0.0


def voice_of(samples: Samples, speech: Sequence[Interval], encoder: VoiceEncoder) -> np.ndarray | None:
    """The mean unit vector (dims,) of the voice in the given speech; None when there is too little of it."""
    pieces = cut_pieces(speech)
    if not pieces:
        return None
    mean = encoder.embed(samples, pieces).mean(0)
    voice: np.ndarray = unit(mean[None])[0]
    return voice
