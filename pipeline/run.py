"""Run the pipeline on media files: extract, predict, write."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopipe.pipeline import people
from emopipe.pipeline.backbones import locate
from emopipe.pipeline.backends import Backends
from emopipe.pipeline.config import FACTS, ExtractionConfig
from emopipe.pipeline.errors import ENVIRONMENT_CODES, EmopipeError
from emopipe.pipeline.media import find_media
from emopipe.pipeline.outputs import ClipResult, Sink
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.records import Extraction, Source, Utterance
from emopipe.pipeline.stages import check_plan, extract
from emopipe.pipeline.translate import coded_errors

if TYPE_CHECKING:
    from emopipe.models.checkpoint import Predictor
    from emopipe.models.data import Sample

#: Reasons for absence that belong to the nature of an utterance and are no fault of the file.
ORDINARY: frozenset[str] = frozenset({"too_short"})


class Runner:
    """A loaded checkpoint together with the extractors that it was trained on.

    Args:
        model: name of a shipped checkpoint, or the folder of another.
        device: "auto", "cpu" or "cuda".
        offline: never fetch a weight.
        overrides: an extraction config that the user asks for; it must agree with the checkpoint's own.
        hook: told of progress.
        debug: let a file's failure stop the run with its traceback.

    Raises:
        EmopipeError: EMO-401 without the checkpoint, EMO-402 when `overrides` names other features, or the checkpoint's
            own cannot be extracted from media.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        offline: bool = False,
        overrides: Mapping[str, Any] | None = None,
        hook: Hook = silent,
        debug: bool = False,
    ) -> None:
        check_plan()
        self._debug = debug
        self._hook = hook
        self.predictor, self.checkpoint = load_predictor(model, device, offline=offline, hook=hook)
        sealed = self.predictor.spec.extraction
        _refuse_foreign(sealed, model)
        tables = _overlaid(portable(sealed), overrides or {})
        config = ExtractionConfig.from_dict(tables, origin=f"the checkpoint {model}")
        with coded_errors():
            offered = {name: self.predictor.spec.schema[name] for name in self.predictor.spec.modalities}
            self.predictor.check_features(offered, config.as_dict())
        self.backends = Backends(config, device=device, offline=offline, hook=hook)
        self.config_hash = hashlib.sha256(json.dumps(config.as_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.backends.close()

    def load(self) -> None:
        """Load every extractor now and check its features against the checkpoint's.

        Raises:
            EmopipeError: EMO-201 to EMO-204 for weights, EMO-402 for other features.
        """
        modalities = self.predictor.spec.modalities
        self.backends.prepare(*modalities, "speech", "people")
        self.backends.check_weights(self.predictor.spec.extraction.get("unverified", {}))
        names = self.backends.feature_names(modalities)
        _ = self.backends.asr, self.backends.vad
        if people.diarizes(self.backends.config.people):
            _ = self.backends.diarizer
        with coded_errors():
            self.predictor.check_features(names, self.backends.config.as_dict())

    def run(self, path: Path) -> ClipResult:
        """Predict one file; a file that cannot be used becomes a failed result, never an exception."""
        began = time.perf_counter()
        source = Source(id=path.stem, media=path)
        try:
            extraction = extract(source, self.backends, modalities=self.predictor.spec.modalities, hook=self._hook)
            predictions = self.predictor.predict(_samples(extraction.utterances))
        except EmopipeError as error:
            if self._debug or error.code in ENVIRONMENT_CODES:
                raise
            return self._result(path, "failed", [str(error)], None, [], began)
        reasons = _degradations(extraction)
        return self._result(path, "degraded" if reasons else "ok", reasons, extraction, predictions, began)

    def _result(
        self,
        path: Path,
        state: Any,
        reasons: list[str],
        extraction: Extraction | None,
        predictions: list[Any],
        began: float,
    ) -> ClipResult:
        seconds = time.perf_counter() - began
        return ClipResult(path, state, reasons, extraction, predictions, self.checkpoint, seconds)


def load_predictor(
    model: str, device: str = "auto", *, offline: bool = False, hook: Hook = silent
) -> tuple[Predictor, str]:
    """A checkpoint ready to predict, and its id.

    Args:
        model: name of a shipped checkpoint, or the folder of another.
        device: "auto", "cpu" or "cuda".
        offline: never fetch the backbone that it stands on.
        hook: told of a fetch.

    Raises:
        EmopipeError: EMO-401 when it is missing or damaged, EMO-201 to EMO-204 or EMO-503 when its backbone is missing.
    """
    from emopipe.models import checkpoint
    from emopipe.pipeline.backends import pick_device

    with coded_errors():
        options = locate(checkpoint.read_spec(model).options, offline=offline, hook=hook)
        predictor = checkpoint.load(model, pick_device(device), options)
    return predictor, checkpoint.identify(predictor)


def run_files(paths: Sequence[Path], runner: Runner, out: Path, hook: Hook = silent) -> Iterator[ClipResult]:
    """Run files and folders, writing each clip's outputs as soon as it is done, summary and manifest at the end.

    Every input yields a result: what cannot be used at all is yielded as failed, first.
    """
    files, errors = find_media(paths)
    sink = Sink(out, runner.config_hash, version("emopipe"))
    results = [ClipResult(Path(e.path or ""), "failed", [str(e)], None, [], runner.checkpoint, 0.0) for e in errors]
    yield from results
    if files:
        runner.load()
    for index, path in enumerate(files, start=1):
        hook(Event("start", "clip", str(path), done=index, total=len(files)))
        result = runner.run(path)
        sink.write(result)
        results.append(result)
        yield result
    sink.finish(results)


def _refuse_foreign(sealed: Mapping[str, Any], model: str) -> None:
    """Features that came in a file of somebody else's cannot be made from a recording."""
    for modality, table in sealed.items():
        if isinstance(table, Mapping) and "source" in table:
            what = f"the checkpoint {model} was trained on {modality} features of a {table['source']} file, "
            hint = "Measure it on such a file with `emopipe evaluate`, or train on what `emopipe extract` makes"
            raise EmopipeError("EMO-402", what + "which cannot be extracted from media", hint=hint)


def portable(sealed: Mapping[str, Any]) -> dict[str, Any]:
    """A sealed configuration for other recordings: who was enrolled in the training recordings is not in these."""
    people = sealed.get("people", {})
    kept = {name: value for name, value in people.items() if name not in ("enrol", "subject", "count", "baseline")}
    kept["baseline"] = "person" if people.get("baseline", "none") != "none" else "none"
    return {**sealed, "people": kept}


def _overlaid(sealed: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The sealed tables with single entries replaced."""
    return {name: {**sealed.get(name, {}), **overrides.get(name, {})} for name in {*sealed, *overrides} - {*FACTS}}


def _samples(utterances: Sequence[Utterance]) -> list[Sample]:
    """The utterances of a clip, in order of time, as the model sees them: each with the words said before it."""
    from emopipe.models.data import Sample
    from emopipe.models.transcript import spoken

    lines = spoken([(one.speaker, one.text) for one in utterances])
    samples = []
    for place, one in enumerate(utterances):
        features = {name: sequence.features for name, sequence in one.features.items()}
        earlier = tuple(line for line in lines[:place] if line)
        samples.append(Sample(features, dict(one.quality), one.text, lines[place], earlier))
    return samples


def _degradations(extraction: Extraction) -> list[str]:
    """Warnings, and the reasons for modalities that no utterance of the clip has."""
    reasons = list(extraction.warnings)
    utterances = extraction.utterances
    if not utterances:
        return [*reasons, "there is nothing to predict from"]
    for modality in sorted({name for u in utterances for name in u.absent}):
        if all(modality in u.absent for u in utterances):
            why = sorted({u.absent[modality] for u in utterances} - ORDINARY)
            reasons += [f"{modality}: {reason}" for reason in why]
    return reasons
