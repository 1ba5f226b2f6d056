"""Outputs with pseudonyms and without words hold no name and no word that was to be hidden, not in any byte."""

from __future__ import annotations

import io
import json
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emopipe.errors import ConfigError, OptionConflict, OutputError, PrivacyError, Reason, Where
from emopipe.extractors.contracts import Word
from emopipe.pipeline.execution.batch import find_inputs
from emopipe.pipeline.execution.protection import Protection, protection_of, refuse_mixed
from emopipe.pipeline.export.export import export_folder
from emopipe.pipeline.export.formats import FORMATS
from emopipe.pipeline.export.share import LISTING, chosen_parts, share
from emopipe.pipeline.privacy.blur import blur_result
from emopipe.pipeline.privacy.disguise import Disguise
from emopipe.pipeline.privacy.face_boxes import BlurSettings
from emopipe.pipeline.privacy.pseudonyms import Pseudonyms, folded
from emopipe.pipeline.progress import Event
from emopipe.pipeline.records import Correction, FileResult, Person
from emopipe.pipeline.report.batch import participants_of_run
from emopipe.pipeline.report.batch_page import write_summary
from emopipe.pipeline.report.outputs import Sink
from emopipe.pipeline.store.store import Store
from tests.pipeline.export.test_export import FACES, KEYS, VOICE, file_of, utterance
from tests.pipeline.privacy.test_blur import recording

HOSTILE = '<script>alert("Zoë")</script>'
NAMES = {"Ana María": "P01", "Ana": "P01", "Jürgen": "P02", HOSTILE: "P03", "../../Zoë": "P04", "=Zoë()": "P05"}
DISGUISE = Disguise(Pseudonyms(NAMES), ("names", "numbers"))
#: What may be in no output, folded.
SECRETS = ("ana maria", "ana_maria", "jurgen", "zoe", "smith", "fifty", "4711")
TEXTS = ("Jürgen's dog, Ana.", f"My name is Ana Smith. {HOSTILE}", "=Zoë() Call fifty two 4711, Smith.")


def words() -> list[Word]:
    """The words of the texts, in the time of their utterances."""
    spoken = []
    for number, text in enumerate(TEXTS):
        parts = text.split()
        spoken += [
            Word(f" {part}", number * 2 + 0.1 + i * 0.1, number * 2 + 0.2 + i * 0.1, 0.9)
            for i, part in enumerate(parts)
        ]
    return spoken


def result_of(media: Path) -> FileResult:
    people = [Person(0, "Ana María", "interviewer", (0,), 3.0), Person(1, "S2", "interviewee", (2,), 5.0)]
    note = Correction("Jürgen", "2026-01-01", text="It was Ana.", person="Ana María", note="Jürgen says 4711")
    rows = [
        utterance(n * 2.0, n * 2.0 + 1.9, text=text, speaker=("Ana María", "S2")[n % 2], corrections=[note])
        for n, text in enumerate(TEXTS)
    ]
    about = Reason("EMO-104", "Jürgen's file", "Ask Jürgen", where=Where(path=str(media)))
    info = {"language": "en", "width": 64, "streams": [{"index": 0, "title": "Microphone of Ana", "kind": "audio"}]}
    return file_of(rows, media=media, people=people, turns=[], reasons=[about], info=info)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    measured: dict[str, dict[str, Any]] = {
        "face": {"face_table": FACES},
        "voice": {"voice": VOICE},
        "words": {"words": words(), "language": "en"},
    }
    with Store(tmp_path / "store") as store:
        for stage, values in measured.items():
            store.put(KEYS[stage], values, {"stage": stage, "content": "", "parameters": {}})
        yield store


def written(folder: Path, store: Store, disguise: Disguise, media: Path | None = None) -> FileResult:
    """What a run into a folder leaves."""
    media = media or folder.parent / "Ana" / "Jürgen_Ana-Maria 1.mp4"
    protected = Protection(disguise)
    sink = Sink(folder, [disguise.path(media)], "c0ffee", "1.0", {}, store)
    result = protected.hide(result_of(media))
    result = protected.copy(result, media, sink, store, lambda event: None)
    sink.write(result)
    sink.finish()
    write_summary(folder, None)
    return result


def everything(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and content of every file, and of the members of archives; names with the rest."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.name, path.name
            yield from _opened(path.name, path.read_bytes())


def _opened(name: str, data: bytes) -> Iterator[tuple[str, str]]:
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield name, member
                yield from _opened(f"{name}/{member}", archive.read(member))
    elif name.endswith(".parquet"):
        import pyarrow.parquet as pq

        table = pq.read_table(io.BytesIO(data))
        yield name, f"{table.to_pylist()} {table.schema.metadata}"
    else:
        yield name, data.decode("utf-8", "replace")
        yield name, data.decode("utf-16-le", "replace")


def leaks(folder: Path) -> list[tuple[str, str]]:
    return [
        (name, secret)
        for name, text in everything(folder)
        for secret in SECRETS
        if secret in folded(unicodedata.normalize("NFC", json_free(text))).text
    ]


def json_free(text: str) -> str:
    """Text with the escapes of JSON and HTML undone."""
    import html
    import re

    return html.unescape(re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text))


