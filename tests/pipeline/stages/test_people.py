"""Who is who: names, roles, faces of utterances, and features relative to a person's calm."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from emopipe.errors import ConfigError, EmopipeError, FeatureMismatch
from emopipe.extractors.contracts import Span, Turn
from emopipe.extractors.face.table import face_table
from emopipe.extractors.speech.attribution import with_only_speaker
from emopipe.extractors.speech.speaker_identification import match_voices
from emopipe.extractors.windows import FeatureSequence
from emopipe.models.predictor import Predictor, Spec
from emopipe.options import enrolments
from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.backends.speakers import check
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.config import ExtractionConfig, PeopleConfig
from emopipe.pipeline.datasets.person_normalization import normalise_dataset
from emopipe.pipeline.datasets.writing import FeatureWriter
from emopipe.pipeline.execution.jobs import extraction_overrides, portable
from emopipe.pipeline.records import Absent, Person
from emopipe.pipeline.stages.face import SpeakerFaceInputs, slice_face
from emopipe.pipeline.stages.interview_roles import find_subject, question_shares
from emopipe.pipeline.stages.people import face_tracks_of, find_people
from emopipe.pipeline.stages.person_normalization import (
    BaselineInputs,
    NormalizedInputs,
    find_baselines,
    normalized,
    normalized_absence,
)
from emopipe.pipeline.stages.stage import Context
from emopipe.pipeline.store.serialization import in_memory
from tests.conftest import SAMPLES

NAMES = {0: "S1", 1: "S2"}


def context(config: ExtractionConfig, backends: Any = None) -> Context:
    return Context(config, backends, lambda event: None)


# Roles


def test_whoever_talks_much_and_asks_little_is_interviewed() -> None:
    spans = [Span(0, 9, "And then? How did you feel? What next?", person=0), Span(9, 17, "I ran. I hid.", person=1)]
    assert find_subject(NAMES, {0: 9.0, 1: 8.0}, spans, "") == (1, "")
    assert find_subject(NAMES, {0: 3.0, 1: 20.0}, [], "") == (1, "")
    assert find_subject({}, {}, [], "") == (None, "")


@pytest.mark.parametrize(("wanted", "number"), [("longest", 0), ("1", 0), ("2", 1), ("S2", 1), ("anna", 0)])
def test_a_wish_for_the_subject_is_kept(wanted: str, number: int) -> None:
    names = {0: "anna", 1: "S2"}
    assert find_subject(names, {0: 9.0, 1: 8.0}, [], wanted) == (number, "")


@pytest.mark.parametrize("wanted", ["carla", "3"])
def test_a_subject_who_is_not_there_is_noted_and_decided_as_usual(wanted: str) -> None:
    number, unfulfilled = find_subject(NAMES, {0: 2.0, 1: 8.0}, [], wanted)
    assert number == 1 and wanted in unfulfilled and "S1, S2" in unfulfilled


def test_questions_are_counted_by_sentence_in_any_script() -> None:
    spans = [
        Span(0, 1, "Well. Are you sure? Really?", person=0),
        Span(1, 2, "是的。你呢？", person=1),
        Span(2, 3, "", person=2),
    ]
    assert question_shares(spans) == {0: pytest.approx(2 / 3), 1: 0.5}


# Names


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Τι κάνεις; Καλά.", 0.5),
        ("Τι κάνεις\u037e", 1.0),
        ("كيف حالك؟ بخير.", 0.5),
        ("你好嗎？很好。", 0.5),
        ("እንዴት ነህ፧ ደህና።", 0.5),
        ("Ինչպե՞ս եք։ Լավ։", 0.5),
        ("आप कैसे हैं? मैं ठीक हूँ। अच्छा।", 1 / 3),
        ("I came; I saw.", 0.0),
    ],
)
def test_question_marks_of_other_scripts_ask(text: str, share: float) -> None:
    assert question_shares([Span(0, 1, text, person=0)]) == {0: pytest.approx(share)}


def test_enrolled_voices_are_matched_one_to_one_and_strangers_left_out() -> None:
    axes = np.eye(4)
    heard = {0: axes[0], 1: 0.9 * axes[1] + 0.43 * axes[0], 2: axes[3]}
    assert match_voices(heard, {"ben": axes[1], "anna": axes[0], "carla": axes[2]}, 0.75) == {0: "anna", 1: "ben"}
    assert match_voices({0: None}, {"anna": axes[0]}, 0.75) == {} == match_voices({}, {"anna": axes[0]}, 0.75)


def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(bytes(range(256)))
    for config, code in (
        (PeopleConfig(subject="anna"), "EMO-503"),
        (PeopleConfig(enrol={"anna": str(tmp_path / "none.mp4")}), "EMO-101"),
        (PeopleConfig(baseline=str(tmp_path / "none.mp4")), "EMO-101"),
        (PeopleConfig(enrol={"anna": str(noise)}), "EMO-108"),
        (PeopleConfig(baseline=str(noise)), "EMO-108"),
    ):
        with pytest.raises(EmopipeError) as caught:
            check(config)
        assert caught.value.code == code
    clip = SAMPLES / "happy.mp4"
    check(PeopleConfig(subject="anna", enrol={"anna": str(clip)}, baseline=str(clip)))
    check(PeopleConfig(subject="longest"))


def test_enrolments_on_the_command_line_need_a_name_and_a_clip(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(SAMPLES / "happy.mp4"), "--enrol", "anna", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "EMO-503" in result.output and "NAME=CLIP" in result.output


# Faces of utterances


PEOPLE = [Person(0, "S1", "interviewer"), Person(1, "S2", "interviewee", (0, 2))]


def test_an_utterance_has_its_speakers_faces() -> None:
    assert face_tracks_of(Span(0, 1, person=1), PEOPLE, 7) == (0, 2)
    assert face_tracks_of(Span(0, 1, person=0), PEOPLE, 7) == ()
    assert face_tracks_of(Span(0, 1), PEOPLE, 7) == (0, 2)
    assert face_tracks_of(Span(0, 1), [], 7) == (7,) and face_tracks_of(Span(0, 1), [], None) == ()


def test_spans_of_a_lone_speakers_clip_are_theirs_where_they_speak() -> None:
    spans = [Span(0, 2), Span(2, 4)]
    assert [s.person for s in with_only_speaker(spans, [Turn(0.5, 1.5, 0)])] == [0, None]
    assert with_only_speaker(spans, [Turn(0, 1, 0), Turn(1, 2, 1)]) == spans


def test_a_face_that_is_not_the_speakers_is_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Track 0 is S2's and in view for 10 s, then a stranger's for 10 s, then nobody's."""
    from emopipe.extractors.face.mediapipe import MEASURED

    filled = dict.fromkeys(sorted(MEASURED), 0.5)
    rows = [{"time": t / 5, "track": 0 if t < 50 else 1, "quality": 1.0, **filled} for t in range(100)]
    spans = [Span(0, 5, person=1), Span(5, 9, person=0), Span(12, 18, person=1), Span(22, 28, person=1)]
    values = {
        "face_table": face_table(rows, backend="test", version="0", frames=150),  # type: ignore[arg-type]
        "spans": spans,
        "people": [PEOPLE[0], dataclasses.replace(PEOPLE[1], tracks=(0,))],
        "face_measured": sorted(MEASURED),
        "duration": 30.0,
    }
    found = slice_face(SpeakerFaceInputs(values.__getitem__), context(ExtractionConfig()))
    assert isinstance(found.face[0], FeatureSequence) and found.face_quality[0] == pytest.approx(1.0)
    reasons = [face.reason for face in found.face[1:] if isinstance(face, Absent)]
    assert reasons == ["speaker_not_seen", "other_face", "no_face"]
    assert found.face_quality[1:] == [0.0, 0.0, 0.0]


