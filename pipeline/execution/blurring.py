"""Blur the faces of a recording that is in the store, or is measured now."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.plan import Job, Task, contents, results
from emopipe.pipeline.privacy.blur import Blurred, blur_result
from emopipe.pipeline.privacy.face_boxes import BlurSettings
from emopipe.pipeline.progress import Hook, silent
from emopipe.pipeline.records import Source
from emopipe.pipeline.stages.face import FACE
from emopipe.pipeline.store.store import Store


def blur_recording(
    media: Path, out: Path, job: Job, store: Store, settings: BlurSettings, hook: Hook = silent
) -> Blurred:
    """Write a copy of a recording in which faces are blurred; the faces are those in the store, or are measured.

    Args:
        media: the recording.
        out: the copy.
        job: how faces are measured.
        store: of the job.
        settings: how faces are blurred.
        hook: told of progress.

    Raises:
        EmopipeError: the recording cannot be measured, or the copy cannot be written.
    """
    source = Source(str(media), media=media)
    with closing(Here()) as engine:
        ((_, outcome),) = engine.run(job, [Task(source, (FACE.name,))], hook)
    if outcome.error is not None:
        raise outcome.error
    key = results(source, contents(source, store), job)[FACE.name].key
    return blur_result(media, out, key, store, settings, hook)
