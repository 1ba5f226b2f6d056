"""What a run hides of its results: names, words, and faces in what pages play."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.errors import OptionConflict, PrivacyError
from emopipe.pipeline.privacy.disguise import Disguise, read_disguise
from emopipe.pipeline.progress import Event, Hook
from emopipe.pipeline.records import FileResult
from emopipe.pipeline.report.outputs import MANIFEST, Sink, media_link, read_manifest
from emopipe.pipeline.store.store import Store

if TYPE_CHECKING:
    from emopipe.options import RunOptions
    from emopipe.pipeline.privacy.face_boxes import BlurSettings

#: Option of a run -> what it sets of the blurred copy.
_OF_BLUR: Final = {"blur_margin": "margin", "blur_hold": "hold", "blur_whole": "whole", "pitch": "pitch"}


@dataclass(frozen=True)
class Protection:
    """What is hidden.

    Attributes:
        disguise: names, and names and numbers in words.
        blur: how faces are blurred in a copy, which pages play; None: pages play the recording.
    """

    disguise: Disguise = field(default_factory=Disguise)
    blur: BlurSettings | None = None

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
        if self.blur is not None:
            from emopipe.pipeline.privacy.blur import blur_result

            name = f"{sink.stem(result.media)}.blurred.mp4"
            tell = _of_source(hook, str(result.media))
            copy = blur_result(media, sink.folder / name, result.keys.get("face"), store, self.blur, tell)
            if copy.without_face and not self.blur.whole:
                what = f"in {copy.without_face} of {copy.frames} pictures of {name} no face is known: look at these"
                tell(Event("warning", "blur", what))
            return replace(result, privacy=replace(result.privacy, media=name, pitch=self.blur.pitch))
        link = media_link(sink.folder, media)
        if self.disguise.pseudonyms and (self.disguise.text(link) != link or result.media != media):
            return replace(result, privacy=replace(result.privacy, media=""))
        return result


def _of_source(hook: Hook, source: str) -> Hook:
    """A hook whose events are about one input."""
    return lambda event: hook(replace(event, source=source))


def protection_of(options: RunOptions) -> Protection:
    """What options of a run hide.

    Raises:
        InputNotFound, PseudonymsTableError, ConfigError, OptionConflict: they cannot be used.
    """
    from emopipe.pipeline.privacy.face_boxes import BlurSettings

    given: Mapping[str, Any] = options
    of_blur = {name: given[option] for option, name in _OF_BLUR.items() if given.get(option) is not None}
    blur = BlurSettings(**of_blur)
    blur.check()
    if blur != BlurSettings() and not options.get("blurred"):
        what = "margin, hold, whole pictures and pitch are those of the blurred copy"
        raise OptionConflict(what, hint="Add --blurred, or leave them out")
    disguise = read_disguise(options.get("pseudonyms"), options.get("redact"))
    return Protection(disguise, blur if options.get("blurred") else None)


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
