from __future__ import annotations

import csv
import io
import json
import re
import secrets
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from app.study.analysis import WITHOUT_MID_ANCHOR, analyse, ratings_of
from app.study.definition import AB, ABX, HUMAN_AGAINST_DETECTOR, MOS, MUSHRA, SCORED, Checks, Plan
from app.study.dictionary import COLUMNS
from app.study.export import export_files, export_zip, safe_cell
from app.study.methods import methods
from tests.app.study.studies import MID, make_study, payload, take_part


def run(store, study, choose, people=6):
    """`choose(clip or None, view, dice)` answers main trials; returns the records."""
    store.create_study(study)
    dice = np.random.default_rng(0)
    for number in range(people):
        token = store.consent(study.id, {"PROLIFIC_PID": f"person {number}"}, agreed=True).token
        while (view := store.next_trial(token)) is not None:
            clips = [study.clip(store.clip(token, clip.handle)[1]) for clip in view.clips]
            given = payload(view) | ({} if view.phase == "comment" else choose(clips, view, dice))
            store.answer(token, view.key, given, secrets.token_hex(8))
        store.finish(token)
    return store.results(study.id)


def guess(clips, view, dice):
    return {"value": view.options[dice.integers(len(view.options))].value}


def test_rates_and_tests_are_those_of_the_answers(store):
    study, _ = make_study(items=10)
    records = run(store, study, guess, people=8)
    results = analyse(records)
    right = [answer.correct for answer in records.answers if answer.role == "scored"]
    successes, n = sum(right), len(right)
    assert n == 80
    figure = results.figure("correct")
    assert (figure.value, figure.n) == (successes / n, n)
    exact = results.figure("correct, exact")
    assert (exact.low, exact.high) == pytest.approx(tuple(stats.binomtest(successes, n).proportion_ci()), abs=1e-9)
    tests = {test.name: test for test in results.tests}
    assert tests["exact binomial, two-sided"].p_value == pytest.approx(stats.binomtest(successes, n).pvalue, abs=1e-9)
    assert set(tests) >= {
        "equivalence, margin 5 points",
        "clustered, two-sided",
        "clustered equivalence, margin 5 points",
    }
    assert results.paper.value == 0.512
    assert {row.n for row in results.raters} == {10}
    assert sum(row.n for row in results.clips) == n
    assert results.figure("mixed effects").n == n


def test_who_fails_a_check_is_left_out_and_shown(store):
    study, _ = make_study(items=4, with_checks=True, checks=Checks(must_play=0.0))

    def choose(clips, view, dice):
        if clips[0].id == trap:
            return {"value": "beeps" if view.number % 2 else "original"}
        return guess(clips, view, dice) if not view.instruction else {"value": "original"}

    trap = next(trial.clips[0] for trial in study.trials if trial.role == "trap")
    records = run(store, study, choose, people=10)
    failed = [session.id for session in records.sessions if session.failed_checks]
    assert 0 < len(failed) < 10
    results = analyse(records, with_mixed=False)
    assert results.counts.excluded == len(failed)
    assert results.counts.ratings == 4 * (10 - len(failed)) - sum(
        answer.value == "beeps" and answer.role == "scored" and answer.session not in failed
        for answer in records.answers
    )
    assert {row.name for row in results.raters if row.excluded == "failed checks"} == set(failed)


def test_a_preference_counts_for_its_condition_on_either_side(store):
    study, _ = make_study(AB, items=6)

    def choose(clips, view, dice):
        return {"value": "first" if clips[0].condition == "one" else "second"}

    results = analyse(run(store, study, choose), with_mixed=False)
    assert results.figure("one preferred").value == 1.0
    assert results.figure("first of the two chosen").value == 0.5  # sides are balanced


def test_ties_are_no_ratings_and_are_told_of(store):
    study, _ = make_study(AB, items=4)
    study = replace(study, allow_tie=True)
    records = run(store, study, lambda clips, view, dice: {"value": str(dice.choice(["first", "second", "tie"]))})
    results = analyse(records, with_mixed=False)
    ties = sum(answer.value == "tie" for answer in records.answers)
    assert ties > 0
    assert results.counts.ratings == sum(answer.role == SCORED for answer in records.answers) - ties
    assert f"Answers that are no ratings, since they found no difference: {ties}." in results.notes


