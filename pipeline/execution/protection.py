"""What a run hides of its results: names, words, and faces in what pages play."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopipe.errors import OptionConflict, PrivacyError
from emopipe.pipeline.privacy.disguise import Disguise, read_disguise
from emopipe.pipeline.progress import Hook
from emopipe.pipeline.records import FileResult
from emopipe.pipeline.report.outputs import MANIFEST, Sink, media_link, read_manifest
from emopipe.pipeline.store.store import Store

if TYPE_CHECKING:
    from emopipe.options import RunOptions


@dataclass(frozen=True)
class Protection:
    """What is hidden.

    Attributes:
        disguise: names, and names and numbers in words.
        blurred: pages play a copy in which faces are blurred.
        pitch: semitones by which the sound of that copy is shifted.
    """

    disguise: Disguise = field(default_factory=Disguise)
    blurred: bool = False
    pitch: float = 0.0

    def hide(self, result: FileResult) -> FileResult:
        """A result without what is hidden in words and names."""
        return self.disguise.result(result)

    def copy(self, result: FileResult, media: Path | None, sink: Sink, store: Store, hook: Hook) -> FileResult:
        """A result that says what its page plays: a blurred copy, which is written; nothing where a link has names.

        Args:
            result: of :meth:`hide`.
            media: the recording.
            sink: the folder of the run.
            store: has the faces.
            hook: told of progress.

        Raises:
            OutputError: the copy cannot be written.
        """
        if media is None or result.state == "failed":
            return result
        if self.blurred:
            from emopipe.pipeline.privacy.blur import blur_result
            from emopipe.pipeline.privacy.face_boxes import BlurSettings

            name = f"{sink.stem(result.media)}.blurred.mp4"
            blur_result(media, sink.folder / name, result.keys.get("face"), store, BlurSettings(pitch=self.pitch), hook)
            return replace(result, privacy=replace(result.privacy, media=name, pitch=self.pitch))
        link = media_link(sink.folder, media)
        if self.disguise.pseudonyms and (self.disguise.text(link) != link or result.media != media):
            return replace(result, privacy=replace(result.privacy, media=""))
        return result


def protection_of(options: RunOptions) -> Protection:
    """What options of a run hide.

    Raises:
        InputNotFound, PseudonymsTableError, ConfigError: they cannot be used.
    """
    blurred, pitch = options.get("blurred", False), options.get("pitch", 0.0)
    if pitch and not blurred:
        raise OptionConflict("the pitch is that of the blurred copy", hint="Add --blurred, or leave out --pitch")
    return Protection(read_disguise(options.get("pseudonyms"), options.get("redact")), blurred, pitch)


def refuse_mixed(out: Path, disguise: Disguise) -> None:
    """Refuse a folder that holds results of other privacy: what they tell would lie beside those that hide it.

    Raises:
        PrivacyError: an earlier run into the folder did not hide what this one hides.
    """
    if not disguise or not (out / MANIFEST).is_file():
        return
    for path, entry in read_manifest(out).items():
        if disguise.path(path) != path or not _hides(out, entry, disguise):
            hint = "Name a new folder with --out, or remove the old results"
            raise PrivacyError("the folder holds results that do not hide what this run hides", path=out, hint=hint)


def _hides(out: Path, entry: Mapping[str, Any], disguise: Disguise) -> bool:
    """Whether the results of an earlier run hide what a disguise hides."""
    import json

    if entry["outputs"] is None:
        return True
    try:
        privacy = json.loads((out / f"{entry['outputs']}.json").read_text("utf-8")).get("privacy", {})
    except (OSError, ValueError, AttributeError):
        return not (out / f"{entry['outputs']}.json").exists()
    named = not disguise.pseudonyms or privacy.get("pseudonyms", False)
    return bool(named) and {*disguise.redacted} <= {*privacy.get("redacted", ())}