# Baselines


def steps(rows: Any) -> FeatureSequence:
    values = np.array(rows, np.float32)
    return FeatureSequence(np.arange(len(values)), np.arange(len(values)) + 1.0, values)


VOICE = ["pitch_mean", "pitch_std", "centroid_mean"]


def said(level: float) -> dict[str, FeatureSequence]:
    """Two steps of voice and one of face; a greater level is more excited."""
    return {"voice": steps([[100 + level, 10 + level, 50 + level]] * 2), "face": steps([[0.5 + level, 0.1]])}


def clip_of(levels: list[tuple[int, float]], *shown: int, reference: Any = None) -> dict[str, Any]:
    """The values of a clip in which people speak at these levels, with their baselines."""
    config = ExtractionConfig.from_dict({"people": {"baseline": "clip.mp4" if shown else "person"}})
    backends: Any = SimpleNamespace(feature_names=lambda wanted: {"voice": VOICE} if wanted else {})
    values: dict[str, Any] = {
        "labelled": False,
        "spans": [Span(index, index + 1, person=number) for index, (number, _) in enumerate(levels)],
        "people": [
            Person(number, f"S{number + 1}", reference=number in shown) for number in sorted({n for n, _ in levels})
        ],
        "text": [Absent("not_requested")] * len(levels),
        "reference": lambda: reference,
        **{name: [said(level)[name] for _, level in levels] for name in ("voice", "face")},
    }
    found = find_baselines(BaselineInputs(values.__getitem__), context(config, backends))
    return values | in_memory({"baselines": found.baselines})


