"""How alike are continuations and what the recordings really went on with, taken as two sets? No pairing, no ear.

Every clip is described by a few numbers, its log-mel cepstra by their moments, its coarse codes by their counts. The
distance of two sets is, for a number, the 1-Wasserstein distance of its two distributions in standard deviations of
the originals' (or in a least spread, where these hardly differ); for the cepstra, the root of the Fréchet distance of
two normal distributions (as in FAD, K. Kilgour et al., arXiv 1812.08466, whose network we do without) over cepstra in
the originals' standard deviations, per dimension; for the codes the root of the Jensen-Shannon divergence in bits. All
are about 0 for equal sets, and of order 1 where sets differ by as much as the originals differ among themselves; a
finite sample of equal sets lies above 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from audiolm.audio.levelling import active_frames
from audiolm.audio.spectra import log_mel
from audiolm.config import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from audiolm.evaluation.faults import power_spectra
from audiolm.evaluation.memory import merge
from audiolm.evaluation.music import correlation, key_profile, onset_rate

ASPECTS = {
    "spectrum": ("cepstra", "slopes"),
    "noise": ("noise floor (dB)",),
    "pace": ("onsets (log rate)",),
    "level": ("level drift (dB)", "silence"),
    "key": ("key distance",),
    "semantic": ("entropy", "repeats", "commonest", "loops", "novelty"),
    "coarse": ("codes",),
}
"""What is judged, with equal weight, each as the mean of the features of it that there are."""

LEAST_SPREAD = {"noise floor (dB)": 1.0, "level drift (dB)": 1.0, "onsets (log rate)": 0.1, "entropy": 0.1}
LEAST_SHARE = 0.05  # the least spread of shares and of key distances: originals that hardly differ are no yardstick
LEAST_CEPSTRAL_SPREAD = 1e-3  # likewise, far below that of any recording
NUM_MELS, NUM_CEPSTRA = 80, 20
HOP = 320
MEL_FLOOR = 1e-4
NOISE_FROM_HZ = 2000.0
NOISE_QUANTILE = 0.1
NGRAM = 3  # merged semantic tokens
_POWER_FLOOR = 1e-10


@dataclass(frozen=True)
class Clip:
    """prompt [P] and what follows it [C] at 16 kHz; semantic ids [S] of both at 25 Hz, `num_known` of them the
    prompt's; coarse codes [F, Lc] of what follows."""

    prompt: Tensor
    continuation: Tensor
    semantic: Tensor
    num_known: int
    coarse: Tensor


@dataclass(frozen=True)
class Described:
    """One clip: numbers by feature; moments of cepstra and their slopes [1 + D + D * D]; counts of codes [Lc, K]."""

    numbers: dict[str, float]
    cepstra: np.ndarray
    slopes: np.ndarray
    codes: np.ndarray


