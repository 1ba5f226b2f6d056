"""What is hidden in the results of a run: names, and names and numbers in words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emopipe.errors import EmopipeError, PrivacyError, Reason
from emopipe.extractors.contracts import Word
from emopipe.pipeline.privacy.pseudonyms import Pseudonyms, read_pseudonyms
from emopipe.pipeline.privacy.redaction import (
    chosen_kinds,
    find_all,
    find_names,
    find_numbers,
    introduced_names,
)
from emopipe.pipeline.privacy.replacing import Finder, Replacement, apart, replaced, replaced_words
from emopipe.pipeline.progress import Event, Hook
from emopipe.pipeline.records import Correction, FileResult, Privacy, Source, UtteranceResult


@dataclass(frozen=True)
class Disguise:
    """Hides names, and numbers in words. What is hidden once stays as it is when it is hidden again.

    Attributes:
        pseudonyms: for names, wherever they stand.
        redacted: "names", "numbers": what is left out of words.
    """

    pseudonyms: Pseudonyms = field(default_factory=lambda: Pseudonyms({}))
    redacted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pseudonyms or self.redacted)

    def text(self, text: str) -> str:
        """A text other than spoken words, with pseudonyms."""
        return replaced(text, self.pseudonyms.find(text))

    def path(self, path: Path) -> Path:
        """A path, with pseudonyms in each of its parts."""
        return Path(*map(self.text, path.parts)) if self.pseudonyms else path

    def paths(self, paths: Iterable[Path]) -> dict[Path, Path]:
        """Each path with pseudonyms.

        Raises:
            PrivacyError: two would be the same.
        """
        hidden: dict[Path, Path] = {}
        for path in paths:
            hidden[path] = self.path(path)
        if len(set(hidden.values())) < len(hidden):
            twice = next(path for path in hidden.values() if list(hidden.values()).count(path) > 1)
            hint = "Give them names in the table that stay apart, or rename the files"
            raise PrivacyError("with pseudonyms, several recordings have the same name", path=twice, hint=hint)
        return hidden

    def reason(self, reason: Reason) -> Reason:
        """A reason, with pseudonyms."""
        where = reason.where
        if where is not None and where.path is not None:
            where = replace(where, path=str(self.path(Path(where.path))))
        return replace(reason, what=self.text(reason.what), hint=self.text(reason.hint), where=where)

    def source(self, source: Source) -> Source:
        """An input, with pseudonyms, to be told of; nothing can be read from it."""
        media = None if source.media is None else self.path(source.media)
        return replace(source, id=self._input(source.id), media=media)

    def hook(self, hook: Hook) -> Hook:
        """A hook that tells another of every event, with pseudonyms."""

        def hidden(event: Event) -> None:
            hook(replace(event, source=self._input(event.source), message=self.text(event.message)))

        return hidden if self.pseudonyms else hook

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors that leave the block have pseudonyms."""
        try:
            yield
        except EmopipeError as error:
            if not self.pseudonyms:
                raise
            path = None if error.path is None else self._input(error.path)
            hidden = error.changed(what=self.text(error.what), path=path, hint=self.text(error.hint))
            raise hidden.with_traceback(error.__traceback__) from None

    def _input(self, name: str) -> str:
        """The path of an input, as events and errors have it."""
        return str(self.path(Path(name))) if name else ""

    def result(self, result: FileResult) -> FileResult:
        """What was found in a recording, with names and words hidden, and a note that they are."""
        if not self:
            return result
        find = self._finder(
            [row.text for row in result.utterances], (person.name for person in result.people), result.info
        )
        earlier = result.privacy
        kinds = tuple(dict.fromkeys([*earlier.redacted, *self.redacted]))
        return replace(
            result,
            media=self.path(result.media),
            reasons=[self.reason(reason) for reason in result.reasons],
            info=self._nested(result.info),
            people=[replace(person, name=self.text(person.name)) for person in result.people],
            utterances=[self._utterance(row, find) for row in result.utterances],
            privacy=replace(earlier, pseudonyms=earlier.pseudonyms or bool(self.pseudonyms), redacted=kinds),
        )

    def words(self, words: Sequence[Word], result: FileResult) -> list[Word]:
        """The words of a recording with their times, hidden as they are in its utterances.

        Args:
            words: as they were recognised.
            result: of the recording, hidden or not.
        """
        if not self:
            return list(words)
        groups = _by_utterance(words, result.utterances)
        texts = ["".join(word.text for word in group).strip() for group in groups]
        find = self._finder(texts, (person.name for person in result.people), result.info)
        return [word for group in groups for word in replaced_words(group, find)]

    def _utterance(self, row: UtteranceResult, find: Finder) -> UtteranceResult:
        return replace(
            row,
            text=replaced(row.text, find(row.text)),
            speaker=None if row.speaker is None else self.text(row.speaker),
            corrections=[self._correction(one, find) for one in row.corrections],
        )

    def _correction(self, one: Correction, find: Finder) -> Correction:
        def hidden(text: str | None, change: Callable[[str], str]) -> str | None:
            return None if text is None else change(text)

        return replace(
            one,
            by=self.text(one.by),
            person=hidden(one.person, self.text),
            text=hidden(one.text, lambda text: replaced(text, find(text))),
            note=hidden(one.note, lambda text: replaced(text, find(text))),
        )

    def _finder(self, texts: Sequence[str], people: Iterable[str], info: Mapping[str, Any]) -> Finder:
        """Finds what is hidden in the words of a recording."""
        finders: list[Callable[[str], Sequence[Replacement]]] = []
        if "names" in self.redacted:
            enrolled = [name for name in people if not re.fullmatch(r"S\d+", name)]
            names = [name for text in texts for name in introduced_names(text)]
            pseudonyms = {pseudonym.casefold() for pseudonym in self.pseudonyms.of.values()}
            finders.append(find_names([name for name in [*enrolled, *names] if name.casefold() not in pseudonyms]))
        if "numbers" in self.redacted:
            finders += [find_numbers(language) for language in _languages(info)]
        others = find_all(finders)

        def find(text: str) -> list[Replacement]:
            named = self.pseudonyms.find(text)
            kept = [replace(one, text="\0" * (one.end - one.start)) for one in [*named, *self._pseudonyms_in(text)]]
            return sorted([*named, *others(replaced(text, apart(kept)))], key=lambda one: one.start)

        return find

    def _pseudonyms_in(self, text: str) -> list[Replacement]:
        """Where pseudonyms stand already: their numbers are nobody's."""
        own = Pseudonyms({pseudonym: pseudonym for pseudonym in self.pseudonyms.of.values()})
        return own.find(text)

    def _nested(self, facts: Any) -> Any:
        """Facts about a medium, with pseudonyms in the titles of its streams."""
        streams = [
            {**stream, "title": self.text(str(stream["title"]))} if stream.get("title") else stream
            for stream in facts.get("streams", ())
        ]
        return {**facts, "streams": streams} if streams else facts


