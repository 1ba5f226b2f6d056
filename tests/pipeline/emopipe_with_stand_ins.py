"""`emopipe` without heavy models: `python -m tests.pipeline.emopipe_with_stand_ins run ...`."""

from __future__ import annotations

from functools import partial

from emopipe.pipeline.cli.app import app
from emopipe.pipeline.execution import jobs
from tests.pipeline.stand_ins import SlowStandIns

jobs.prediction_job = partial(jobs.prediction_job, backends=SlowStandIns)

if __name__ == "__main__":
    app()
