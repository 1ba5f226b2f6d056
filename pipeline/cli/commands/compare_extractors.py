"""`emopipe compare-extractors`: two face backends on the same clip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.options import MachineOptions
from emopipe.pipeline.cli.options import Debug, Json, with_option_groups
from emopipe.pipeline.cli.session import session


@with_option_groups
def compare_extractors(
    options: MachineOptions,
    clip: Annotated[Path, typer.Argument(help="A video in which a face is seen.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the tables and the picture.")] = Path("emopipe-agreement"),
    config: Annotated[Path | None, typer.Option(help="A TOML file; see `emopipe config show`.")] = None,
    face: Annotated[str, typer.Option(help="Whom to hold against mediapipe: pyfeat or pyfeat:v1.")] = "pyfeat",
    fps: Annotated[float | None, typer.Option(help="Sampled frames per second.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Correlate the action units of two face backends on a clip, and draw both."""
    with session(json, debug) as console:
        from emopipe.options import ExtractionOptions
        from emopipe.pipeline.config import ExtractionConfig
        from emopipe.pipeline.execution.jobs import extraction_overrides
        from emopipe.pipeline.studies.extractor_agreement import compare_backends, header, summary, write_agreement

        asked: ExtractionOptions = {"face": face}
        if config is not None:
            asked["config"] = config
        if fps is not None:
            asked["fps"] = fps
        extraction = ExtractionConfig.from_dict(extraction_overrides(asked))
        agreement = compare_backends(clip, extraction, hook=console.hook, **options)
        title = f"{clip.name}: action units by {' and '.join(agreement.names)}"
        write_agreement(agreement, title, out)
        console.table(title, header(agreement), summary(agreement))
        console.print(f"Tables and picture are in {out}/")
