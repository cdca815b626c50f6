import math

import pytest
import torch

import audiolm.detector.network as network
from audiolm.config import DetectorCalibration, DetectorConfig, LengthRates
from audiolm.detector import SCOPE, Detector
from audiolm.detector.ear import surroundings
from audiolm.detector.network import Reading, Views, mel_frames
from audiolm.detector.scope import fit_scope
from audiolm.errors import ConfigError
from audiolm.streams import Waveform

UNRELIABLE_AT_1_S = DetectorCalibration(
    by_length=(LengthRates(1.0, 0.2, 0.2, 50, 60, 0.2, 100), LengthRates(4.0, 0.1, 0.2, 500, 600, 0.003, 1000))
)
MEASURED = DetectorCalibration(by_length=(LengthRates(1.0, 0.1, 0.2, 500, 600, 0.003, 1000),))


def detector(**options) -> Detector:
    torch.manual_seed(0)
    config = DetectorConfig(num_mels=16, channels=(4, 6, 8), **options)
    return Detector(config).eval()


def loudness(waveforms: torch.Tensor) -> torch.Tensor:
    """A listener of two figures a frame: the level, and how much of it is new."""
    frames = waveforms[:, : waveforms.shape[1] // 640 * 640].unfold(1, 640, 640)
    level = frames.square().mean(dim=2).clamp_min(1e-9).log()
    return torch.stack([level, level.diff(dim=1, prepend=level[:, :1])], dim=1)


def listening(**options) -> Detector:
    model = detector(num_heard=2, heard_width=8, **options)
    model.attach(loudness)
    return model


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> torch.Tensor:
    return level * torch.randn(round(16_000 * seconds), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [(4,), (4, 8), (4, 6, 8), (4, 6, 8, 10)])
@pytest.mark.parametrize("length", [1_000, 3_999, 4_000, 64_000])
def test_there_is_a_logit_every_quarter_second_and_without_an_ear_their_mean_is_the_clips(channels, length):
    model = Detector(DetectorConfig(num_mels=16, channels=channels)).eval()
    waveforms = torch.randn(2, length)
    segments = model.segment_logits(waveforms)
    assert segments.shape == (2, length // 4_000 + 1)
    assert torch.allclose(model.logits(waveforms), segments.mean(dim=1))


@pytest.mark.parametrize("length", [1_000, 4_000, 63_999, 64_000])
def test_an_ear_adds_to_every_logit_by_its_weight(length):
    model, waveforms = listening(), torch.stack([noise(length / 16_000), noise(length / 16_000, seed=1)])
    mel, ear = model.read(model.view(waveforms))
    assert mel.segments.shape == ear.segments.shape == (2, length // 4_000 + 1)
    model.weights.copy_(torch.tensor([0.25, 2.0]))
    assert torch.allclose(model.segment_logits(waveforms), 0.25 * mel.segments + 2 * ear.segments, atol=1e-6)
    assert torch.allclose(model.logits(waveforms), 0.25 * mel.clips + 2 * ear.clips, atol=1e-6)


def test_short_clips_weigh_less_by_the_growth_of_evidence():
    model = listening()
    readings = [Reading(torch.ones(1, 5), torch.tensor([2.0]), torch.zeros(1, 3))] * 2
    model.growth.fill_(0.5)
    quarter, whole, longer = (float(model.fused(readings, round(s * 16_000))[1]) for s in (1.5, 6.0, 20.0))
    assert quarter == pytest.approx(whole / 2)
    assert longer == whole == 2.0


def test_an_ear_that_has_nothing_to_listen_with_says_so():
    with pytest.raises(ConfigError, match="attach a listener first"):
        detector(num_heard=2).logits(noise(1.0)[None])


def test_a_segment_averages_the_frames_within_a_quarter_second():
    weights = surroundings(50, 9)
    assert torch.allclose(weights.sum(dim=0), torch.ones(9))
    assert weights[:, 4].nonzero()[:, 0].tolist() == list(range(19, 31))  # centres from 0.78 to 1.22 s, about 1 s


def test_long_clips_in_pieces_equal_the_whole(monkeypatch):
    model, waveforms = listening(), noise(9.3)[None]
    whole = model.segment_logits(waveforms)
    monkeypatch.setattr(network, "_CHUNK_SEGMENTS", 5)
    assert torch.allclose(model.segment_logits(waveforms), whole, atol=1e-5)


def test_a_segment_sees_half_a_second_to_either_side():
    model = Detector(DetectorConfig(num_mels=64)).eval()
    mels = mel_frames(noise(6.0)[None], 64).requires_grad_()
    model.read(Views(mels, None, 96_000))[0].segments[0, 12].backward()
    touched = mels.grad[0].abs().sum(dim=0).nonzero()[:, 0] * 125 / 16_000
    assert 2.45 < float(touched.min()) - 0.032 < 2.55  # a frame sees 32 ms to either side
    assert 3.45 < float(touched.max()) + 0.032 < 3.55


def test_level_and_offset_change_nothing():
    model, waveform = detector(), noise(2.0)[None]
    for other in (waveform * 0.05, waveform * 9, waveform + 0.3):
        assert torch.allclose(model.logits(other), model.logits(waveform), atol=1e-4)


def test_a_verdict_carries_threshold_error_rates_scope_and_segments():
    model = listening(calibration=MEASURED)
    verdict = model.judge(Waveform(noise(2.0)))
    values = verdict.to_dict()
    assert values["label"] in ("generated", "original", "uncertain")
    assert values["probability"] == pytest.approx(model.probabilities(noise(2.0)[None]).tolist()[0], abs=1e-6)
    assert (values["false_positive_rate"], values["num_originals"]) == (0.1, 500)
    assert (values["false_negative_rate"], values["num_generated"]) == (0.2, 600)
    assert values["scope"] == SCOPE
    assert values["segment_times_s"] == [0.25 * n for n in range(9)]
    assert len(values["segment_probabilities"]) == 9
    assert (values["boundary_s"], values["scope_distance"], values["model_sha256"]) == (None, None, "")


def test_recordings_of_other_rates_are_judged_at_16_khz():
    model = detector(calibration=MEASURED)
    assert len(model.judge(Waveform(noise(6.0), 48_000)).segment_times_s) == 9


def broken(samples: torch.Tensor) -> torch.Tensor:
    samples[77] = float("nan")
    return samples


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (noise(0.9), "too short: 0.90 s, at least 1 s"),
        (torch.zeros(0), "too short"),
        (torch.zeros(32_000), "near silence: 0.00 s"),
        (torch.full((32_000,), 0.7), "near silence"),
        (torch.cat([noise(0.3), torch.zeros(32_000)]), "near silence: 0.30 s"),
        (noise(2.0, 1.0).clamp(-0.5, 0.5), "clipped"),
        (broken(noise(2.0)), "not finite"),
    ],
)
def test_out_of_scope_clips_get_no_score_but_a_reason(samples, words):
    verdict = listening(calibration=MEASURED).judge(Waveform(samples))
    assert verdict.label == "withheld"
    assert verdict.probability is None
    assert words in verdict.reason
    assert verdict.segment_probabilities == ()


def test_what_is_unlike_the_calibration_clips_gets_no_score_but_its_distance():
    model = listening(calibration=MEASURED, scope_limit=4.0)
    known = torch.stack([noise(2.0, seed=seed) for seed in range(400)])
    pooled = network.pooled_of(model.read(model.view(known))).detach()
    for buffer, value in zip((model.scope_mean, model.scope_std, model.scope_map), fit_scope(pooled), strict=True):
        buffer.copy_(value)
    near = model.judge(Waveform(noise(2.0, seed=401)))
    assert near.probability is not None
    assert near.scope_distance < 2.0
    far = model.judge(Waveform(torch.sin(torch.arange(32_000) * 0.2) * torch.sin(torch.arange(32_000) * 0.001)))
    assert (far.label, far.probability, far.segment_probabilities) == ("withheld", None, ())
    assert far.scope_distance > 4.0
    assert f"distance {far.scope_distance:.2f}, at most 4.00 is accepted" in far.reason


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_models_that_give_no_finite_answer_give_no_score(value):
    model = listening(calibration=MEASURED)
    model.ear.clip.bias.data.fill_(value)
    verdict = model.judge(Waveform(noise(2.0)))
    assert (verdict.label, verdict.probability) == ("withheld", None)
    assert "no finite answer" in verdict.reason


def test_a_detector_without_measured_error_rates_gives_no_score():
    verdict = detector().judge(Waveform(noise(2.0)))
    assert (verdict.label, verdict.probability) == ("withheld", None)
    assert "have not been measured" in verdict.reason


def test_a_loud_pure_tone_is_not_taken_for_clipping():
    tone = torch.sin(2 * torch.pi * 220 * torch.arange(32_000) / 16_000)
    assert detector(calibration=MEASURED).judge(Waveform(tone)).label != "withheld"


def test_saliency_shows_when_and_where_and_turns_with_the_answer():
    model, waveform = listening(), Waveform(noise(3.0))
    picture, times = model.saliency(waveform)
    assert picture.shape == (16, 48_000 // 125 + 1)
    assert float(times[1] - times[0]) == 125 / 16_000
    assert bool(torch.isfinite(picture).all())
    assert float(picture.abs().max()) > 0
    later = model.saliency(waveform, from_s=1.0)[0]
    alone = model.saliency(Waveform(waveform.samples[16_000:]))[0]
    assert (later.shape, float(later[:, :128].abs().max())) == (picture.shape, 0.0)
    assert torch.equal(later[:, 128:], alone)  # what was judged, and nothing else
    model.weights.neg_()
    assert torch.allclose(model.saliency(waveform)[0], -picture, atol=1e-6)


def test_saliency_finds_the_moment_that_decides():
    model = detector()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()  # louder bands can only raise the logit
    burst = 0.001 * noise(4.0) / 0.1
    burst[32_000:36_000] += noise(0.25, 0.5)
    picture, times = model.saliency(Waveform(burst))
    assert 1.9 < float(times[picture.sum(dim=0).argmax()]) < 2.4


@pytest.mark.parametrize(
    "options",
    [
        {"channels": ()},
        {"channels": (1, 2, 3, 4, 5)},
        {"channels": (0,)},
        {"num_mels": 4},
        {"num_heard": -1},
        {"scope_limit": 0.0},
    ],
)
def test_impossible_sizes_are_refused(options):
    with pytest.raises(ConfigError):
        DetectorConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.9, "uncertain_high": 0.8},
        {"scale": 0.0},
        {"by_length": (MEASURED.by_length[0], MEASURED.by_length[0])},
    ],
)
def test_impossible_calibrations_are_refused(options):
    with pytest.raises(ConfigError):
        DetectorCalibration(**options)