def test_the_search_finds_names_where_nothing_is_hidden(tmp_path: Path, store: Store) -> None:
    written(tmp_path / "out", store, Disguise())
    assert {secret for _, secret in leaks(tmp_path / "out")} >= {"ana maria", "jurgen", "zoe", "fifty", "4711"}


def test_no_output_of_a_run_and_of_any_format_holds_a_name(tmp_path: Path, store: Store) -> None:
    out = tmp_path / "out"
    written(out, store, DISGUISE)
    exported = export_folder(out, list(FORMATS), out=out / "forms", store=store.folder, disguise=DISGUISE)
    assert not exported.incomplete and len(exported.files) > 10
    share(out, out / "all.zip", tuple(chosen_parts("words,pages,corrections")))
    assert leaks(out) == []
    page = (out / "P02_P01 1.html").read_text("utf-8")
    assert "names are replaced by pseudonyms" in page and " src=" not in page.split("<video")[1].split(">")[0]


def test_formats_of_a_run_that_hid_nothing_may_hide(tmp_path: Path, store: Store) -> None:
    written(tmp_path / "out", store, Disguise())
    forms = tmp_path / "forms"
    export_folder(tmp_path / "out", list(FORMATS), out=forms, store=store.folder, disguise=DISGUISE)
    assert leaks(forms) == []


def test_words_of_the_store_come_out_hidden_or_not_at_all(tmp_path: Path, store: Store) -> None:
    written(tmp_path / "out", store, DISGUISE)
    with pytest.raises(PrivacyError, match="EMO-514"):
        export_folder(tmp_path / "out", ["eaf"], out=tmp_path / "forms", store=store.folder)
    export_folder(tmp_path / "out", ["srt", "rttm"], out=tmp_path / "forms", store=store.folder)
    assert leaks(tmp_path / "forms") == []


def test_what_is_left_out_of_texts_is_left_out_of_word_lists_without_being_asked_again(
    tmp_path: Path, store: Store
) -> None:
    written(tmp_path / "out", store, Disguise(redacted=("names", "numbers")), tmp_path / "clip.mp4")
    export_folder(tmp_path / "out", ["textgrid", "eaf"], out=tmp_path / "forms", store=store.folder)
    text = (tmp_path / "forms" / "clip.TextGrid").read_text("utf-8")
    assert "[number]" in text and "4711" not in text and "Smith" not in text


def test_texts_and_word_lists_say_the_same_and_times_stay() -> None:
    result = DISGUISE.result(result_of(Path("a.mp4")))
    shown = DISGUISE.words(words(), result)
    said = " ".join("".join(word.text for word in shown).split())
    assert said == " ".join(row.text for row in result.utterances)
    times = {word.start: word for word in words()}
    assert all(word.start in times for word in shown)
    assert all(word == times[word.start] or word.text != times[word.start].text for word in shown)
    assert {word.end for word in shown} <= {word.end for word in words()}


def test_what_is_hidden_once_stays_as_it_is() -> None:
    once = DISGUISE.result(result_of(Path("Ana.mp4")))
    assert DISGUISE.result(once) == once
    assert once.privacy.pseudonyms and once.privacy.redacted == ("names", "numbers")


def test_recordings_that_would_have_one_name_are_refused() -> None:
    with pytest.raises(PrivacyError, match="several recordings"):
        DISGUISE.paths([Path("Ana.mp4"), Path("Ana María.mp4")])


def test_a_folder_with_results_under_real_names_is_refused(tmp_path: Path, store: Store) -> None:
    written(tmp_path / "out", store, Disguise())
    with pytest.raises(PrivacyError, match="do not hide"):
        refuse_mixed(tmp_path / "out", DISGUISE)
    written(tmp_path / "plain", store, Disguise(), tmp_path / "clip.mp4")
    with pytest.raises(PrivacyError, match="do not hide"):
        refuse_mixed(tmp_path / "plain", Disguise(redacted=("numbers",)))
    written(tmp_path / "hidden", store, DISGUISE)
    refuse_mixed(tmp_path / "hidden", DISGUISE)
    refuse_mixed(tmp_path / "new", DISGUISE)