def normalized_of(values: dict[str, Any], modality: str, index: int) -> Any:
    return normalized(NormalizedInputs(values.__getitem__), modality, index)


def firsts(values: dict[str, Any], modality: str) -> list[float]:
    """The first feature of each utterance."""
    return [float(normalized_of(values, modality, index).features[0, 0]) for index in range(len(values["spans"]))]


def test_features_become_differences_from_the_persons_calm() -> None:
    levels = [(0, level) for level in (0, 9, 0, 9, 0, 9)] + [(1, level) for level in (50, 70, 50, 70)]
    values = clip_of(levels)
    assert firsts(values, "voice") == firsts(values, "face") == [0, 9, 0, 9, 0, 9, 0, 20, 0, 20]
    assert (
        normalized_of(values, "text", 0)
        == Absent("not_requested")
        == Absent(normalized_absence(NormalizedInputs(values.__getitem__), "text", 0))
    )
    assert values["voice"][1].features[0, 0] == 109, "what was measured is left as it is"


def test_who_speaks_too_little_for_a_baseline_has_no_features_that_need_one() -> None:
    values = clip_of([(0, 0), (0, 5)])
    for modality in ("voice", "face"):
        assert normalized_of(values, modality, 1) == Absent("no_baseline")
        assert normalized_absence(NormalizedInputs(values.__getitem__), modality, 1) == "no_baseline"


def test_a_baseline_clip_serves_the_person_it_shows() -> None:
    reference = {"voice": np.array([90.0, 0.0, 0.0]), "face": None}
    values = clip_of([(0, 10), *[(1, level) for level in (0, 0, 0, 30)]], 0, reference=reference)
    assert normalized_of(values, "voice", 0).features[0].tolist() == [20, 20, 60]
    assert normalized_of(values, "face", 0) == Absent("no_baseline")
    assert firsts(values, "voice")[4] == 30


def test_a_datasets_rows_become_differences_from_their_speakers_calm(tmp_path: Path) -> None:
    levels = {"anna": [0, 0, 8, 8], "ben": [40, 40, 60, 60], "carla": [5]}
    manifest: list[dict[str, Any]] = []
    with FeatureWriter(tmp_path, "voice", VOICE) as writer:
        for speaker, own in levels.items():
            for number, level in enumerate(own):
                key = f"{speaker}{number}"
                writer.add(key, said(level)["voice"])
                row = {"id": key, "media": None, "speaker": speaker}
                manifest.append({**row, "voice": key, "voice_absent": None, "voice_quality": 1.0})
    before = pq.read_table(tmp_path / "voice.parquet")
    normalise_dataset(tmp_path, manifest, {"voice": VOICE}, None)
    after = pq.read_table(tmp_path / "voice.parquet")
    assert after.schema.equals(before.schema, check_metadata=True)
    first = {key: row[0] for key, row in zip(after["key"].to_pylist(), after["features"].to_pylist(), strict=True)}
    assert first == {"anna0": 0, "anna1": 0, "anna2": 8, "anna3": 8, "ben0": 0, "ben1": 0, "ben2": 20, "ben3": 20}
    assert manifest[-1] == {
        "id": "carla0", "media": None, "speaker": "carla", "voice": None, "voice_absent": "no_baseline",
        "voice_quality": None,
    }  # fmt: skip