def test_detectors_without_ears_still_load():
    values = DetectorConfig(calibration=MEASURED).to_dict()
    for name in ("num_heard", "heard_width", "scope_limit"):
        del values[name]
    assert DetectorConfig.from_dict(values) == DetectorConfig(calibration=MEASURED)
    names = set(Detector(DetectorConfig.from_dict(values)).state_dict())
    assert {name.split(".")[0] for name in names} == {"stem", "blocks", "hidden", "output"}


def test_after_a_boundary_what_follows_is_judged():
    model = TwoSounds(calibration=MEASURED)
    quiet, loud = torch.full((56_000,), 0.1), torch.full((80_000,), 0.2)
    quiet[::2] *= -1
    loud[::2] *= -1
    spliced = model.judge(Waveform(torch.cat([quiet, loud])))
    assert spliced.boundary_s == pytest.approx(3.5, abs=0.25)
    assert (spliced.label, len(spliced.segment_probabilities)) == ("generated", 35)
    assert spliced.judged_from_s == spliced.boundary_s
    assert model.judge(Waveform(quiet)).boundary_s is None
    quiet[1] = 0.9
    held = model.judge(Waveform(torch.cat([quiet, loud.abs()])))
    assert (held.label, held.probability, held.boundary_s) == ("withheld", None, None)
    assert held.reason.startswith("clipped: ")
    assert held.reason.endswith("(after a possible boundary at 3.4 s)")


