"""What the detector says of a clip, and when it says nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ, DetectorCalibration, DetectorConfig, LengthRates
from audiolm.intervals import wilson_interval

SCOPE = "holds only for audio of these checkpoints"
SEGMENT_S = 0.25
SOUND_DB = -60.0  # 50 ms windows above this level, relative to full scale, count as sound
MIN_SOUND_S = 0.5
MAX_CLIPPED_SHARE = 0.01
MAX_WRONG_RATE = 0.014  # of the answers to clips of a length, upper end of the 95 % interval over clips: the paper's
LEAST_PROBABILITY = 1e-9  # of a segment, so that its log odds are finite
LARGEST_ODDS = 2.0  # log odds
SEGMENTS_SEEN = 4
MIN_SIDE = 4  # segments on either side of a boundary
MIN_EVIDENCE = 1.0  # nats

_WINDOW = SAMPLE_RATE_HZ // 20


@dataclass(frozen=True)
class Verdict:
    """`label` is generated, original, uncertain or withheld (`reason` says why).

    `probability` is that of "generated", None where the verdict is withheld.

    It is "uncertain" between `uncertain_low` and `uncertain_high`. Of `num_answers` others that it gave on held-out
    clips `wrong_rate` were wrong (both kinds count the same). At `threshold`, deciding always, it called
    `false_positive_rate` of `num_originals` originals generated and missed `false_negative_rate` of `num_generated`
    generated clips. All had a length of `measured_s`, the clip's own, the next one below that was measured, or the
    shortest; none had been cut at a boundary that the detector named. Segment probabilities, one every 0.25 s at
    `segment_times_s` (centres), hear half a second to either side: read their course, not their values.

    Beside a continuation they begin with those of its prompt, at times below 0: for the eye, since the prompt is not
    judged.

    `model_sha256` names the detector's weights ("" where the caller does not know them). `boundary_s` is the likeliest
    place where an original becomes generated, None where none was found. If what lies after it is long
    enough, that alone was judged (`judged_from_s`), and label, probability, error rates and reason are its own; else
    they are the whole's, and there is no boundary in what is called original. `scope_distance` says how far the clip
    lies from those that the detector was calibrated on, None where that was not measured.
    """

    label: str
    probability: float | None
    threshold: float
    false_positive_rate: float | None
    false_negative_rate: float | None
    num_originals: int
    num_generated: int
    reason: str = ""
    scope: str = SCOPE
    segment_times_s: tuple[float, ...] = ()
    segment_probabilities: tuple[float, ...] = ()
    model_sha256: str = ""
    boundary_s: float | None = None
    scope_distance: float | None = None
    measured_s: float | None = None
    judged_from_s: float = 0.0
    uncertain_low: float = 0.5
    uncertain_high: float = 0.5
    wrong_rate: float | None = None
    num_answers: int = 0

    @property
    def boundary_name(self) -> str:
        """How sure it is that the clip becomes generated there, in words."""
        return "likely boundary" if self.label == "generated" else "possible boundary"

    def without_prompt(self) -> Verdict:
        """The same without the scores over time of a prompt."""
        first = sum(time_s < 0 for time_s in self.segment_times_s)
        lists = {name: getattr(self, name)[first:] for name in ("segment_times_s", "segment_probabilities")}
        return dataclasses.replace(self, **lists)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def make_verdict(
    calibration: DetectorCalibration,
    duration_s: float,
    segment_logits: Tensor,
    clip_logit: float,
    reason: str = "",
    scope_distance: float | None = None,
) -> Verdict:
    """segment_logits [N] and the clip's own logit -> the verdict; with a `reason` it is withheld."""
    segments = segment_probabilities_of(calibration, segment_logits)
    probability = None if reason else float(probability_of(calibration, torch.tensor(clip_logit)))
    measured = calibration.rates_of(duration_s) or next(iter(calibration.by_length), None)
    label = "withheld" if probability is None else label_of(calibration, probability)
    boundary_s = None if reason else boundary_of(torch.logit(segments, LEAST_PROBABILITY))
    if boundary_s is not None and label == "original" and not is_judged_after(calibration, boundary_s, duration_s):
        boundary_s = None
    return Verdict(
        label=label,
        probability=probability,
        threshold=calibration.threshold,
        false_positive_rate=measured and measured.false_positive_rate,
        false_negative_rate=measured and measured.false_negative_rate,
        num_originals=measured.num_originals if measured else 0,
        num_generated=measured.num_generated if measured else 0,
        reason=reason,
        segment_times_s=() if reason else tuple(SEGMENT_S * n for n in range(segments.shape[0])),
        segment_probabilities=() if reason else tuple(segments.tolist()),
        boundary_s=boundary_s,
        scope_distance=scope_distance,
        measured_s=measured and measured.seconds,
        uncertain_low=calibration.uncertain_low,
        uncertain_high=calibration.uncertain_high,
        wrong_rate=measured and measured.wrong_rate,
        num_answers=measured.num_decided if measured else 0,
    )


def after_boundary(whole: Verdict, part: Verdict) -> Verdict:
    """What to say of a clip whose boundary was named, and whose part after it was judged by itself.

    Where that part is an original too, there was no boundary. Where it cannot be judged, what is said of the whole
    stands if that is "generated".
    """
    if part.label == "original":
        return dataclasses.replace(whole, boundary_s=None)
    if part.label == "withheld" and whole.label == "generated":
        return whole
    reason = part.reason and f"{part.reason} (after a possible boundary at {whole.boundary_s:.1f} s)"
    kept = {name: getattr(whole, name) for name in ("segment_times_s", "segment_probabilities", "boundary_s")}
    kept["judged_from_s"] = whole.boundary_s
    return dataclasses.replace(part, reason=reason, **({} if reason else kept))


