"""Results as a piece of HTML for notebooks: a timeline of each file and its utterances."""

from __future__ import annotations

from collections.abc import Sequence

from emopipe.pipeline.records import FileResult
from emopipe.pipeline.report.pages import colours, render


def results_html(files: Sequence[FileResult]) -> str:
    """Timelines of files as HTML without scripts, for a notebook's output."""
    labels = sorted({name for file in files for utterance in file.utterances for name in utterance.probabilities})
    return render("notebook.html", files=files, labels=labels, colours=colours(labels))