@pytest.mark.parametrize(("num_after", "named"), [(24_000, False), (60_000, False), (64_000, True)])
def test_what_is_called_original_has_no_boundary_with_too_little_after_it_to_be_judged(num_after, named):
    quiet, loud = torch.full((56_000,), 0.1), torch.full((num_after,), 0.2)
    quiet[::2] *= -1
    loud[::2] *= -1
    found = TwoSounds(calibration=UNRELIABLE_AT_1_S).judge(Waveform(torch.cat([quiet, loud])))
    assert (found.label, found.boundary_s is not None) == ("generated" if named else "original", named)
    assert found.reason == ""
    assert len(found.segment_probabilities) == (56_000 + num_after) // 4_000 + 1


def test_what_is_not_called_original_has_a_boundary_however_little_follows():
    quiet, loud = torch.full((24_000,), 0.1), torch.full((60_000,), 0.2)
    quiet[::2] *= -1
    loud[::2] *= -1
    found = MostlyOne(calibration=UNRELIABLE_AT_1_S).judge(Waveform(torch.cat([quiet, loud])))
    assert found.boundary_s == pytest.approx(1.5, abs=0.25)
    assert (found.label, found.boundary_name, found.judged_from_s) == ("generated", "likely boundary", 0.0)


class TwoSounds(Detector):
    """Takes what is louder than 0.15 for generated, and a clip for what most of it is."""

    def __init__(self, **options) -> None:
        super().__init__(DetectorConfig(num_mels=16, channels=(4,), **options))

    def view(self, waveforms):
        return Views(waveforms[:, None], None, waveforms.shape[1])

    def read(self, views):
        centres = torch.arange(views.num_samples // 4_000 + 1) * 4_000
        level = views.mels[0, 0, centres.clamp_max(views.num_samples - 1)].abs()
        segments = torch.where(level > 0.15, 4.0, -4.0)[None]
        early = segments[:, : -(-segments.shape[1] // 3)]
        return [Reading(segments, early.mean(dim=1), segments)]


class MostlyOne(TwoSounds):
    """Takes a clip for what all of it is on the whole."""

    def read(self, views):
        (reading,) = super().read(views)
        return [Reading(reading.segments, reading.segments.mean(dim=1), reading.pooled)]
