"""From recordings to a study, on tiny random models."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from scipy.signal import freqz

from app.study import mastering, protocol
from app.study.clips import Rendered
from app.study.definition import ATTENTION, HEADPHONES, LEVEL, MUSHRA, PRACTICE, SCORED, TRAP, TRUTH_KINDS
from app.study.preflight import preflight
from app.study.presets import HIDDEN_REFERENCE, LOW_ANCHOR, MID_ANCHOR, PRESETS, Version
from app.study.recipe import Recipe
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import AudioSilentError, AudioTooShortError, RequestError
from audiolm.receipt import NO_SEMANTIC
from tests.app.conftest import Service, write_tone

CLIP_S, PROMPT_S = 2.4, 1.0


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return tuple(write_tone(folder / f"name {number}.wav", seconds=3.0) for number in range(3))


@pytest.fixture(scope="module")
def rendered(settings, recordings):
    """Preset -> what became of three recordings, one of them for practice; made once each."""
    service, made = Service(settings), {}

    def of(preset: str) -> Rendered:
        if preset not in made:
            recipe = Recipe(preset, "tiny-speech", recordings, "A title", clip_s=CLIP_S, prompt_s=PROMPT_S, seed=5)
            *_, made[preset] = service.make_study(recipe)
        return made[preset]

    return of


def samples(content):
    return np.frombuffer(content, "<i2", offset=44).astype(float) / 32768


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_study_that_passes_the_preflight(rendered, name):
    study, files = rendered(name).study, rendered(name).clips
    report = preflight(study, files)
    assert report.problems == ()
    assert report.num_samples == (round(CLIP_S * SAMPLE_RATE_HZ),) * 2
    assert report.loudness_lufs[1] - report.loudness_lufs[0] < 0.01
    assert (study.kind, study.preset, study.texts.title) == (PRESETS[name].kind, name, "A title")
    assert study.plan.target_sessions % protocol.num_cells(study) == 0
    assert len({clip.sha256 for clip in study.clips}) == len(study.clips)
    assert hashlib.sha256(rendered(name).owner_token.encode()).hexdigest() == study.owner_token_sha256


def test_the_audiolm_protocol_is_the_papers():
    preset = PRESETS["audiolm"]
    assert (preset.clip_s, preset.prompt_s) == (10.0, 3.0)
    assert [version.source for version in preset.versions] == ["codec", "continuation"]
    assert preset.plan.equivalence_margin == 0.05


def test_originals_went_through_the_same_codec_and_items_share_the_recording(rendered):
    study = rendered("audiolm").study
    for trial in study.of_role(SCORED):
        clip = study.clip(trial.clips[0])
        assert clip.generated == (clip.condition == "generated")
        assert clip.origin["checkpoint"] == "tiny-speech"
        assert clip.origin["source"] == ("continuation" if clip.generated else "codec")
    by_item = {}
    for clip in study.clips:
        if "recording_sha256" in clip.origin:
            by_item.setdefault(clip.item, set()).add(clip.origin["recording_sha256"])
    assert len(by_item) == 3
    assert all(len(hashes) == 1 for hashes in by_item.values())


@pytest.mark.parametrize("name", PRESETS)
def test_practice_and_checks_use_recordings_that_are_never_scored(rendered, name):
    study = rendered(name).study
    scored, others = set(), set()
    for trial in study.trials:
        if trial.role not in (HEADPHONES, LEVEL):
            items = {study.clip(clip).item for clip in trial.clips}
            (scored if trial.role == SCORED else others).update(items)
    assert len(scored) == 2
    assert len(others) == 1
    assert not scored & others
    roles = [trial.role for trial in study.trials]
    assert roles.count(HEADPHONES) == 6
    assert roles.count(LEVEL) == 1
    assert PRACTICE in roles
    assert (ATTENTION in roles, TRAP in roles) == (name != "mushra",) * 2


def test_the_detector_scores_what_truth_is_asked_of_and_nothing_else(rendered):
    for name, preset in PRESETS.items():
        judged = [clip for clip in rendered(name).study.clips if clip.detector is not None]
        if preset.kind in TRUTH_KINDS:
            assert len(judged) == 6
            assert all(clip.detector.model_sha256 for clip in judged)
        else:
            assert judged == []


def test_mushra_has_reference_hidden_reference_and_both_anchors(rendered):
    study, files = rendered("mushra").study, rendered("mushra").clips
    for trial in study.of_role(SCORED):
        conditions = {study.clip(clip).condition: clip for clip in trial.clips}
        assert set(conditions) == {"codec", "codec, 4 levels", HIDDEN_REFERENCE, LOW_ANCHOR, MID_ANCHOR}
        hidden, reference = files[conditions[HIDDEN_REFERENCE]], files[trial.reference]
        assert hidden != reference  # so that no byte tells it
        assert np.abs(samples(hidden) - samples(reference)).max() < 5 / 32768  # and no ear
    assert study.kind == MUSHRA


def test_abx_plays_x_from_a_file_of_its_own(rendered):
    study, files = rendered("abx").study, rendered("abx").clips
    for trial in study.of_role(SCORED):
        a, b, copy_of_a, copy_of_b = (samples(files[clip]) for clip in trial.clips)
        assert len({files[clip] for clip in trial.clips}) == 4
        assert np.abs(a - copy_of_a).max() < 5 / 32768 < np.abs(a - b).max()
        assert np.abs(b - copy_of_b).max() < 5 / 32768


def test_a_trap_holds_beeps(rendered):
    study, files = rendered("audiolm").study, rendered("audiolm").clips
    (trap,) = study.of_role(TRAP)
    middle = samples(files[trap.clips[0]])[round(0.9 * SAMPLE_RATE_HZ) : round(1.5 * SAMPLE_RATE_HZ)]
    spectrum = np.abs(np.fft.rfft(middle))
    assert abs(np.argmax(spectrum) / 0.6 - mastering.BEEP_HZ) < 5.0


def test_the_watermark_is_in_all_clips_or_in_none(settings, rendered, recordings):
    marked = rendered("audiolm")
    assert marked.study.watermark.startswith("resemble-perth")
    recipe = Recipe("audiolm", "tiny-speech", recordings, clip_s=CLIP_S, prompt_s=PROMPT_S, seed=5, watermark=False)
    *_, plain = Service(settings).make_study(recipe)
    assert plain.study.watermark == ""
    for condition in ("original", "generated"):
        pairs = [
            [
                next(
                    made.clips[clip.id] for clip in made.study.clips if (clip.item, clip.condition) == (item, condition)
                )
                for made in (marked, plain)
            ]
            for item in {clip.item for clip in plain.study.clips if clip.condition == condition}
        ]
        assert len(pairs) == 3
        for one, other in pairs:
            assert np.abs(samples(one) - samples(other)).max() > 8 / 32768  # more than dither
    assert rendered("abx").study.watermark == ""  # nothing is generated there


def test_versions_of_ones_own_are_compared(settings, recordings):
    versions = (Version("speech", "continuation"), Version("piano", "continuation", checkpoint="tiny-piano"))
    recipe = Recipe(
        "ab", "tiny-speech", recordings, versions=versions, clip_s=CLIP_S, prompt_s=PROMPT_S, num_practice=0
    )
    *_, made = Service(settings).make_study(recipe)
    assert made.study.conditions == ("speech", "piano")
    assert {clip.origin["checkpoint"] for clip in made.study.clips if "checkpoint" in clip.origin} == {
        "tiny-speech",
        "tiny-piano",
    }
    assert not {trial.role for trial in made.study.trials} & {PRACTICE, ATTENTION, TRAP}


def test_the_same_seed_gives_the_same_sounds_under_other_names(settings, rendered, recordings):
    recipe = Recipe("audiolm", "tiny-speech", recordings, clip_s=CLIP_S, prompt_s=PROMPT_S, seed=5)
    *_, again = Service(settings).make_study(recipe)
    first = rendered("audiolm").study
    assert {clip.sha256 for clip in again.study.clips} == {clip.sha256 for clip in first.clips}
    assert not {clip.id for clip in again.study.clips} & {clip.id for clip in first.clips}
    *_, other = Service(settings).make_study(dataclasses.replace(recipe, seed=6))
    generated = {clip.sha256 for clip in other.study.clips if clip.generated}
    assert not generated & {clip.sha256 for clip in first.clips}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "taste"}, "preset must be one of"),
        ({"num_practice": 3}, "4 to 500 recordings are needed"),
        ({"clip_s": 40.0}, "clips must be 2 to 30 s"),
        ({"prompt_s": 2.0}, "the prompt must be 0.5 to 1.4 s"),
        ({"seed": -1}, "seed must be"),
        ({"versions": (Version("a", "codec"), Version("a", "recording"))}, "a name of its own"),
        ({"versions": (Version("a", "codec"),)}, "needs 2 versions"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes, message, recordings):
    recipe = Recipe("audiolm", "tiny-speech", recordings, clip_s=CLIP_S, prompt_s=PROMPT_S)
    with pytest.raises(RequestError, match=message):
        dataclasses.replace(recipe, **changes).resolved()


def test_recordings_that_are_too_short_are_named(settings, recordings):
    recipe = Recipe("audiolm", "tiny-speech", recordings, clip_s=5.0, prompt_s=PROMPT_S)
    with pytest.raises(AudioTooShortError, match=r"name 0\.wav: 5 s are needed"):
        list(Service(settings).make_study(recipe))


# mastering


def tone(level, hertz=440.0, seconds=2.0):
    time_s = torch.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return level * torch.sin(2 * torch.pi * hertz * time_s)


def test_soft_and_loud_sounds_come_out_alike_and_none_is_clipped():
    peaky = 0.02 * tone(1.0)
    peaky[::4000] = 1.0
    files, target = mastering.mastered({"soft": tone(0.001), "loud": tone(0.9), "peaky": peaky}, seed=1)
    assert target < mastering.TARGET_LUFS  # the one with peaks leaves no room for more
    for content in files.values():
        assert np.abs(samples(content)).max() < 0.96
    with pytest.raises(AudioSilentError, match="1 of 2 clips are silent"):
        mastering.mastered({"a": tone(0.1), "b": torch.zeros(32000)}, seed=1)
    with pytest.raises(ValueError, match="one length"):
        mastering.mastered({"a": tone(0.1), "b": tone(0.1, seconds=1.0)}, seed=1)


@pytest.mark.parametrize("cutoff_hz", [3500.0, 7000.0])
def test_anchors_are_cut_off_as_bs_1534_asks(cutoff_hz):
    impulse = torch.zeros(4001, dtype=torch.float64)
    impulse[2000] = 1.0
    frequency_hz, response = freqz(mastering.low_passed(impulse, cutoff_hz).numpy(), worN=8192, fs=SAMPLE_RATE_HZ)
    level_db = 20 * np.log10(np.abs(response) + 1e-9)
    assert np.abs(level_db[frequency_hz <= cutoff_hz]).max() <= 0.1
    assert level_db[frequency_hz >= cutoff_hz * 8 / 7].max(initial=-100.0) <= -25.0
    assert level_db[frequency_hz >= cutoff_hz * 9 / 7].max(initial=-100.0) <= -50.0


def test_a_clip_too_short_for_beeps_is_refused():
    with pytest.raises(ValueError, match="too few for 3 beeps"):
        mastering.with_beeps(torch.zeros(8000))


def test_the_model_without_semantic_tokens_is_the_default_of_ab():
    assert [version.ablation for version in PRESETS["ab"].versions] == ["", NO_SEMANTIC]
