"""Distances of two sets of clips, on clips whose differences are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from audiolm.evaluation.resemblance import (
    ASPECTS,
    Clip,
    describe,
    distances,
    divergence,
    frechet,
    ngrams,
    noise_floor_db,
    score,
    semantic_numbers,
)

RATE = 16_000
HERE = np.arange(6)[None]


def clip(seed: int, gain: float = 1.0, hiss: float = 0.0, ids: int = 24) -> Clip:
    """Decaying tones of any pitch, with ids and codes of their own."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(RATE // 4) / RATE
    pitches = 200.0 + 600.0 * torch.rand(8, generator=generator)
    notes = torch.cat([0.3 * torch.sin(2 * torch.pi * hertz * time) * torch.exp(-8 * time) for hertz in pitches])
    noise = torch.randn(len(notes), generator=generator)
    prompt, rest = notes[: RATE // 2], notes[RATE // 2 :] * gain + hiss * noise[RATE // 2 :]
    semantic = torch.randint(ids, (len(notes) // 640,), generator=generator)
    return Clip(prompt, rest, semantic, RATE // 2 // 640, torch.randint(32, (75, 2), generator=generator))


def described(clips, known=None):
    return [describe(one, "piano", 32, known) for one in clips]


@pytest.fixture(scope="module")
def originals():
    return described([clip(seed) for seed in range(6)])


def test_a_set_is_at_no_distance_from_itself_in_any_order(originals):
    found = distances(originals[::-1], originals, HERE)
    assert {name: values[0] for name, values in found.items()} == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-6)
    assert score(found)[0] == pytest.approx(0.0, abs=1e-6)
    assert {"novelty"} == {name for names in ASPECTS.values() for name in names} - set(found)


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"hiss": 0.01}, "noise floor (dB)"),
        ({"hiss": 0.01}, "cepstra"),
        ({"gain": 0.1}, "level drift (dB)"),
        ({"ids": 2}, "entropy"),
        ({"ids": 2}, "loops"),
    ],
)
def test_a_difference_is_seen_by_its_own_feature(originals, change, feature):
    changed = described([clip(seed, **change) for seed in range(6)])
    other = described([clip(seed + 100) for seed in range(6)])
    found, chance = distances(changed, originals, HERE), distances(other, originals, HERE)
    assert found[feature][0] > 2.0 * chance[feature][0]
    assert score(found)[0] > 0.1


def test_originals_that_do_not_differ_at_all_leave_distances_finite(originals):
    silent = described([replace(clip(0), continuation=torch.zeros(RATE)) for _ in range(6)])
    assert score(distances(silent, silent, HERE))[0] == pytest.approx(0.0, abs=1e-3)
    assert all(np.isfinite(values).all() for values in distances(originals, silent, HERE).values())


def test_silence_is_counted_by_the_loudness_of_the_prompt():
    quiet = describe(replace(clip(0), continuation=torch.zeros(RATE)), "piano", 32)
    assert quiet.numbers["silence"] == 1.0
    assert describe(clip(0), "speech", 32).numbers.keys() == quiet.numbers.keys() - {"key distance"}


def test_semantic_figures_of_a_loop():
    ids = torch.tensor([1, 2, 3, 4] + [5, 5, 6, 7] * 3)
    figures = semantic_numbers(ids, 4)
    assert figures["commonest"] == 0.5
    assert figures["repeats"] == pytest.approx(3 / 11)
    assert figures["entropy"] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
    assert figures["loops"] == pytest.approx(4 / 7)  # 567 675 756 are new, then they come again
    known = np.sort(ngrams(np.array([5, 6, 7, 5])))
    assert semantic_numbers(ids, 4, known)["novelty"] == pytest.approx(2 / 7)


def test_ngrams_are_of_merged_tokens_and_none_where_there_are_too_few():
    assert len(ngrams(np.array([1, 1, 1, 2, 2]))) == 0
    assert ngrams(np.array([1, 1, 2, 3, 3])) == ngrams(np.array([1, 2, 2, 3]))
    assert ngrams(np.array([1, 2, 3])) != ngrams(np.array([3, 2, 1]))


def test_the_noise_floor_is_the_level_between_the_notes():
    noise = 0.01 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    assert noise_floor_db(noise) == pytest.approx(-41.25, abs=1.0)  # three quarters of -40 dB lie above 2 kHz
    assert noise_floor_db(torch.zeros(RATE)) == pytest.approx(-100.0, abs=0.1)


def test_the_frechet_distance_of_normal_distributions_is_the_known_one():
    def moments(mean, deviations):
        outer = np.diag(np.square(deviations)) + np.outer(mean, mean)
        return np.concatenate([[1.0], mean, outer.ravel()])

    a, b = moments(np.zeros(2), np.array([1.0, 2.0])), moments(np.array([3.0, 0.0]), np.array([2.0, 2.0]))
    assert frechet(a, b, np.ones(2)) == pytest.approx(math.sqrt((9.0 + 1.0) / 2))
    assert frechet(a, b, np.full(2, 2.0)) == pytest.approx(math.sqrt((9.0 + 1.0) / 8))


def test_codes_without_overlap_are_one_apart():
    assert divergence(np.array([[4, 0]]), np.array([[0, 9]])) == 1.0
    assert divergence(np.array([[4, 2]]), np.array([[8, 4]])) == pytest.approx(0.0, abs=1e-7)