def probability_of(calibration: DetectorCalibration, logits: Tensor) -> Tensor:
    """Logits of any shape -> calibrated probabilities, float64 (Platt scaling)."""
    return torch.sigmoid(calibration.scale * logits.double() + calibration.bias)


def segment_probabilities_of(calibration: DetectorCalibration, logits: Tensor) -> Tensor:
    """The same for logits of segments, which have a scaling of their own."""
    return torch.sigmoid(calibration.segment_scale * logits.double() + calibration.segment_bias)


def is_judged_after(calibration: DetectorCalibration, boundary_s: float, duration_s: float) -> bool:
    """Whether what lies after a boundary is long enough to be judged by itself."""
    least_s = shortest_answered_s(calibration)
    return least_s is not None and duration_s - boundary_s >= least_s


def boundary_of(log_odds: Tensor) -> float | None:
    """Log odds of "generated" [N], one every 0.25 s -> where an original becomes generated, or None.

    The cut under which the segments before it as originals and those after it as generated are likeliest; None unless
    that beats one kind throughout by `MIN_EVIDENCE`. Neighbours share what they see, so each counts a quarter; a single
    one can say no more than `LARGEST_ODDS`.
    """
    evidence = log_odds.clamp(-LARGEST_ODDS, LARGEST_ODDS) / SEGMENTS_SEEN
    total, before = float(evidence.sum()), evidence.cumsum(0)
    if len(evidence) < 2 * MIN_SIDE:
        return None
    gains = (total - 2 * before)[MIN_SIDE - 1 : len(evidence) - MIN_SIDE]  # cut after segment MIN_SIDE - 1, ...
    best = int(gains.argmax())
    if float(gains[best]) - abs(total) < MIN_EVIDENCE:
        return None
    return SEGMENT_S * (best + MIN_SIDE - 0.5)


def label_of(calibration: DetectorCalibration, probability: float) -> str:
    """ "uncertain" inside the band, else the side of the threshold."""
    if calibration.uncertain_low < probability < calibration.uncertain_high:
        return "uncertain"
    return "generated" if probability >= calibration.threshold else "original"


def withheld_reason(samples: Tensor, config: DetectorConfig) -> str:
    """Why the detector should not judge samples [T] (16 kHz), or "" where it may; each with the limit and the value."""
    if not config.calibration.by_length:
        return "this detector's error rates have not been measured"
    if config.withheld:
        return config.withheld
    if reason := _length_reason(config.calibration, samples.shape[0] / SAMPLE_RATE_HZ):
        return reason
    if not bool(torch.isfinite(samples).all()):
        return "some samples are not finite"
    sound_s = float(sounding_s(samples[None])[0])
    if sound_s < MIN_SOUND_S:
        return f"near silence: {sound_s:.2f} s lie above {SOUND_DB:g} dB, at least {MIN_SOUND_S:g} s are needed"
    share = clipped_share(samples)
    if share > MAX_CLIPPED_SHARE:
        return f"clipped: {100 * share:.1f} % of the samples, at most {100 * MAX_CLIPPED_SHARE:g} % are accepted"
    return ""


def shortest_answered_s(calibration: DetectorCalibration) -> float | None:
    """The length from which on answers are surely right often enough; None where the longest clips' are not."""
    bad = [place for place, rates in enumerate(calibration.by_length) if not _is_reliable(rates)]
    good = calibration.by_length[bad[-1] + 1 if bad else 0 :]
    return good[0].seconds if good else None


def _length_reason(calibration: DetectorCalibration, duration_s: float) -> str:
    """Why clips of this length are not judged, or "": none was measured, too few were answered or too many wrongly."""
    from_s, measured = shortest_answered_s(calibration), calibration.rates_of(duration_s)
    if from_s is not None and duration_s >= from_s:
        return ""
    needed = "longer ones are judged no better" if from_s is None else f"at least {from_s:g} s are needed"
    if measured is None:
        return f"too short: {duration_s:.2f} s, {needed}"
    worst = next(r for r in calibration.by_length if r.seconds >= measured.seconds and not _is_reliable(r))
    return (
        f"not reliable at this length: of its {worst.num_decided:,} answers to held-out clips of {worst.seconds:g} s, "
        f"{100 * worst.wrong_rate:.1f} % are wrong (both kinds count the same) and up to "
        f"{100 * _most_wrong(worst):.1f} % may be, at most {100 * MAX_WRONG_RATE:g} % are accepted; {needed}"
    )


def _most_wrong(rates: LengthRates) -> float:
    """Upper end of the 95 % interval of the share of wrong answers: 1 where there were none."""
    return wilson_interval(rates.wrong_rate * rates.num_decided, rates.num_decided)[1]


def _is_reliable(rates: LengthRates) -> bool:
    return _most_wrong(rates) <= MAX_WRONG_RATE


def sounding_s(waveforms: Tensor) -> Tensor:
    """[B, T] -> [B] seconds in 50 ms windows whose level, about the clip's mean, exceeds `SOUND_DB`."""
    centred = waveforms - waveforms.mean(dim=1, keepdim=True)
    power = centred.unfold(1, _WINDOW, _WINDOW).square().mean(dim=2)
    return (power > 10.0 ** (SOUND_DB / 10.0)).sum(dim=1) * (_WINDOW / SAMPLE_RATE_HZ)


def clipped_share(samples: Tensor) -> float:
    """Share of samples [T] on flat tops: at the clip's peak and equal to the sample before (whatever its level now)."""
    peak = samples.abs().max()
    flat = (samples[1:].abs() >= 0.999 * peak) & ((samples[1:] - samples[:-1]).abs() <= 1e-4 * peak)
    return float(flat.float().mean())