def sealed(baseline: str) -> dict[str, Any]:
    return ExtractionConfig.from_dict({"people": {"baseline": baseline}}).as_dict()


def test_a_checkpoint_refuses_features_with_another_use_of_the_baseline() -> None:
    schema = {"voice": ("a", "b"), "text": ("c",)}
    for trained, offered, refused in (
        ("none", "person", True),
        ("person", "none", True),
        ("person", "calm.mp4", False),
    ):
        spec = Spec("early", {}, "classification", "label", ("x", "y"), schema, sealed(trained))
        predictor: Any = SimpleNamespace(spec=spec)
        if not refused:
            Predictor.check_features(predictor, schema, sealed(offered))
            continue
        with pytest.raises(FeatureMismatch, match=r"voice: trained on features .* baseline, offered .* baseline"):
            Predictor.check_features(predictor, schema, sealed(offered))


def test_an_older_checkpoint_without_people_was_trained_without_a_baseline() -> None:
    old = {name: table for name, table in sealed("none").items() if name != "people"}
    spec = Spec("early", {}, "classification", "label", ("x", "y"), {"voice": ("a",)}, old)
    predictor: Any = SimpleNamespace(spec=spec)
    Predictor.check_features(predictor, {"voice": ("a",)}, sealed("none"))
    with pytest.raises(FeatureMismatch, match="baseline"):
        Predictor.check_features(predictor, {"voice": ("a",)}, sealed("person"))


def test_who_was_enrolled_in_training_is_not_looked_for_in_other_recordings() -> None:
    trained = PeopleConfig(enrol={"anna": "anna.mp4"}, subject="anna", count=2, baseline="calm.mp4", diarizer="none")
    kept = portable({"people": dataclasses.asdict(trained)})["people"]
    assert not {"enrol", "subject", "count"} & kept.keys()
    assert kept["baseline"] == "person" and kept["diarizer"] == "none"


def test_enrolment_loads_the_speaker_encoder_of_the_chosen_diarizer(weight: Callable[[str], Path]) -> None:
    for name in ("silero-vad", "campplus"):
        weight(name)
    people = PeopleConfig(enrol={"eileen": str(SAMPLES / "interview.mp4")})
    with Backends(ExtractionConfig(people=people), device="cpu", offline=True) as backends:
        assert [voice.shape for voice in backends.enrolled.values()] == [(192,)]


# From file to files


@pytest.fixture(scope="session")
def run(weight: Callable[[str], Path]) -> Callable[..., dict[str, Any]]:
    """Predict a sample with some options; returns its document."""
    for name in ("face-landmarker", "whisper-base", "minilm-l6-emotion", "silero-vad", "campplus"):
        weight(name)

    def run_sample(out: Path, name: str, *options: str) -> dict[str, Any]:
        clip = str(SAMPLES / f"{name}.mp4")
        result = CliRunner().invoke(app, ["run", clip, "--out", str(out), "--offline", *options])
        assert result.exit_code == 0, result.output
        document: dict[str, Any] = json.loads((out / f"{name}.json").read_text("utf-8"))
        return document

    return run_sample


