from __future__ import annotations

import dataclasses
import json

import pytest
from jsonschema import Draft202012Validator

from app.study.definition import AB, ABX, KINDS, MUSHRA, Checks, Codes, Plan, Study, Texts, json_schema
from app.study.errors import DefinitionError
from tests.app.study.studies import make_study

SCHEMA = Draft202012Validator(json_schema())


def changed(study: Study, path: str, value) -> str:
    """The study's JSON with one field set; "clips.0.sha256" goes into lists by number."""
    whole = json.loads(study.to_json())
    *way, last = path.split(".")
    inner = whole
    for step in way:
        inner = inner[int(step)] if step.isdigit() else inner[step]
    inner[int(last) if last.isdigit() else last] = value
    return json.dumps(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_goes_through_its_file_and_fits_the_schema(kind):
    study, _ = make_study(kind, with_checks=True)
    assert Study.from_json(study.to_json()) == study
    SCHEMA.validate(json.loads(study.to_json()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "taste"),
        ("seed", -1),
        ("format", 2),
        ("surprise", 1),
        ("id", "../../etc"),
        ("clips.0.id", "a/b"),
        ("clips.0.sha256", "short"),
        ("clips.0.num_samples", 0),
        ("clips.0.origin", {"seed": 3}),
        ("clips.0.loudness_lufs", "loud"),
        ("trials.0.role", "bait"),
        ("plan.target_sessions", 0),
        ("plan.idle_minutes", 0.5),
        ("checks.must_play", 1.5),
        ("texts.title", "x" * 201),
        ("codes.complete", "a code with spaces"),
    ],
)
def test_what_the_loader_refuses_the_schema_refuses_too(path, value):
    study, _ = make_study()
    text = changed(study, path, value)
    with pytest.raises(DefinitionError):
        Study.from_json(text)
    assert not SCHEMA.is_valid(json.loads(text))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("trials.0.clips", ["nothing"], "unknown clips nothing"),
        ("trials.0.clips", [], "has 0 clips"),
        ("trials.1.id", "t000", "trial id twice: t000"),
        ("conditions", ["original"], "conditions must name"),
        ("texts.labels", ["one label"], "labels do not fit"),
        ("allow_tie", True, "only ab allows a tie"),
        ("checks.headphone_pass", 3, "more than 0 trials"),
        ("codes.redirect", "http://example.org/{code}", "must be an https address"),
        ("codes.redirect", "https://example.org/", r"must contain \{code\}"),
        ("trials", [], "no scored trial"),
    ],
)
def test_contradictions_are_named(path, value, message):
    study, _ = make_study()
    with pytest.raises(DefinitionError, match=message):
        Study.from_json(changed(study, path, value))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"id": NaN}', "[" * 100_000, b"\xff\xfe"])
def test_what_is_no_study_file_is_refused(text):
    with pytest.raises(DefinitionError):
        Study.from_json(text)


def test_trials_need_what_their_kind_needs():
    for kind, what in (
        (AB, "has 1 clips, not 2..2"),
        (ABX, "has 1 clips, not 4..4"),
        (MUSHRA, "has 1 clips, not 3..12"),
    ):
        study, _ = make_study(kind)
        with pytest.raises(DefinitionError, match=what):
            Study.from_json(changed(study, "trials.0.clips", [study.clips[0].id]))
    study, _ = make_study(MUSHRA)
    with pytest.raises(DefinitionError, match="no reference"):
        Study.from_json(changed(study, "trials.0.reference", ""))


def test_every_field_of_the_file_is_in_the_schema_with_its_limits():
    definitions = json_schema()["$defs"]
    for owner in (Study, Texts, Checks, Plan, Codes):
        assert set(definitions[owner.__name__]["properties"]) == {one.name for one in dataclasses.fields(owner)}
    assert definitions["Checks"]["properties"]["must_play"] == {"type": "number", "minimum": 0.0, "maximum": 1.0}


def test_labels_are_worded_by_the_study():
    study, _ = make_study()
    worded = dataclasses.replace(study, texts=Texts(labels=("Real", "Fake")))
    assert worded.options() == (("original", "Real"), ("generated", "Fake"))
    tied, _ = make_study(AB)
    assert dataclasses.replace(tied, allow_tie=True).options()[-1] == ("tie", "No difference")


def test_a_study_can_be_written_by_hand():
    """The least that makes one."""
    least = {
        "id": "by-hand",
        "kind": "mos",
        "seed": 1,
        "conditions": ["only"],
        "clips": [
            {
                "id": "a",
                "sha256": "0" * 64,
                "item": "one",
                "condition": "only",
                "num_samples": 16000,
                "loudness_lufs": -23.0,
            }
        ],
        "trials": [{"id": "t", "clips": ["a"]}],
    }
    SCHEMA.validate(least)
    assert Study.from_json(json.dumps(least)).plan == Plan()
