"""C5: is the continuation spoken by the voice of the prompt?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from audiolm.errors import EvaluationError
from audiolm.evaluation.continuations import continue_prompts, describe
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import mean_interval, rate_interval

TITLE = "Speaker: the continuation of the prompt against continuations of other speakers' prompts"
TARGET = "the right one most similar to the prompt, among 10, in >= 70 %"
NUM_CANDIDATES = 10
LEVEL_DB = -30.0  # quieter speech is raised to this RMS, as the encoder's own preparation does

Embed = Callable[[Tensor], np.ndarray]


def speaker_encoder() -> Embed:
    """[T] at 16 kHz -> unit vector [256]: the GE2E speaker encoder (L. Wan et al., arXiv 1710.10467) of Resemblyzer.

    Raises EvaluationError where the package cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from resemblyzer import VoiceEncoder
    except ImportError as error:
        raise EvaluationError(f"needs the package resemblyzer (extra `speakers`; {error})") from error
    encoder = VoiceEncoder("cpu", verbose=False)
    return lambda waveform: encoder.embed_utterance(raised_to_level(waveform).numpy())


def raised_to_level(waveform: Tensor, level_db: float = LEVEL_DB) -> Tensor:
    """[T] -> [T] with an RMS level of at least `level_db` relative to full scale; digital silence stays."""
    rms = float(waveform.square().mean().sqrt())
    return waveform * max(1.0, 10.0 ** (level_db / 20.0) / rms) if rms > 0.0 else waveform


def rank_first_rates(similarity: np.ndarray, groups: Sequence[str], num_candidates: int = NUM_CANDIDATES) -> np.ndarray:
    """similarity [N, N] of prompt i and continuation j -> [N] chance that continuation i is the most similar one.

    Among itself and `num_candidates` - 1 drawn from those of other speakers, without replacement; the chance over all
    draws is exact (hypergeometric), and a tie counts against. 1 / num_candidates on average for a model without voices.

    Raises EvaluationError with too few continuations of other speakers.
    """
    rates = np.zeros(len(groups))
    drawn = num_candidates - 1
    for row, group in enumerate(groups):
        others = similarity[row, [column for column, other in enumerate(groups) if other != group]]
        if len(others) < drawn:
            raise EvaluationError(f"needs {drawn} continuations of other speakers, found {len(others)}")
        worse = int((others < similarity[row, row]).sum())
        rates[row] = math.comb(worse, drawn) / math.comb(len(others), drawn)
    return rates


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError for piano, without the speaker encoder, a checkpoint, recordings or a work folder."""
    if inputs.domain != "speech":
        raise EvaluationError("speakers are a matter of speech")
    embed = speaker_encoder()
    samples = continue_prompts(inputs)
    groups = [one.group for one in samples]
    prompts = np.stack([embed(one.prompt) for one in samples])
    continuations = np.stack([embed(one.continuation) for one in samples])
    originals = np.stack([embed(one.original[one.prompt.shape[0] :]) for one in samples])
    similarity, reference = prompts @ continuations.T, prompts @ originals.T
    different = np.array([[a != b for b in groups] for a in groups])
    others = (similarity * different).sum(axis=1) / np.maximum(different.sum(axis=1), 1)
    figures = (
        Figure.computed("right speaker first", lambda: rate_interval(rank_first_rates(similarity, groups))),
        Figure.computed("the same, originals", lambda: rate_interval(rank_first_rates(reference, groups))),
        Figure.of("cosine, prompt and its continuation", mean_interval(similarity.diagonal())),
        Figure.of("cosine, prompt and others' continuations", mean_interval(others)),
        Figure.of("cosine, prompt and the original's rest", mean_interval(reference.diagonal())),
    )
    rate = figures[0].value
    notes = (describe(samples), f"everything through the codec; chance is {1 / NUM_CANDIDATES:.0%}")
    return RowReport("C5", TITLE, TARGET, figures, None if rate is None else rate >= 0.70, notes)
