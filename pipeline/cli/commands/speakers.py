"""`emopipe speakers`: who may speak in which recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from emopipe.pipeline.cli.options import Debug, Json, RunResults, StoreOfRun
from emopipe.pipeline.cli.session import session

HEADER = ("speaker", "recordings", "most doubtful", "similarity", "nearest beside", "similarity to them")
NOTE = "Similarity: the mean cosine of the voice with those in the others of the speaker's recordings."


def speakers(
    results: RunResults,
    out: Annotated[Path, typer.Option(help="Speakers table to write.")] = Path("speakers.csv"),
    store: StoreOfRun = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell by their voices who may speak in which recordings of a run, as a table to check and give to --speakers."""
    with session(json, debug) as console:
        from emopipe.pipeline.store.store import store_dir
        from emopipe.pipeline.studies.speakers import suggest_speakers

        rows = suggest_speakers(results, out, store=store or Path(store_dir()), hook=console.hook)
        console.table(f"Who may speak in {results}", HEADER, _people(rows), [NOTE])
        console.print(f"{out}: correct it, then repeat `emopipe run` with --speakers {out}")


def _people(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """A row per speaker: those of most recordings first, each with the recording that is least surely theirs."""
    by_speaker: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["speaker"]:
            by_speaker.setdefault(row["speaker"], []).append(row)
    for speaker, some in sorted(by_speaker.items(), key=lambda pair: -len(pair[1])):
        doubtful = min(some, key=lambda row: (row["similarity"] or 0) - (row["next_similarity"] or 0))
        facts = (doubtful["similarity"], doubtful["next_speaker"], doubtful["next_similarity"])
        own, nearest, beside = ("-" if fact is None else str(fact) for fact in facts)
        yield speaker, str(len(some)), doubtful["file"], own, nearest, beside