def _languages(info: Mapping[str, Any]) -> list[str | None]:
    """The languages that are spoken in a recording; None where they are not known."""
    spoken = [part["language"] for part in info.get("languages") or ()]
    return list(dict.fromkeys([*spoken, info.get("language")])) or [None]


def _by_utterance(words: Sequence[Word], utterances: Sequence[UtteranceResult]) -> list[list[Word]]:
    """Words that follow each other in the same utterance."""
    groups: list[list[Word]] = []
    before: object = None
    for word in words:
        middle = (word.start + word.end) / 2
        place = (word.person, next((i for i, row in enumerate(utterances) if row.start <= middle <= row.end), None))
        if not groups or place != before:
            groups.append([])
        groups[-1].append(word)
        before = place
    return groups


def read_disguise(pseudonyms: str | os.PathLike[str] | None, redact: str | Sequence[str] | None) -> Disguise:
    """The disguise that options ask for.

    Args:
        pseudonyms: a table of names and pseudonyms.
        redact: what is left out of words.

    Raises:
        InputNotFound: without the table; PseudonymsTableError when it cannot be used, ConfigError for an unknown name.
    """
    table = Pseudonyms({}) if pseudonyms is None else read_pseudonyms(Path(pseudonyms))
    return Disguise(table, chosen_kinds(redact))


def disguise_of(privacy: Privacy, given: Disguise) -> Disguise:
    """The disguise of words that the store holds as they were spoken.

    Args:
        privacy: what is hidden in the results.
        given: what is to be hidden.

    Raises:
        PrivacyError: the results have pseudonyms, and they are not given.
    """
    if privacy.pseudonyms and not given.pseudonyms:
        hint = "Give the same table with --pseudonyms: the store has the words as they were spoken"
        raise PrivacyError("the results have pseudonyms in place of names", hint=hint)
    return replace(given, redacted=tuple(dict.fromkeys([*privacy.redacted, *given.redacted])))