def test_retrying_with_pseudonyms_needs_the_files_and_keeps_what_is_done(tmp_path: Path, store: Store) -> None:
    media = tmp_path / "Ana" / "Jürgen.mp4"
    media.parent.mkdir()
    media.write_bytes(b"x")
    written(tmp_path / "out", store, DISGUISE, media)
    with pytest.raises(OptionConflict, match="does not tell where"):
        find_inputs([], tmp_path / "out", DISGUISE)
    inputs = find_inputs([media], tmp_path / "out", DISGUISE)
    assert list(inputs.kept) == [media] and not inputs.files


def test_pitch_is_that_of_the_blurred_copy() -> None:
    with pytest.raises(OptionConflict, match="--blurred"):
        protection_of({"pitch": -4.0})


# Archives


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_an_archive_holds_no_words_paths_or_media_unless_asked(tmp_path: Path, store: Store) -> None:
    media = tmp_path / "study" / "clip.mp4"
    written(tmp_path / "out", store, Disguise(), media)
    (tmp_path / "out" / "clip.mp4").write_bytes(b"pictures and sound")
    shared = share(tmp_path / "out", tmp_path / "a.zip", ())
    files = members(shared.path)
    assert set(files) == {"clip.json", "clip.csv", "utterances.csv", LISTING}
    assert [file.name for file in shared.files] == [name for name in files if name != LISTING]
    data = b"".join(files.values())
    assert not any(word in data for word in (b"dog", b"Call", b"4711", b"clip.mp4", str(tmp_path).encode(), b"Ask"))
    facts = json.loads(files["clip.json"])
    assert facts["keys"] == {} and all(row["text"] == "" for row in facts["utterances"])
    assert [row["label"] for row in facts["utterances"]] == ["happiness"] * 3


def test_what_is_asked_for_is_in_it_and_is_listed(tmp_path: Path, store: Store) -> None:
    result = written(tmp_path / "out", store, Disguise(), tmp_path / "clip.mp4")
    facts = json.loads((tmp_path / "out" / "clip.json").read_text("utf-8"))
    facts["privacy"] = {"pseudonyms": False, "redacted": [], "media": "clip.blurred.mp4", "pitch": 0.0}
    facts["utterances"][0]["corrections"] = [{"by": "Jürgen", "when": "", "note": "Jürgen says 4711"}]
    (tmp_path / "out" / "clip.json").write_text(json.dumps(facts), "utf-8")
    (tmp_path / "out" / "clip.blurred.mp4").write_bytes(b"blurred")
    shared = share(tmp_path / "out", tmp_path / "a.zip", chosen_parts("words,pages,corrections,blurred"))
    files = members(shared.path)
    assert files["clip.blurred.mp4"] == b"blurred" and b'src="clip.blurred.mp4"' in files["clip.html"]
    assert b"dog" in files["clip.json"] and b"says 4711" in files["clip.json"]
    assert HOSTILE.encode() not in files["clip.html"].split(b"<script type")[0]
    assert result.state == "degraded"
    listing = json.loads(files[LISTING])
    assert {one["name"] for one in listing["files"]} == set(files) - {LISTING}
    without = share(tmp_path / "out", tmp_path / "b.zip", chosen_parts("pages"))
    assert "clip.blurred.mp4" not in members(without.path)
    assert b"src=" not in members(without.path)["clip.html"].split(b"<video")[1].split(b">")[0]


