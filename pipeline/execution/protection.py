"""What a run hides of its results: names, words, and faces in what pages play."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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

    def check(self, modalities: Collection[str]) -> None:
        """Raise an OptionConflict where faces are to be blurred that are not looked for."""
        if self.blur is not None and "face" not in modalities:
            hint = "Add face to the modalities, or make copies with `emopipe blur`"
            raise OptionConflict("faces that are not looked for cannot be blurred", hint=hint)

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
    """Refuse a folder that holds results of other privacy: what one tells would lie beside those that hide it.

    Raises:
        PrivacyError: an earlier run into the folder did not hide what this one hides, or hid more.
    """
    if not (out / MANIFEST).is_file():
        return
    hides = (bool(disguise.pseudonyms), {*disguise.redacted})
    for path, entry in read_manifest(out).items():
        hidden = _hidden(out, entry)
        if disguise.path(path) != path or (hidden is not None and not _covers(hidden, hides)):
            hint = "Name a new folder with --out, or remove the old results"
            raise PrivacyError("the folder holds results that do not hide what this run hides", path=out, hint=hint)
        if hidden is not None and not _covers(hides, hidden):
            hint = "Repeat the run's --pseudonyms and --redact, or name a new folder with --out"
            raise PrivacyError("the folder holds results that hide more than this run does", path=out, hint=hint)
        if hidden is not None and not disguise:
            return  # of a folder that this was ever asked of, all results hide the same


def _covers(one: tuple[bool, set[str]], other: tuple[bool, set[str]]) -> bool:
    """Whether one hides all that another hides: names behind pseudonyms, and what is left out of words."""
    return one[0] >= other[0] and one[1] >= other[1]


def _hidden(out: Path, entry: Mapping[str, Any]) -> tuple[bool, set[str]] | None:
    """What the results of an earlier run hide; None without results, nothing where they are damaged."""
    import json

    path = out / f"{entry['outputs']}.json"
    if entry["outputs"] is None or not path.exists():
        return None
    try:
        privacy = json.loads(path.read_text("utf-8")).get("privacy", {})
        return bool(privacy.get("pseudonyms", False)), {*privacy.get("redacted", ())}
    except (OSError, ValueError, AttributeError, TypeError):
        return False, set()
