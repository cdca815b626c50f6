"""What the rows conclude of detectors whose worth is known: one that hears a tone, and ones that fail in one way."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from audiolm.checkpoints.components import MADE_FOR
from audiolm.data import espeak
from audiolm.data.corpus import Corpus, CorpusWriter, Item, to_pcm
from audiolm.data.pairs import KINDS
from audiolm.errors import EvaluationError
from audiolm.evaluation.degradations import DEGRADATIONS
from audiolm.evaluation.detection import (
    boundary,
    calibration,
    consequence,
    disclosure,
    discrimination,
    false_alarms,
    fresh,
    robustness,
    scope,
    shortcuts,
    synthesis,
)
from audiolm.evaluation.detection.judging import Clip, judge
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.subject import Subject
from audiolm.intervals import Interval
from tests.evaluation.detection.material import SHA256, ToneDetector, recording, stand_in, with_tone, write_pairs

COMPONENTS = {name: digit * 64 for name, digit in zip(MADE_FOR["detector"], "0123", strict=True)}
SUBJECT = Subject("tiny", components=COMPONENTS | {"detector": SHA256})
SPEECH, PIANO = (
    replace(SUBJECT, models=SimpleNamespace(info=SimpleNamespace(domain=domain))) for domain in ("speech", "piano")
)


@pytest.fixture(autouse=True)
def _no_probe(monkeypatch):
    monkeypatch.setattr(discrimination, "probe_accuracy", lambda inputs: Interval(0.5, 0.4, 0.6, 10))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("detection") / "pairs", COMPONENTS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """10 s of each of six speakers, two of whom are heard as generated, one silent throughout, all in split test."""
    with CorpusWriter(tmp_path_factory.mktemp("detection") / "real") as writer:
        for index in range(7):
            samples = recording(500 + index, 160_000) * (index < 6)
            pcm = to_pcm((with_tone(samples) if index in (1, 4) else samples).numpy())
            writer.add(pcm, id=str(index), group=f"voice-{index}", split="test", source=f"set-{index % 2}", licence="x")
    return Corpus(writer.folder)


def inputs_of(pairs, detector=None, **others):
    return stand_in(pairs, detector or ToneDetector(), PIANO, **others)


def value(report, name):
    return report.figure(name).value


def test_a_detector_that_hears_what_generation_adds_is_right_throughout(pairs):
    report = discrimination.measure(inputs_of(pairs))
    assert value(report, "accuracy, 2 s") == 1.0
    assert value(report, "EER, 1 s") == 0.0
    assert value(report, "minDCF, 1 in 20 generated") == 0.0
    assert value(report, "minimum Cllr") == 0.0
    assert report.figure("accuracy, 2 s").n == 48
    assert report.met is False, "48 clips cannot show 98.6 %"
    assert value(report, "accuracy with watermark") == value(report, "accuracy without watermark") == 1.0
    assert report.figure("accuracy with watermark").n == 24
    assert report.figure("accuracy with fine codes frame by frame").n == 32
    assert report.figure("accuracy with fine codes from the masked decoder").n == 16
    assert {*report.headlines} <= {figure.name for figure in report.figures}


def test_enough_clips_that_are_all_told_apart_meet_the_target(pairs, monkeypatch):
    inputs = inputs_of(pairs)
    many = [inputs.judged(2.0)] * 6
    inputs._judged[2.0, None] = inputs._judged[1.0, None] = type(many[0]).joined(many)
    monkeypatch.setattr(discrimination, "_by_note", lambda judged, inputs: [])
    assert discrimination.measure(inputs).met is True


def test_a_detector_that_never_decides_has_errors_and_decides_nothing(pairs):
    undecided = ToneDetector(verdict={"label": "uncertain", "probability": 0.5})
    report = discrimination.measure(inputs_of(pairs, undecided))
    assert value(report, "accuracy, 2 s") == 0.5
    assert value(report, "EER, 2 s") == 0.5
    assert value(report, "Cllr") == pytest.approx(1.0)
    assert value(report, "decided, 2 s") == 0.0
    assert report.figure("error among decided, 2 s").value is None
    assert report.met is False


def test_what_is_withheld_is_still_forced_to_a_decision(pairs):
    shy = ToneDetector(verdict={"label": "withheld", "probability": None, "reason": "too short: 2 s"})
    report = discrimination.measure(inputs_of(pairs, shy))
    assert value(report, "accuracy, 2 s") == 1.0
    assert value(report, "decided, 2 s") == 0.0
    assert "withheld: too short (48)" in report.notes


def test_pairs_of_another_checkpoint_are_refused(pairs):
    other = replace(SUBJECT, components=COMPONENTS | {"stage_fine": "f" * 64})
    with pytest.raises(EvaluationError, match=r"made with stage_fine 3333.*the checkpoint's is ffff"):
        discrimination.measure(stand_in(pairs, ToneDetector(), other))


def test_overconfidence_costs_calibration(pairs):
    sure, unsure = (calibration.measure(inputs_of(pairs, ToneDetector(p))) for p in (0.999, 0.7))
    assert value(sure, "ECE, 2 s") == pytest.approx(0.001, abs=1e-6)
    assert value(unsure, "ECE, 2 s") == pytest.approx(0.3, abs=1e-6)
    assert (sure.met, unsure.met) == (True, False)
    assert value(unsure, "mean squared error of the probability") == pytest.approx(0.09)


def test_a_shortcut_shows_as_the_figure_it_is(tmp_path):
    louder = write_pairs(tmp_path / "louder", COMPONENTS, lambda original: 1.3 * original)
    duller = write_pairs(tmp_path / "duller", COMPONENTS, lambda original: original + original.roll(1))
    report = shortcuts.measure(inputs_of(louder))
    assert value(report, "level") < 0.6  # pairs are read at one level
    report = shortcuts.measure(inputs_of(duller))
    assert value(report, "bandwidth") == 1.0
    assert value(report, "all five, linear") == 1.0
    assert value(report, "duration") == 0.5
    assert value(report, "silence") < 0.6
    assert report.met is False
    assert "equal in duration, level and offset by construction" in report.notes[1]


def test_pairs_without_shortcuts_meet_the_target(tmp_path):
    same = write_pairs(tmp_path / "same", COMPONENTS, lambda original: original)
    report = shortcuts.measure(inputs_of(same))
    assert {figure.value for figure in report.figures if figure.name in report.headlines} == {0.5}
    assert report.met is True


def test_a_shortcut_that_points_the_other_way_on_test_pairs_is_named(tmp_path):
    duller = write_pairs(tmp_path / "duller", COMPONENTS, lambda original: original + original.roll(1))
    assert not any("wrong way round" in note for note in shortcuts.measure(inputs_of(duller)).notes)
    one, other, between = (duller / "test" / f"{name}.int16" for name in (*KINDS, "between"))
    for path, target in ((one, between), (other, one), (between, other)):
        path.rename(target)
    report = shortcuts.measure(inputs_of(duller))
    assert value(report, "bandwidth") == 0.0
    assert [note.split(":")[0] for note in report.notes if "wrong way round" in note] == [
        "bandwidth",
        "all five, linear",
    ]
    assert report.met is True, "judged as it is: the threshold does not carry over"


def test_bandwidth_tells_low_passed_from_whole():
    whole = recording(1, 16_000)
    figures = shortcuts.shortcut_figures(torch.stack([whole, DEGRADATIONS["resample 8 kHz"](whole)]))
    assert float(figures["bandwidth"][1]) < float(figures["bandwidth"][0]) - 5


def test_false_alarms_are_counted_by_speaker_and_source(pairs, corpus, monkeypatch):
    monkeypatch.setattr(false_alarms, "NUM_CROPS", 14)
    report = false_alarms.measure(inputs_of(pairs, real=(corpus,)))
    for kind in ("untouched, 4 s", "codec, 8 levels, 4 s", "untouched, 1 s", "codec, 4 levels"):
        figure = report.figure(f"{kind}: called generated")
        assert (figure.value, figure.n) == (pytest.approx(1 / 3), 12), "the silent speaker's two crops are left out"
    assert value(report, "groups with a false positive") == pytest.approx(1 / 3)
    assert value(report, "worst group (voice-1): called generated") == 1.0
    assert value(report, "set-0: called generated") == pytest.approx(1 / 3)
    assert report.met is False


def test_false_alarms_are_told_apart_by_sex_where_the_corpus_names_it(pairs, corpus, tmp_path):
    with CorpusWriter(tmp_path / "voices") as writer:
        for index, (name, sex) in enumerate((("low", "M"), ("high", "F"), ("other", ""))):
            samples = recording(700 + index, 80_000)
            pcm = to_pcm((with_tone(samples) if sex == "F" else samples).numpy())
            writer.add(pcm, id=name, group=name, split="test", source="s", licence="x", sex=sex)
    report = false_alarms.measure(stand_in(pairs, ToneDetector(), SPEECH, real=(Corpus(writer.folder),)))
    assert value(report, "men's voices: called generated") == 0.0
    assert value(report, "women's voices: called generated") == 1.0
    unnamed = false_alarms.measure(stand_in(pairs, ToneDetector(), SPEECH, real=(corpus,)))
    assert unnamed.figure("by sex").reason.startswith("not measured")


def test_too_few_crops_leave_the_target_unjudged(pairs, corpus):
    quiet = ToneDetector(verdict={"label": "original", "probability": 0.01})
    assert false_alarms.measure(inputs_of(pairs, quiet, real=(corpus,))).met is None
    with pytest.raises(EvaluationError, match="give --data"):
        false_alarms.measure(inputs_of(pairs))


def item(index: int, length: int) -> Item:
    return Item(str(index), 0, length, str(index), "", "", "test", True, "")


def test_crops_lie_evenly_and_overlap_only_where_there_is_too_little():
    items = [item(0, 1_000), item(1, 99), item(2, 300)]
    places = false_alarms.crop_places(items, 100, 13)
    assert [one.id for one, _ in places] == ["0"] * 10 + ["2"] * 3
    assert np.diff([start for one, start in places if one.id == "0"]).tolist() == [100] * 9
    crowded = false_alarms.crop_places(items, 100, 1_000)
    assert set(np.diff([start for one, start in crowded if one.id == "0"])) == {50}
    assert all(0 <= start <= one.length - 100 for one, start in crowded)
    few = false_alarms.crop_places(items, 100, 4)
    assert [one.id for one, _ in few] == ["0", "0", "0", "2"]
    with pytest.raises(EvaluationError, match="at least"):
        false_alarms.crop_places([item(0, 99)], 100, 4)


def test_the_codec_gets_each_crop_at_its_level_and_gives_it_back_at_its_own():
    heard = []
    codec = torch.nn.Linear(1, 1)
    codec.encode = lambda rows: heard.append(rows) or rows[..., None].repeat(1, 1, 4)
    codec.decode = lambda codes: codes.mean(dim=-1) * codes.shape[-1] / 4
    crops = torch.stack([0.1 * recording(1, 16_000), recording(2, 16_000)])
    decoded = false_alarms.through_codec(codec, crops, (4, 2))
    levels_db = 10 * torch.log10(heard[0].square().mean(dim=1))
    assert torch.allclose(levels_db, torch.full((2,), -23.0), atol=1.0)
    assert torch.allclose(decoded[4], crops - crops.mean(dim=1, keepdim=True), atol=1e-5)
    assert torch.allclose(decoded[2], decoded[4] / 2)


def test_robustness_names_the_worst_cell(pairs):
    report = robustness.measure(inputs_of(pairs, num_items=2))
    # 5 % faster moves the tone to 2.1 kHz, which the stand-in hears; a room and noise leave it audible too.
    assert value(report, "gain +12 dB") == 1.0
    assert {*DEGRADATIONS} <= {figure.name for figure in report.figures}
    assert report.figures[0].name.startswith("worst: ")
    assert report.figures[0].value == min(value(report, name) for name in DEGRADATIONS)
    assert report.figures[0].n == 4


def test_a_degradation_that_undoes_the_detector_is_the_worst(pairs, monkeypatch):
    cells = {"none": lambda w: w, "muffled": lambda w: w * 0.0, "missing": lambda w: refuse()}

    def refuse():
        raise EvaluationError("needs the package av")

    monkeypatch.setattr(robustness, "DEGRADATIONS", cells)
    report = robustness.measure(inputs_of(pairs, num_items=4))
    assert report.figures[0].name == "worst: muffled"
    assert value(report, "muffled") == 0.5
    assert value(report, "muffled: false positives") == 0.0
    assert report.figure("missing").reason == "not measured: needs the package av"
    assert report.met is False
    monkeypatch.setattr(robustness, "DEGRADATIONS", {"none": cells["none"], "missing": cells["missing"]})
    assert robustness.measure(inputs_of(pairs, num_items=4)).met is None


def test_scores_that_are_kept_back_out_of_scope_meet_the_target_and_others_do_not(pairs, corpus):
    kept = ToneDetector(verdict={"label": "withheld", "probability": None, "reason": "out of scope: far"})
    options = {"other": (corpus,), "num_items": 4}
    report = scope.measure(stand_in(pairs, kept, SPEECH, **options))
    assert {value(report, name) for name in ("silence", "under 1 s", "clipped", "other corpus: real")} == {1.0}
    assert value(report, "in scope: withheld") == 1.0
    sure = scope.measure(stand_in(pairs, ToneDetector(), SPEECH, **options))
    assert value(sure, "silence") == 0.0
    assert sure.met is False


def test_what_cannot_be_measured_out_of_scope_says_why(pairs, monkeypatch):
    monkeypatch.setattr(espeak.shutil, "which", lambda name: None)
    kept = ToneDetector(verdict={"label": "uncertain"})
    report = scope.measure(stand_in(pairs, kept, SPEECH, num_items=4))
    assert report.figure("other synthesis: espeak-ng").reason == "not measured: espeak-ng is not installed"
    assert report.figure("other corpora").reason == "not measured: give --other"
    assert report.met is None


def test_spoken_clips_differ_and_are_no_longer_than_asked():
    if not espeak.has_espeak():
        pytest.skip("espeak-ng is not installed")
    clips = list(synthesis.espeak(3, 2.0))
    assert all(clip.shape == (32_000,) and float(clip.abs().max()) > 0.01 for clip in clips)
    assert not torch.equal(clips[0], clips[1])


def test_additive_notes_are_pitched_and_at_the_usual_level():
    for clip in synthesis.additive_notes(3, 2.0):
        assert float(10 * torch.log10(clip.square().mean())) == pytest.approx(-23.0, abs=0.01)
        power = torch.fft.rfft(clip * torch.hann_window(32_000)).abs().square()
        loudest = power.topk(len(power) // 50).values
        assert float(loudest.sum() / power.sum()) > 0.8, "lines, not noise"


def test_near_silence_stays_seventy_decibels_under_full_scale():
    levels = [float(clip.square().mean().sqrt()) for clip in synthesis.near_silence(8, 1.0)]
    assert levels.count(0.0) == 2
    assert max(levels) < 10 ** (-69 / 20)


def test_a_boundary_that_is_heard_is_found(pairs):
    report = boundary.measure(inputs_of(pairs))
    assert value(report, "median error (s)") <= 0.2
    assert value(report, "a boundary is named in originals") == 0.0
    assert report.figure("median error without watermark (s)").n == 12
    assert value(report, "median error of a constant guess (s)") > 0.15, "the true places must vary"
    assert report.met is True


def test_a_detector_that_always_names_the_same_place_is_as_good_as_a_guess(pairs):
    guess_s = float(np.median([place_s for *_, place_s in boundary._spliced(inputs_of(pairs))]))
    report = boundary.measure(inputs_of(pairs, ToneDetector(verdict={"boundary_s": guess_s})))
    assert value(report, "a boundary is named in originals") == 1.0
    assert value(report, "median error (s)") == pytest.approx(value(report, "median error of a constant guess (s)"))
    assert value(report, "median error (s)") <= boundary.WITHIN_S, (
        "only the guess beside it tells that it heard nothing"
    )
    assert report.met is False


def test_boundaries_that_are_never_named_have_no_median(pairs, tmp_path):
    report = boundary.measure(inputs_of(pairs, ToneDetector(verdict={"boundary_s": None})))
    assert report.figure("median error (s)").reason.startswith("no boundary is named")
    assert report.met is False
    without = write_pairs(tmp_path / "old", COMPONENTS, lambda original: original, join=0)
    with pytest.raises(EvaluationError, match="keeps no prompts"):
        boundary.measure(inputs_of(without))


@pytest.mark.parametrize(
    ("missing", "figure"),
    [
        ({"model_sha256": ""}, "the detector's hash"),
        ({"scope": ""}, "its scope"),
        ({"false_positive_rate": None}, "error rates at it, with n"),
        ({"num_generated": 0}, "error rates at it, with n"),
        ({"probability": math.nan}, "JSON without NaN"),
        ({"label": "withheld", "reason": "silence"}, "no score where it is withheld"),
        ({"reason": "too long"}, "a probability, or the reason why not"),
    ],
)
def test_whatever_a_verdict_leaves_out_is_named(pairs, missing, figure):
    report = disclosure.measure(inputs_of(pairs, ToneDetector(verdict=missing), num_items=2))
    assert value(report, figure) == 0.0
    assert report.met is False


def test_a_verdict_that_changes_its_mind_is_named(pairs):
    answers = iter(range(10_000))

    class Fickle(ToneDetector):
        def detect(self, waveform):
            return replace(super().detect(waveform), probability=1.0 / (2 + next(answers)))

    report = disclosure.measure(inputs_of(pairs, Fickle(), num_items=2))
    assert value(report, "the same clip gives the same verdict") == 0.0


def test_a_failed_row_asks_for_the_score_to_be_withheld(pairs):
    passed, failed, left_open = (RowReport(f"D{n}", "", "", met=met) for n, met in ((1, True), (2, False), (5, None)))
    aside = RowReport("F", "", "", met=False)
    frank = inputs_of(pairs)
    shy = inputs_of(pairs, ToneDetector(verdict={"label": "withheld", "probability": None, "reason": "row D2 failed"}))
    assert consequence.measure(frank, [passed, aside]).met is True
    assert consequence.measure(frank, [passed, left_open]).met is None
    assert consequence.measure(frank, [passed, failed, left_open]).met is False
    report = consequence.measure(shy, [passed, failed])
    assert (report.met, value(report, "rows not met")) == (True, 1.0)
    assert "withheld: row D2 failed (48)" in report.notes
    with pytest.raises(EvaluationError, match="other rows"):
        consequence.measure(frank, [aside])


@pytest.mark.parametrize(("wrong", "met"), [((0.01, None), True), ((0.01, 0.02), False), ((None, None), False)])
def test_a_row_that_fails_may_show_scores_where_the_answers_given_keep_its_rate(pairs, wrong, met):
    names = ("error among decided, 4 s", "error among decided, 6 s")
    figures = tuple(Figure(name, value) for name, value in zip(names, wrong, strict=True))
    failed = RowReport("D1", "", "", figures, False, corpus="pairs")
    assert consequence.measure(inputs_of(pairs), [failed]).met is met


def test_fresh_continuations_must_all_be_caught(pairs, corpus, monkeypatch):
    one = SimpleNamespace(
        continuation=with_tone(recording(1)), recording=recording(2), original=recording(3), group="a"
    )
    monkeypatch.setattr(fresh, "continue_prompts", lambda inputs, count, watermark: samples)
    monkeypatch.setattr(fresh, "_continuing", lambda inputs: None)
    monkeypatch.setattr(fresh, "describe", lambda samples: "")
    samples = [one, one]
    assert fresh.measure(inputs_of(pairs, real=(corpus,))).met is True
    samples = [one, replace_in(one, continuation=recording(4))]
    report = fresh.measure(inputs_of(pairs, real=(corpus,)))
    assert (report.met, value(report, "continuations: called generated")) == (False, 0.5)
    samples = [one, replace_in(one, original=with_tone(recording(5)))]
    report = fresh.measure(inputs_of(pairs, real=(corpus,)))
    assert (report.met, value(report, "recordings, codec: called generated")) == (False, 0.5)


def replace_in(sample, **changes):
    return SimpleNamespace(**(vars(sample) | changes))


def test_judging_nothing_is_refused():
    with pytest.raises(EvaluationError, match="no clip"):
        judge(ToneDetector(), iter([]))


def test_judged_clips_keep_their_order_and_groups():
    clips = [Clip(recording(1), False, "a"), Clip(with_tone(recording(2)), True, "b")]
    judged = judge(ToneDetector(0.9), clips)
    assert judged.probabilities == pytest.approx([0.1, 0.9])
    assert judged.log_odds == pytest.approx([-math.log(9), math.log(9)])
    assert judged.right.all()
    assert judged.where(judged.generated).groups.tolist() == ["b"]