def test_hearing_the_difference_is_scored_in_abx(store):
    study, _ = make_study(ABX, items=4)

    def choose(clips, view, dice):
        a, _, x = clips
        return {"value": "a" if x.condition == a.condition else "b"}

    assert analyse(run(store, study, choose), with_mixed=False).figure("correct").value == 1.0


def test_mean_opinions_and_their_differences(store):
    study, _ = make_study(MOS, items=6, plan=Plan(one_version=False))
    means = {"plain": 5, "coded": 3, "made": 2}

    def choose(clips, view, dice):
        return {"value": str(means[clips[0].condition])}

    results = analyse(run(store, study, choose), with_mixed=False)
    assert {row.name: row.value for row in results.conditions} == means
    difference = results.figure("made minus plain")
    assert (difference.value, difference.low, difference.high) == (-3.0, -3.0, -3.0)
    assert not results.tests


def test_mushra_listeners_who_miss_the_reference_are_left_out(store):
    study, _ = make_study(MUSHRA, items=4)

    def choose(clips, view, dice):
        deaf = view.key < "8"  # whoever it is, for this trial
        scores = {"hidden reference": 40.0 if deaf else 100.0, MID: 60.0, "coded": 30.0}
        return {"scores": [scores[clip.condition] for clip in clips]}

    records = run(store, study, choose)
    results = analyse(records, with_mixed=False)
    missed = {one.rater for one in ratings_of(records) if one.condition == "hidden reference" and one.value < 90}
    shown = {row.name for row in results.raters if "hidden reference under 90" in row.excluded}
    assert shown == missed
    assert results.counts.excluded == len(missed)
    assert missed
    rows = table(export_files(records)["sessions.csv"])
    assert {row["id"]: row["excluded"] for row in rows} == {row.name: row.excluded for row in results.raters}


@pytest.mark.parametrize(("rate_hz", "left_out"), [(48_000, 6), (16_000, 0)])
def test_the_mid_anchor_judges_listeners_where_it_can_be_heard_only(store, rate_hz, left_out):
    """With clips that end at 8 kHz themselves, who finds nothing wrong with an anchor of 7 kHz may well be right."""
    study, _ = make_study(MUSHRA, items=4)
    study = replace(study, clips=tuple(replace(clip, sample_rate_hz=rate_hz) for clip in study.clips))
    scores = {"hidden reference": 100.0, MID: 95.0, "coded": 30.0}
    records = run(store, study, lambda clips, view, dice: {"scores": [scores[clip.condition] for clip in clips]})
    results = analyse(records, with_mixed=False)
    assert results.counts.excluded == left_out
    assert (WITHOUT_MID_ANCHOR in results.notes) == (left_out == 0)
    assert ("rule on the mid anchor was not applied" in methods(records, results)) == (left_out == 0)


def test_listeners_are_held_against_the_detector_on_the_same_clips(store):
    study, _ = make_study(HUMAN_AGAINST_DETECTOR, items=6)
    results = analyse(run(store, study, lambda clips, view, dice: {"value": clips[0].truth}), with_mixed=False)
    assert results.figure("detector correct").value == 0.5  # it calls everything generated
    assert results.figure("listeners minus detector").value == 0.5


@pytest.mark.parametrize("kind", ["real_or_synthetic", AB, MOS, MUSHRA])
def test_a_study_without_answers_has_results(store, kind):
    study, _ = make_study(kind)
    store.create_study(study)
    records = store.results(study.id)
    results = analyse(records)
    assert (results.figures, results.counts.complete, results.counts.ratings) == ((), 0, 0)
    assert "no ratings yet" in methods(records, results)
    json.dumps(results.to_dict(), allow_nan=False)
    assert export_zip(records)


# export

