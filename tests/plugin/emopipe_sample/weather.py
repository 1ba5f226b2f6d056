"""A corpus that this laboratory made: people who talk about the weather."""

from __future__ import annotations

from collections.abc import Iterator

from emopipe.pipeline.datasets.corpora.corpus import Corpus, CorpusFolder, Row


def rows(folder: CorpusFolder) -> Iterator[Row]:
    """A row for each line of `words.csv`, with the sound file of its number where that is there."""
    table = folder.table(folder.needed("words.csv"), "said", "mood", "part")
    for number, cells in table.rows.items():
        yield Row(str(number), {"label": cells["mood"]}, f"sound/{number}.wav", cells["said"], split=cells["part"])


WEATHER_TALK = Corpus(
    name="weather-talk",
    title="People who talk about the weather",
    language="English",
    modalities="text, voice",
    labels="2 moods",
    licence="CC0",
    source="https://example.org/weather-talk",
    layout="words.csv (said, mood, part) beside sound/LINE.wav",
    rows=rows,
)
