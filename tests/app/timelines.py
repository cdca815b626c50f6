"""Timelines of made-up tokens and scores, of any length; what they hold is known, and never twice the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from audiolm.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SEMANTIC_RATE_HZ
from audiolm.detector import Verdict
from audiolm.inspection.pianoroll import Roll
from audiolm.inspection.scores import NUM_ALTERNATIVES, TokenScores
from audiolm.inspection.seam import Seam
from audiolm.inspection.timeline import Timeline, TokenLane
from audiolm.streams import Waveform

CODEBOOK = 1024
NUM_COARSE = 4


def make_timeline(seconds: float, prompt_s: float = 3.0, num_levels: int = 12, seed: int = 0) -> Timeline:
    """A continuation with everything a timeline can have: scores, verdict, seam, roll, a lane with a note."""
    draw = torch.Generator().manual_seed(seed)
    semantic = _runs(round(seconds * SEMANTIC_RATE_HZ), draw)
    codes = torch.randint(CODEBOOK, (round(seconds * FRAME_RATE_HZ), num_levels), generator=draw)
    heard = semantic.roll(1, dims=0)
    note = "re-estimated from the output"
    return Timeline(
        waveform=make_waveform(seconds, seed),
        prompt_s=prompt_s,
        generated=prompt_s > 0,
        lanes=(
            TokenLane("semantic", "semantic", SEMANTIC_RATE_HZ, 0, semantic, make_scores(semantic, draw, 1.0)),
            TokenLane("semantic", "semantic, heard again", SEMANTIC_RATE_HZ, 0, heard, note=note),
            _acoustic("coarse", codes, 0, NUM_COARSE, draw),
            _acoustic("fine", codes, NUM_COARSE, num_levels, draw),
        ),
        verdict=make_verdict(seconds - prompt_s, seed),
        verdict_start_s=prompt_s,
        seam=Seam(flux=0.4, flux_percentile=0.62, level_step_db=0.8, seamless=True),
        roll=make_roll(seconds, seed),
    )


def make_waveform(seconds: float, seed: int = 0) -> Waveform:
    """Plucked tones, eight a second."""
    rng = np.random.default_rng(seed)
    samples = np.zeros(round(seconds * SAMPLE_RATE_HZ))
    t = np.arange(SAMPLE_RATE_HZ // 2) / SAMPLE_RATE_HZ
    for start in range(0, len(samples) - len(t) + 1, SAMPLE_RATE_HZ // 8):
        hz = 440.0 * 2 ** (rng.integers(-24, 24) / 12)
        tone = sum(np.sin(2 * np.pi * hz * n * t) / n**2 for n in range(1, 6)) * np.exp(-8 * t)
        samples[start : start + len(t)] += rng.uniform(0.05, 0.25) * tone
    return Waveform(torch.from_numpy(samples).float().clamp(-1, 1))


def make_scores(ids: Tensor, draw: torch.Generator, sharpness: float = 2.0) -> TokenScores:
    """Scores of ids [N, L] as a model of random logits would give them; half of the ids are likely ones."""
    logits = torch.randn(*ids.shape, CODEBOOK, generator=draw) * sharpness
    likely = torch.rand(ids.shape, generator=draw) < 0.5
    logits.scatter_add_(-1, ids[..., None], 6.0 * likely[..., None].float())
    logs = logits.log_softmax(-1)
    top = logs.topk(NUM_ALTERNATIVES)
    nats = -logs.gather(-1, ids[..., None])[..., 0]
    return TokenScores(
        nats=nats,
        entropy=-(logs.exp() * logs).sum(-1),
        rank=(logs > -nats[..., None]).sum(-1).int(),
        top_ids=top.indices.int(),
        top_probabilities=top.values.exp(),
    )


def make_verdict(seconds: float, seed: int = 0) -> Verdict:
    times_s = np.arange(0.5, seconds - 0.5, 0.25)
    scores = np.random.default_rng(seed).uniform(0.2, 0.95, len(times_s))
    return Verdict("generated", 0.8, 0.55, 0.04, 0.06, 200, 200, "", "tests", tuple(times_s), tuple(scores))


def make_roll(seconds: float, seed: int = 0) -> Roll:
    rng = np.random.default_rng(seed)
    onsets = np.sort(rng.uniform(0, seconds - 0.5, round(6 * seconds)))
    ends = onsets + rng.uniform(0.1, 0.5, len(onsets))
    return Roll(onsets, ends, rng.integers(40, 84, len(onsets)), rng.integers(30, 110, len(onsets)))


def _acoustic(family: str, codes: Tensor, start: int, end: int, draw: torch.Generator) -> TokenLane:
    ids = codes[:, start:end]
    return TokenLane(family, f"{family} {start + 1}-{end}", FRAME_RATE_HZ, start + 1, ids, make_scores(ids, draw))


def _runs(length: int, draw: torch.Generator) -> Tensor:
    """[length, 1] ids in runs of one to six."""
    ids = torch.randint(CODEBOOK, (length,), generator=draw)
    runs = torch.randint(1, 7, (length,), generator=draw)
    return ids.repeat_interleave(runs)[:length, None]