def test_the_same_results_give_the_same_bytes(tmp_path: Path, store: Store) -> None:
    written(tmp_path / "out", store, Disguise(), tmp_path / "clip.mp4")
    first, second = (share(tmp_path / "out", tmp_path / name, ("words", "pages")).path for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()


def test_cells_that_are_formulas_are_text(tmp_path: Path, store: Store) -> None:
    written(tmp_path / "out", store, Disguise(), tmp_path / "clip.mp4")
    table = members(share(tmp_path / "out", tmp_path / "a.zip", ("words",)).path)["clip.csv"].decode()
    assert "'=Zoë() Call" in table and ",=Zoë" not in table


def test_words_that_tell_where_a_recording_lies_are_refused(tmp_path: Path, store: Store) -> None:
    media = tmp_path / "clip.mp4"
    written(tmp_path / "out", store, Disguise(), media)
    facts = json.loads((tmp_path / "out" / "clip.json").read_text("utf-8"))
    facts["utterances"][0]["text"] = f"It is in {media}"
    (tmp_path / "out" / "clip.json").write_text(json.dumps(facts), "utf-8")
    with pytest.raises(PrivacyError, match="tell where a recording lies"):
        share(tmp_path / "out", tmp_path / "a.zip", ("words",))
    assert not (tmp_path / "a.zip").exists()
    share(tmp_path / "out", tmp_path / "a.zip", ())


@pytest.mark.parametrize("name", ["../clip", "/etc/passwd", "a\\..\\b", "..", "CONTENTS"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, store: Store, name: str) -> None:
    written(tmp_path / "out", store, Disguise(), tmp_path / "clip.mp4")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    manifest["inputs"][0]["outputs"] = name
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(OutputError, match="not a name of a file"):
        share(tmp_path / "out", tmp_path / "a.zip", ())


def test_a_copy_that_is_another_file_is_refused(tmp_path: Path, store: Store) -> None:
    written(tmp_path / "out", store, Disguise(), tmp_path / "clip.mp4")
    facts = json.loads((tmp_path / "out" / "clip.json").read_text("utf-8"))
    facts["privacy"] = {"pseudonyms": False, "redacted": [], "media": "../clip.mp4", "pitch": 0.0}
    (tmp_path / "out" / "clip.json").write_text(json.dumps(facts), "utf-8")
    with pytest.raises(PrivacyError, match="blurred copy"):
        share(tmp_path / "out", tmp_path / "a.zip", ("blurred",))
    (tmp_path / "clip.mp4").write_bytes(b"original")
    (tmp_path / "out" / "clip.blurred.mp4").symlink_to(tmp_path / "clip.mp4")
    facts["privacy"]["media"] = "clip.blurred.mp4"
    (tmp_path / "out" / "clip.json").write_text(json.dumps(facts), "utf-8")
    with pytest.raises(PrivacyError, match="blurred copy"):
        share(tmp_path / "out", tmp_path / "a.zip", ("blurred",))


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="words, corrections, pages, blurred"):
        chosen_parts("words,videos")


def test_a_page_never_links_to_a_recording_with_a_name(tmp_path: Path, store: Store) -> None:
    shown = written(tmp_path / "out", store, replace(DISGUISE, redacted=()), tmp_path / "plain.mp4")
    assert shown.privacy.media is None
    hidden = written(tmp_path / "other", store, replace(DISGUISE, redacted=()), tmp_path / "Ana.mp4")
    assert hidden.privacy.media == ""


def test_the_copy_that_pages_play_is_that_of_emopipe_blur(tmp_path: Path, store: Store) -> None:
    media, events = recording(tmp_path / "clip.mp4"), list[Event]()
    protected = protection_of({"blurred": True, "blur_margin": 0.8, "blur_hold": 0.5})
    sink = Sink(tmp_path / "out", [media], "c0ffee", "1.0", {}, store)
    shown = protected.copy(result_of(media), media, sink, store, events.append)
    blur_result(media, tmp_path / "own.mp4", KEYS["face"], store, BlurSettings(margin=0.8, hold=0.5))
    assert (tmp_path / "out" / str(shown.privacy.media)).read_bytes() == (tmp_path / "own.mp4").read_bytes()
    assert protection_of({"blurred": True}).blur == BlurSettings()
    assert "no face is known: look at these" in events[-1].message
    with pytest.raises(ConfigError, match="out of bounds"):
        protection_of({"blurred": True, "blur_margin": 9.0})


def test_a_folder_whose_results_hide_more_is_refused(tmp_path: Path, store: Store) -> None:
    written(tmp_path / "hidden", store, DISGUISE)
    for less in (Disguise(), Disguise(redacted=("names",))):
        with pytest.raises(PrivacyError, match="hide more"):
            refuse_mixed(tmp_path / "hidden", less)
    written(tmp_path / "plain", store, Disguise())
    refuse_mixed(tmp_path / "plain", Disguise())


def test_participants_of_hidden_results_need_the_pseudonyms(tmp_path: Path, store: Store) -> None:
    result = written(tmp_path / "hidden", store, DISGUISE)
    hidden, name = result.people[0].name, "Ana María"
    key, table = tmp_path / "key.csv", tmp_path / "participants.csv"
    key.write_text("name,pseudonym\nAna María,P01\nAna,P01\nJürgen,P02\n", "utf-8")
    table.write_text(f"person,group\n{name},{name}'s\n", "utf-8")
    with pytest.raises(PrivacyError, match="line 2"):
        participants_of_run(table, tmp_path / "hidden", None)
    read = participants_of_run(table, tmp_path / "hidden", key)
    assert read is not None and [(row.person, row.groups["group"]) for row in read.rows] == [(hidden, f"{hidden}'s")]
    table.write_text(f"person,group\n{name},x\nAna,x\n", "utf-8")  # who have one pseudonym, as in the run itself
    read = participants_of_run(table, tmp_path / "hidden", key)
    assert read is not None and [row.person for row in read.rows] == [hidden, hidden]
    table.write_text(f"person,group\n{hidden},x\n", "utf-8")
    read = participants_of_run(table, tmp_path / "hidden", None)
    assert read is not None and read.rows[0].person == hidden
