"""`emopipe` without heavy models: `python -m tests.pipeline.emopipe_with_stand_ins run ...`."""

from __future__ import annotations

from functools import partial

from emopipe.pipeline.cli import app
from emopipe.pipeline.execution import batch as run
from tests.pipeline.stand_ins import SlowStandIns

run.prediction_job = partial(run.prediction_job, backends=SlowStandIns)

if __name__ == "__main__":
    app()