@pytest.mark.slow
def test_the_sample_conversation_comes_out_as_it_was_made(run: Callable[..., Any], tmp_path: Path) -> None:
    """Every line has its speaker, role and own face; the truth lies beside the sample."""
    facts = run(tmp_path, "conversation", "--enrol", f"eileen={SAMPLES / 'interview.mp4'}")
    with (SAMPLES / "turns.csv").open(encoding="utf-8") as file:
        truth = [(float(row["start"]), float(row["end"]), row["role"]) for row in csv.DictReader(file)]
    assert facts["state"] == "ok"
    interviewer, interviewee = facts["people"]
    assert (interviewer["name"], interviewer["role"]) == ("S1", "interviewer")
    assert (interviewee["name"], interviewee["role"]) == ("eileen", "interviewee")
    assert interviewer["tracks"] and interviewee["tracks"] and interviewer["tracks"] != interviewee["tracks"]
    rows = facts["utterances"]
    assert len(rows) >= len(truth)
    for row in rows:
        middle = (row["start"] + row["end"]) / 2
        role = next(role for start, end, role in truth if start - 0.3 < middle < end + 0.3)
        assert row["role"] == role and row["speaker"] == {"interviewer": "S1", "interviewee": "eileen"}[role]
        assert not row["absent"] or row["absent"] == {"face": "other_face"}
    assert sum(not row["absent"] for row in rows) >= 0.8 * len(rows)
    for start, end, role in truth:
        person = interviewer if role == "interviewer" else interviewee
        own = [t for t in facts["turns"] if t["person"] == person["number"]]
        heard = sum(max(0, min(t["end"], end) - max(t["start"], start)) for t in own)
        assert heard > 0.85 * (end - start)


@pytest.mark.slow
def test_a_lone_speaker_is_predicted_as_if_nobody_had_asked_who_speaks(run: Callable[..., Any], tmp_path: Path) -> None:
    asked = run(tmp_path / "asked", "interview")
    unasked = run(tmp_path / "unasked", "interview", "--diarizer", "none")
    assert asked["people"] == unasked["people"] and len(asked["people"]) == 1
    assert asked["utterances"] == unasked["utterances"]
    assert {(row["speaker"], row["role"]) for row in asked["utterances"]} == {("S1", None)}


@pytest.mark.parametrize(
    ("told", "known", "names", "interviewed", "wish"),
    [
        ("anna", {}, ["S1", "anna"], 1, "anna"),
        ("anna", {1: "ben"}, ["anna", "ben"], 0, "anna"),
        ("anna", {1: "ben"}, ["anna", "ben"], 1, "ben"),
        ("anna", {}, ["S1", "anna"], 1, ""),
        ("anna", {1: "ben"}, ["anna", "ben"], 0, ""),  # ben seems to be interviewed, but the table says that anna is
        ("anna", {0: "anna"}, ["anna", "S2"], 0, ""),
        ("anna", {0: "carl", 1: "ben"}, ["carl", "ben"], 1, ""),
        (None, {1: "ben"}, ["S1", "ben"], 1, ""),
    ],
)
def test_who_a_table_names_is_interviewed(
    told: str | None, known: dict[int, str], names: list[str], interviewed: int, wish: str
) -> None:
    inputs: Any = SimpleNamespace(
        turns=[Turn(0, 3, 0), Turn(3, 12, 1)],
        spans=[Span(0, 3, "How was it?", person=0), Span(3, 12, "It was good.", person=1)],
        face_table=Absent("not_requested"),
        known=list(known.items()),
        shown=None,
        unheard=[],
        people_doubt="",
        speaker=told,
    )
    found = find_people(inputs, context(ExtractionConfig(people=PeopleConfig(subject=wish))))
    assert [person.name for person in found.people] == names
    assert [person.role == "interviewee" for person in found.people].index(True) == interviewed
    assert bool(found.people_warnings) == (told is not None and told not in names)


def test_people_cannot_be_enrolled_under_the_names_of_unknown_ones_nor_be_several_without_a_diarizer() -> None:
    with pytest.raises(ConfigError, match="S2"):
        ExtractionConfig.from_dict({"people": {"enrol": {"S2": "b.wav"}}})
    with pytest.raises(ConfigError, match="diarizer"):
        extraction_overrides({"people": 3, "diarizer": "none"})


def test_an_enrolled_name_has_one_clip() -> None:
    with pytest.raises(ConfigError, match="twice"):
        enrolments(["anna=a.wav", "anna=b.wav"])
