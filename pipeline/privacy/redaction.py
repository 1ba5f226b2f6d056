"""Leave names and numbers out of words.

Names are those that are known, and those that people introduce ("my name is ...", "Mrs ..."): there is no recogniser of
names inside. Numbers are digits, numbers that are written out, and dates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from emopipe.errors import ConfigError
from emopipe.extractors.speech.utterances import SENTENCE_ENDS
from emopipe.options import listed
from emopipe.pipeline.privacy.pseudonyms import Pseudonyms, folded
from emopipe.pipeline.privacy.replacing import Replacement, apart

KINDS: Final = ("names", "numbers")
NAME_MARK: Final = "[name]"
NUMBER_MARK: Final = "[number]"
#: After these, words that begin with a capital are a name.
_INTRODUCTIONS: Final = (
    "my name is|my name's|i am called|call me|mein name ist|ich heisse|je m'appelle|mon nom est|"
    "me llamo|mi nombre es|mi chiamo|il mio nome e|meu nome e|me chamo|mijn naam is|ik heet|jag heter|"
    "mit navn er|jeg hedder|mitt navn er|jeg heter|nazywam sie|mam na imie"
)
_TITLES: Final = (
    "mr|mrs|ms|miss|dr|prof|professor|doctor|sir|herr|herrn|frau|monsieur|madame|mademoiselle|mme|senor|senora|senorita|"
    "don|dona|signor|signora|signorina|senhor|senhora|meneer|mevrouw|pan|pani"
)
_CUE: Final = re.compile(rf"(?<![^\W_])(?:(?:{_INTRODUCTIONS})[,:]?|(?:{_TITLES})\.?)\s+")
#: Up to five words; which of them are a name is told by their capitals.
_FOLLOWING: Final = re.compile(r"[^\W\d_][\w'’-]*(?:\s+[^\W\d_][\w'’-]*){0,4}")
#: Small words that are part of a name before a word with a capital.
_SMALL: Final = frozenset(
    ["van", "von", "der", "den", "de", "del", "della", "la", "le", "di", "da", "dos", "al", "el", "bin", "ibn"]
)
#: Words between the numbers of a date or a telephone number.
_JOINTS: Final = frozenset(
    [
        "and",
        "und",
        "et",
        "y",
        "e",
        "en",
        "och",
        "og",
        "of",
        "the",
        "de",
        "del",
        "den",
        "der",
        "di",
        "do",
        "du",
        "la",
        "le",
        "le",
        "point",
        "komma",
        "comma",
        "dot",
    ]
)
_TOKEN: Final = re.compile(r"\S+")
_INNER: Final = re.compile(r"[^\W_](?:.*[^\W_])?", re.DOTALL)
#: Largest number whose words are looked for as one word, as German writes it.
_LARGEST: Final = 1000


def chosen_kinds(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """What is left out of words, by name or of a list with commas; () for None.

    Raises:
        ConfigError: for an unknown name.
    """
    chosen = listed(names) if isinstance(names, str) else tuple(names or ())
    for name in chosen:
        if name not in KINDS:
            raise ConfigError(f"{name!r} cannot be left out of words", hint=f"Choose among {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in chosen)


def introduced_names(text: str) -> list[str]:
    """The names that people in a text introduce or are addressed by, each of their words too."""
    whole = folded(text)
    names: dict[str, None] = {}
    for cue in _CUE.finditer(whole.text):
        if cue.end() == len(whole.text):
            continue
        match = _FOLLOWING.match(text, whole.origin[cue.end()])
        words = _leading_capitals(match.group().split()) if match else []
        names |= dict.fromkeys([" ".join(words)] if len(words) > 1 else [])
        names |= dict.fromkeys(word for word in words if word[:1].isupper() and len(word) > 1)
    return list(names)


def _leading_capitals(words: Sequence[str]) -> list[str]:
    """Words up to the last that begins with a capital, before the first that is not part of a name."""
    kept: list[str] = []
    for word in words:
        if not word[:1].isupper() and word not in _SMALL:
            break
        kept.append(re.sub(r"['’]s$", "", word))
    while kept and not kept[-1][:1].isupper():
        kept.pop()
    return kept


def find_names(names: Sequence[str]) -> Callable[[str], list[Replacement]]:
    """Finds names in texts, where they are written with a capital."""
    known = Pseudonyms(dict.fromkeys(names, NAME_MARK))

    def find(text: str) -> list[Replacement]:
        return [one for one in known.find(text) if not text[one.start].islower()]

    return find


@dataclass(frozen=True)
class _Token:
    """A word without the marks around it: its place, and whether it is a number, a month, or joins numbers.

    `small`: alone it is mostly no number; `last`: it ends a sentence.
    """

    start: int
    end: int
    number: bool
    month: bool
    joint: bool
    small: bool
    last: bool


def find_numbers(language: str | None) -> Callable[[str], list[Replacement]]:
    """Finds numbers and dates in texts of a language; digits alone where its numbers are not known.

    Numbers that follow each other are one. "One" and "first" alone are not meant as numbers as a rule, and stay.
    """
    spoken, small, months = number_words(language or "")

    def find(text: str) -> list[Replacement]:
        tokens = [_token(match, spoken, small, months) for match in _TOKEN.finditer(text)]
        return [
            Replacement(run[0].start, run[-1].end, NUMBER_MARK)
            for run in _runs(tokens)
            if any(token.number for token in run) and not (len(run) == 1 and run[0].small)
        ]

    return find


def _token(match: re.Match[str], spoken: frozenset[str], small: frozenset[str], months: frozenset[str]) -> _Token:
    inner = _INNER.search(match.group())
    if inner is None:
        return _Token(match.start(), match.end(), False, False, match.group() in {"-", "/", "+"}, False, False)
    word = folded(inner.group()).text
    parts = re.split(r"[-‐‑–/]", word)
    digits = any(character.isnumeric() and not character.isalpha() for character in word)
    number = digits or word in spoken or (len(parts) > 1 and all(part in spoken or part in _JOINTS for part in parts))
    start, end = match.start() + inner.start(), match.start() + inner.end()
    before = match.group()[: inner.start()]
    start -= len(before) - len(before.rstrip("+"))
    last = match.group().rstrip("\"'”’»)]").endswith(SENTENCE_ENDS)
    return _Token(start, end, number, word in months, word in _JOINTS, word in small, last)


def _runs(tokens: Sequence[_Token]) -> Iterator[list[_Token]]:
    """Numbers and months that follow each other, with at most two words that join them between."""
    run: list[_Token] = []
    waiting: list[_Token] = []
    for token in tokens:
        if token.number or token.month:
            run += [*(waiting if run else []), token]
            waiting = []
        elif run and token.joint and len(waiting) < 2:
            waiting.append(token)
        else:
            if run:
                yield run
            run, waiting = [], []
        if run and token.last:
            yield run
            run, waiting = [], []
    if run:
        yield run


@cache
def number_words(language: str) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The words of numbers in a language, those that alone are mostly no numbers, and the months, all folded."""
    from num2words import num2words

    spoken: set[str] = set()
    small: set[str] = set()
    wanted = [*((n, "cardinal") for n in range(_LARGEST)), *((n, "ordinal") for n in range(101))]
    wanted += [(10**power, "cardinal") for power in (3, 6, 9)] + [(year, "year") for year in range(1900, 2031, 10)]
    for number, kind in wanted:
        try:
            words = folded(num2words(number, lang=language, to=kind)).text
        except (NotImplementedError, TypeError, ValueError, LookupError, OverflowError):
            continue
        parts = set(re.split(r"[\W_]+", words)) - _JOINTS - {""}
        spoken |= parts
        if kind == "ordinal":
            spoken |= {part + ending for part in parts for ending in _ENDINGS.get(language, "")}
        if (kind == "cardinal" and number == 1) or (kind == "ordinal" and number <= 3):
            small |= parts
    small |= _ARTICLES.get(language, frozenset())
    return frozenset(spoken | small - {"a", "an"}), frozenset(small), _months(language)


#: What ordinals end in beside the form that is listed.
_ENDINGS: Final = {"de": "nrsm"}
#: Forms of "one" that are articles, and numbers beside numbers only.
_ARTICLES: Final = {
    "de": frozenset(["ein", "eine", "einen", "einem", "einer", "eines", "eins"]),
    "fr": frozenset(["un", "une"]),
    "es": frozenset(["un", "una", "uno"]),
    "it": frozenset(["un", "una", "uno"]),
    "pt": frozenset(["um", "uma"]),
    "nl": frozenset({"een"}),
    "en": frozenset({"second", "seconds", "o", "oh"}),
}


def _months(language: str) -> frozenset[str]:
    from babel import Locale, UnknownLocaleError

    try:
        months = Locale.parse(language).months
    except (UnknownLocaleError, ValueError, TypeError):
        return frozenset()
    names = {name for form in ("format", "stand-alone") for name in months[form]["wide"].values()}
    return frozenset(folded(name).text for name in names if name.isalpha())


def find_all(finders: Sequence[Callable[[str], Sequence[Replacement]]]) -> Callable[[str], list[Replacement]]:
    """Finds what any of several finders finds; where they overlap, the longest counts."""
    return lambda text: apart(one for find in finders for one in find(text))