HOSTILE = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "＝1",
    '=HYPERLINK("http://x","y")',
    "=cmd|' /C calc'!A0",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_a_formula(text):
    assert safe_cell(text) == f"'{text}"
    assert safe_cell("harmless = 1") == "harmless = 1"
    assert safe_cell(-1.5) == -1.5


def test_hostile_comments_and_ids_come_out_as_text(store):
    study, _ = make_study(items=2)
    store.create_study(study)
    for number, text in enumerate(HOSTILE):
        token = store.consent(study.id, {"participant": f"={number}"}, agreed=True).token
        while (view := store.next_trial(token)) is not None:
            given = payload(view) | ({"text": text} if view.phase == "comment" else {})
            store.answer(token, view.key, given, secrets.token_hex(8))
    files = export_files(store.results(study.id), with_ids=True)
    cells = [cell for name in files if name.endswith(".csv") for row in table(files[name]) for cell in row.values()]
    assert len(cells) > 300
    assert [cell for cell in cells if re.match(r"\s*[=+@＝＋－＠]|\s*-[^0-9]", cell)] == []
    kept = [one["value"] for one in json.loads(files["results.json"])["answers"] if one["role"] == "comment"]
    assert sorted(kept) == sorted(text.replace("\r", "").strip() for text in HOSTILE)


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_every_column_is_in_the_dictionary_and_nothing_else(store):
    study, _ = make_study(with_checks=True, checks=Checks(must_play=0.0))
    records = run(store, study, guess, people=2)
    files = export_files(records, with_ids=True)
    for name, columns in COLUMNS.items():
        rows = table(files[f"{name}.csv"])
        assert list(rows[0]) == [column for column, _ in columns]
        filled = {column for row in rows for column, cell in row.items() if cell}
        assert len(filled) >= 10
    whole = json.loads(files["results.json"])
    assert set(whole["answers"][0]) == {column for column, _ in COLUMNS["answers"]}
    assert set(whole["sessions"][0]) == {column for column, _ in COLUMNS["sessions"]}
    described = {(row["table"], row["column"]) for row in table(files["dictionary.csv"])}
    assert described == {(name, column) for name, columns in COLUMNS.items() for column, _ in columns}


def test_the_platforms_ids_are_exported_only_where_asked_for(store):
    study, _ = make_study(items=2)
    store.create_study(study)
    take_part(store, study, "the-platform-knows-me")
    records = store.results(study.id)
    for content in export_files(records).values():
        assert b"the-platform-knows-me" not in content
    assert b"the-platform-knows-me" in export_files(records, with_ids=True)["sessions.csv"]


def test_the_archive_holds_the_files(store):
    study, _ = make_study(items=2)
    records = run(store, study, guess, people=2)
    with zipfile.ZipFile(io.BytesIO(export_zip(records))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == export_files(records)


def test_every_number_of_the_methods_paragraph_is_from_the_data(store):
    """Each number that follows from data or definition is looked up there; what is left are constants of the text."""
    study, _ = make_study(items=9, with_checks=True, checks=Checks(headphone_pass=0, max_failed=5), seed=77)
    records = run(store, study, guess, people=5)
    store.withdraw(store.enrol(study.id, {"PROLIFIC_PID": "person 3"}).token)
    records = store.results(study.id)
    results = analyse(records)
    text = methods(records, results)
    figure = results.figure("correct")
    for phrase in (
        "9 items were presented in 2 conditions (original, generated)",
        "clips of 0.1 s at 16000 Hz",
        "(seed 77)",
        "Sessions included 2 practice trials, 1 attention trial and 1 trap trial.",
        "4 listeners consented and 4 of 24 wanted completed",
        f"{results.counts.ratings} ratings of 4 listeners were analysed",
        "1 listener withdrew and left no data",
        f"correct {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f}, n = {figure.n})",
        "AudioLM (Borsos et al. 2022) 0.512 (0.481 to 0.543, n = 1000)",
        records.sessions[0].code_version,
    ):
        assert phrase in text, (phrase, text)
    for test in results.tests:
        assert f"{test.name}: p = {test.p_value:.3g}" in text