def describe(clip: Clip, domain: str, codebook_size: int, known: np.ndarray | None = None) -> Described:
    """`known` are the n-grams of the training tokens (`ngrams`), sorted; without them novelty is left out."""
    cepstra = _cepstra(clip.continuation)
    numbers = {
        "noise floor (dB)": noise_floor_db(clip.continuation) - noise_floor_db(clip.prompt),
        "onsets (log rate)": math.log(onset_rate(clip.continuation) + 0.5),
        "level drift (dB)": _level_db(clip.continuation[len(clip.continuation) // 2 :]) - _level_db(clip.prompt),
        "silence": silence_share(clip.prompt, clip.continuation),
        **semantic_numbers(clip.semantic, clip.num_known, known),
    }
    if domain == "piano":
        numbers["key distance"] = 1.0 - correlation(key_profile(clip.prompt), key_profile(clip.continuation))
    counts = [np.bincount(level, minlength=codebook_size) for level in clip.coarse.numpy().T]
    return Described(numbers, _moments(cepstra), _moments(cepstra[4:] - cepstra[:-4]), np.stack(counts))


def semantic_numbers(ids: Tensor, num_known: int, known: np.ndarray | None = None) -> dict[str, float]:
    """ids [S], the prompt's `num_known` first -> figures of the rest.

    Entropy of its ids in nats; share of positions that repeat the one before; share of the commonest id; share of its
    merged n-grams that came before in these ids ("loops"), and that no training recording has ("novelty").
    """
    new = ids[num_known:].numpy()
    counts = np.bincount(new)
    shares = counts[counts > 0] / len(new)
    numbers = {
        "entropy": float(-(shares * np.log(shares)).sum()),
        "repeats": float((new[1:] == new[:-1]).mean()) if len(new) > 1 else 0.0,
        "commonest": float(shares.max()),
    }
    all_ngrams, own = ngrams(ids.numpy()), ngrams(new)
    before = len(all_ngrams) - len(own)
    if len(own):
        first = np.unique(all_ngrams, return_index=True)[1]
        numbers["loops"] = 1.0 - float((first >= before).sum()) / len(own)
        if known is not None:
            numbers["novelty"] = 1.0 - float(np.isin(own, known).mean())
    return numbers


def ngrams(ids: np.ndarray) -> np.ndarray:
    """ids [S] -> [M] int64, one number for every three neighbours after merging repeats (ids below 2^20)."""
    merged = merge(ids.astype(np.int64))
    return (
        sum(merged[i : len(merged) - NGRAM + 1 + i] << 20 * i for i in range(NGRAM))
        if len(merged) >= NGRAM
        else merged[:0]
    )


def noise_floor_db(waveform: Tensor) -> float:
    """[T] -> level above 2 kHz in the quietest tenth of 32 ms windows, dB relative to full scale."""
    power = power_spectra(waveform, 512, 256)[math.ceil(NOISE_FROM_HZ * 512 / SAMPLE_RATE_HZ) :].sum(dim=0)
    return float(torch.quantile(10.0 * torch.log10(power + _POWER_FLOOR), NOISE_QUANTILE))


def silence_share(prompt: Tensor, continuation: Tensor) -> float:
    """Share of 20 ms frames of the continuation that hold no sound, by the loudness of prompt and continuation."""
    active = active_frames(torch.cat([prompt, continuation]))[len(prompt) // SAMPLES_PER_FRAME :]
    return float((~active).double().mean())


def distances(
    generated: Sequence[Described], originals: Sequence[Described], draws: np.ndarray
) -> dict[str, np.ndarray]:
    """Distances of two sets of N clips by feature, for every row of `draws` [D, N], which are indices into both."""
    found = {}
    for name in originals[0].numbers:
        if all(name in one.numbers for one in (*generated, *originals)):
            ours, theirs = (np.array([one.numbers[name] for one in side]) for side in (generated, originals))
            apart = np.abs(np.sort(ours[draws]) - np.sort(theirs[draws])).mean(axis=1)
            found[name] = apart / max(theirs.std(), LEAST_SPREAD.get(name, LEAST_SHARE))
    for name in ("cepstra", "slopes"):
        ours, theirs = (np.stack([getattr(one, name) for one in side]) for side in (generated, originals))
        scale = np.sqrt(np.maximum(np.diag(_normal(theirs.sum(axis=0))[1]), LEAST_CEPSTRAL_SPREAD**2))
        found[name] = np.array([frechet(ours[row].sum(axis=0), theirs[row].sum(axis=0), scale) for row in draws])
    ours, theirs = (np.stack([one.codes for one in side]).astype(float) for side in (generated, originals))
    found["codes"] = np.array([divergence(ours[row].sum(axis=0), theirs[row].sum(axis=0)) for row in draws])
    return found


def score(found: dict[str, np.ndarray]) -> np.ndarray:
    """Distances [D] by feature -> [D]: mean over the aspects, each the mean of its features; less is more alike."""
    aspects = [[found[name] for name in names if name in found] for names in ASPECTS.values()]
    return np.mean([np.mean(features, axis=0) for features in aspects if features], axis=0)


def frechet(ours: np.ndarray, theirs: np.ndarray, scale: np.ndarray) -> float:
    """Moments [1 + D + D * D] of two sets, scale [D] -> root of the Fréchet distance a dimension, in `scale`s."""
    (mean_a, cov_a), (mean_b, cov_b) = _normal(ours), _normal(theirs)
    mean, outer = (mean_a - mean_b) / scale, np.outer(scale, scale)
    values, vectors = np.linalg.eigh(cov_a / outer)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ (cov_b / outer) @ root)
    spread = np.trace((cov_a + cov_b) / outer) - 2.0 * np.sqrt(np.maximum(cross, 0.0)).sum()
    return float(np.sqrt((mean @ mean + max(spread, 0.0)) / len(mean)))


def divergence(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Counts [L, K] of two sets -> root of the Jensen-Shannon divergence in bits, 0..1, mean over the levels."""
    p, q = (counts / counts.sum(axis=1, keepdims=True) for counts in (ours, theirs))
    return float(np.sqrt(np.maximum(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2, 0.0)).mean())


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -(shares * np.log2(np.maximum(shares, 1e-300))).sum(axis=-1)


def _level_db(waveform: Tensor) -> float:
    return 10.0 * math.log10(float(waveform.double().square().mean()) + _POWER_FLOOR)


def _cepstra(waveform: Tensor) -> np.ndarray:
    """[T] -> [T // 320 + 1, 20] at 50 Hz."""
    spectra = log_mel(waveform[None], NUM_MELS, hop_length=HOP, floor=MEL_FLOOR)[0].double().numpy()
    return spectra.T @ _cosines()


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """[80, 20]: the discrete cosine transform's first basis vectors."""
    angles = np.pi / NUM_MELS * (np.arange(NUM_MELS)[:, None] + 0.5) * np.arange(NUM_CEPSTRA)
    return np.cos(angles) * math.sqrt(2.0 / NUM_MELS)


def _moments(frames: np.ndarray) -> np.ndarray:
    """[N, D] -> [1 + D + D * D]: their number, sum and sum of outer products, which add up over clips."""
    return np.concatenate([[len(frames)], frames.sum(axis=0), (frames.T @ frames).ravel()])


def _normal(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments -> mean [D], covariance [D, D]."""
    size = math.isqrt(len(moments))  # 1 + D + D^2 lies between D^2 and (D + 1)^2
    mean = moments[1 : 1 + size] / moments[0]
    return mean, moments[1 + size :].reshape(size, size) / moments[0] - np.outer(mean, mean)
