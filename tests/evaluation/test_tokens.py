"""Codebook use, probes, likelihood: figures of token streams."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from audiolm.data.corpus import select_items
from audiolm.data.tokens import TokenItem
from audiolm.errors import EvaluationError
from audiolm.evaluation import codebook_use
from audiolm.evaluation.codebook_use import code_counts, use_share
from audiolm.evaluation.holdout import HoldOut, TokenPair, spread
from audiolm.evaluation.likelihood import (
    Bigram,
    Unigram,
    Window,
    crop_windows,
    foreign_condition,
    is_met,
    stage_figures,
    stage_nats,
    stage_window,
)
from audiolm.evaluation.probes import (
    Probed,
    coarse_vectors,
    histogram,
    one_hot_pairs,
    probe,
    probe_figures,
    ridge,
    sounding_instants,
)
from audiolm.evaluation.subject import Subject
from audiolm.lm import SPECS, semantic_steps
from audiolm.nn.quantize import perplexity
from tests.tiny import tiny_configs, tiny_modules


def pair(group: str, positions: int, seed: int = 0) -> TokenPair:
    generator = torch.Generator().manual_seed(seed)
    semantic = torch.randint(24, (positions,), generator=generator)
    return TokenPair(f"{group}-{seed}", group, torch.randint(32, (2 * positions, 4), generator=generator), semantic)


# ---- which items


def test_items_are_spread_evenly_over_groups_in_their_order():
    items = [pair("a", 1, seed) for seed in range(5)] + [pair("b", 1), pair("c", 1), pair("c", 1, 1)]
    assert [item.id for item in spread(items, 5)] == ["a-0", "a-1", "b-0", "c-0", "c-1"]
    assert spread(items, 100) == items


def test_a_row_that_needs_several_items_a_speaker_takes_fewer_speakers():
    items = [pair(group, 1, seed) for group in "abcd" for seed in range(1 if group == "b" else 5)]
    assert [item.id for item in spread(items, 7, each=3)] == ["a-0", "a-1", "a-2", "a-3", "c-0", "c-1", "c-2"]
    assert [item.id for item in spread(items, 100, each=3)] == [item.id for item in items if item.group != "b"]
    assert spread(items, 2, each=3) == []


def cache(num_train: int, num_single_words: int = 0) -> SimpleNamespace:
    """Stands in for a token cache: one position each of training items, of which single words are not fluent."""
    items = [
        TokenItem(f"t{index}", 2 * index, 2, f"voice-{index % 7}", "train", index >= num_single_words)
        for index in range(num_train + num_single_words)
    ]
    ids = torch.zeros(1, dtype=torch.int16)
    return SimpleNamespace(
        select=lambda split, fluent: select_items(items, split, fluent, None),
        codes=lambda item: torch.zeros(2, 4, dtype=torch.int16),
        semantic=lambda item: ids,
    )


def test_baselines_are_counted_on_every_fluent_training_item_of_all_caches():
    holdout = HoldOut(Subject("tiny"), None, [cache(3000, num_single_words=50), cache(40)], num_items=5)
    assert len(holdout.training_pairs(2)) == 3040
    with pytest.raises(EvaluationError, match="no fluent items of split train"):
        HoldOut(Subject("tiny"), None, [cache(0, num_single_words=5)]).training_pairs(2)


# ---- codebook use


def test_even_use_is_one_and_a_single_code_is_one_in_k():
    codes = torch.stack([torch.arange(64) % 8, torch.zeros(64, dtype=torch.long)], dim=1)
    assert use_share(code_counts(codes, 8)).tolist() == pytest.approx([1.0, 1 / 8])


def test_use_is_the_perplexity_of_training():
    codes = torch.randint(16, (200, 3), generator=torch.Generator().manual_seed(0)) ** 2 // 16
    assert use_share(code_counts(codes, 16)) == pytest.approx(perplexity(codes, 16).numpy() / 16, rel=1e-5)


def test_intervals_of_codebook_use_are_over_speakers():
    pairs = [TokenPair(f"{id}", f"voice-{id % 2}", torch.full((4, 1), id % 2), None) for id in range(40)]
    subject = SimpleNamespace(require=lambda *names: None, codec=SimpleNamespace(codebook_size=2))
    report = codebook_use.measure(SimpleNamespace(subject=subject, holdout=SimpleNamespace(pairs=lambda count: pairs)))
    (level,) = report.figures
    assert (level.value, level.n) == (1.0, 40)
    assert level.high - level.low > 0.8  # half of the draws hold one speaker alone, who uses half of the codes


# ---- probes


def test_ridge_gives_the_same_weights_with_more_rows_than_columns_and_with_fewer():
    x = torch.randn(12, 12, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    y = torch.randn(12, 2, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    tall = ridge(x, y, 0.1)
    wide = ridge(torch.cat([x, torch.zeros(12, 1)], dim=1).double(), y, 0.1)
    torch.testing.assert_close(wide[:12], tall)


def test_a_probe_reads_what_is_linearly_there_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (400,), generator=generator)
    noise = torch.randn(400, 20, generator=generator)
    train = torch.arange(400) < 200
    told = noise.clone()
    told[torch.arange(400), labels] += 4.0
    assert probe(told, labels, train).float().mean() > 0.9
    assert probe(noise, labels, train).float().mean() < 0.4


def test_probe_figures_carry_the_difference_of_the_two_kinds():
    labels = torch.arange(80) % 2
    clear, blind = torch.nn.functional.one_hot(labels, 2).float(), torch.zeros(80, 2)
    groups = [f"voice-{index % 5}" for index in range(80)]
    probed = Probed({"h, semantic": blind, "h, coarse": clear}, labels, torch.arange(80) < 40, groups)
    figures, (gap,) = probe_figures(probed)
    assert [figure.value for figure in figures] == pytest.approx([0.5, 1.0, -0.5, 0.5])
    assert {figure.n for figure in figures} == {40}
    assert gap.high < 0.0


def test_intervals_of_probes_are_over_speakers():
    labels = torch.arange(160) % 2
    clear = torch.nn.functional.one_hot(labels, 2).float()
    spoilt = clear.clone()
    spoilt[120:] = spoilt[120:].flip(1)  # all that the last speaker says is named wrong
    groups = ["a"] * 80 + ["b"] * 40 + ["c"] * 40
    probed = Probed({"h, semantic": spoilt, "h, coarse": clear}, labels, torch.arange(160) < 80, groups)
    figures, (gap,) = probe_figures(probed)
    assert (figures[0].value, figures[0].low, figures[0].high) == (0.5, 0.0, 1.0)
    assert (gap.value, gap.low, gap.high) == (-0.5, -1.0, 0.0)


def test_a_histogram_holds_roots_of_shares_level_by_level():
    ids = torch.tensor([[0, 1], [0, 1], [0, 0], [2, 1]])
    expected = [math.sqrt(0.75), 0.0, 0.5, 0.5, math.sqrt(0.75), 0.0]
    assert histogram(ids, 3).tolist() == pytest.approx(expected)


def test_coarse_vectors_add_up_code_vectors():
    codebooks = torch.arange(12.0).reshape(2, 3, 2)
    assert coarse_vectors(torch.tensor([[1, 2]]), codebooks).tolist() == [[2 + 10, 3 + 11]]


def test_two_frames_share_one_semantic_position():
    rows = one_hot_pairs(torch.tensor([[0], [1], [2], [2]]), 3)
    assert rows.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]


def test_instants_are_spread_and_silent_ones_left_out():
    energy = np.ones((12, 100))
    energy[:, :40] = 1e-9
    chosen = sounding_instants(energy, count=20)
    assert len(chosen) == 20
    assert int(chosen.min()) == 40


# ---- likelihood


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
@pytest.mark.parametrize("layout", ["depth", "flattened"])
def test_windows_are_what_the_stage_was_trained_on(stage, layout):
    config, one = tiny_configs(layout)[f"stage_{stage}"], pair("a", 40)
    window = stage_window(config, "a", one.semantic, one.codes)
    targets = SPECS[stage].targets(one.semantic, one.codes, 2, len(config.levels))
    condition = SPECS[stage].condition(one.semantic, one.codes, 2)
    assert torch.equal(window.targets, targets[:-1] if stage == "semantic" else targets)
    assert (window.condition is None) == (condition is None)
    assert condition is None or torch.equal(window.condition, condition)


def test_neighbours_of_a_group_are_joined_and_cut_to_the_trained_length():
    config = tiny_configs()["stage_coarse"]  # 10 s
    windows = crop_windows(config, [pair("a", 200, 0), pair("a", 200, 1), pair("b", 30, 2), pair("c", 20, 3)])
    assert [(window.group, len(window.targets), len(window.condition)) for window in windows] == [
        ("a", 500, 250),
        ("a", 300, 150),
        ("b", 60, 30),
    ]


def test_a_foreign_condition_comes_from_another_group_at_the_same_length():
    windows = [
        Window("a", torch.zeros(4, 1), torch.tensor([[1], [2]])),
        Window("a", torch.zeros(4, 1), torch.tensor([[3], [4]])),
        Window("b", torch.zeros(6, 1), torch.tensor([[5], [6], [7]])),
    ]
    assert foreign_condition(windows, 0).flatten().tolist() == [5, 6]
    assert foreign_condition(windows, 2).flatten().tolist() == [1, 2, 1]
    with pytest.raises(EvaluationError, match="two groups"):
        foreign_condition(windows[:2], 0)


def test_intervals_of_likelihood_are_over_speakers():
    config = tiny_configs()["stage_coarse"]
    codes = [torch.full((500, 4), voice) for voice in (1, 2)]
    pairs = [
        TokenPair(f"{index}", f"voice-{voice}", codes[voice], torch.zeros(250, dtype=torch.long))
        for voice in (0, 1)
        for index in range(20)
    ]

    class Model:
        """A step costs 1 nat in the first voice and 2 in the second."""

        def loss(self, targets, condition):
            return None, targets.float().mean(dim=(0, 1)) * torch.tensor([1.0, 0.0])

    model = Model()
    model.config = config
    figures, _ = stage_figures(model, pairs, pairs, SimpleNamespace(progress=lambda things, label: things))
    for name in ("coarse: nats", "coarse, level 0: nats"):
        figure = next(figure for figure in figures if figure.name == name)
        assert (figure.value, figure.low, figure.high, figure.n) == pytest.approx((1.5, 1.0, 2.0, 40))
    gain = next(figure for figure in figures if figure.name == "coarse: relative gain over unigram")
    assert gain.high - gain.low > 0.1


def test_gains_over_baselines_that_were_counted_on_few_items_are_believed_only_where_they_miss():
    assert is_met([0.5, 0.1], counted_on_all=True) is True
    assert is_met([0.5, 0.1], counted_on_all=False) is None
    assert is_met([0.5, 0.09], counted_on_all=True) is is_met([0.5, 0.09], counted_on_all=False) is False


def test_unigrams_count_with_one_added():
    unigram = Unigram([torch.tensor([[0], [0]])], (2,))
    assert unigram.nats(torch.tensor([[0], [1]])) == pytest.approx([-math.log(3 / 4) - math.log(1 / 4)])


def test_bigrams_sum_to_one_and_learn_an_order():
    steps = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])[:, None]
    unigram = Unigram([steps], (4,))
    bigram = Bigram([steps], 4, unigram)
    assert bigram.log_next.exp().sum(dim=1).tolist() == pytest.approx([1.0] * 4)
    assert bigram.nats(steps[:, 0]) < 0.6 * unigram.nats(steps)[0]


@pytest.mark.parametrize("layout", ["depth", "flattened"])
def test_stage_nats_are_those_of_the_logits(layout):
    model = tiny_modules(layout=layout)["stage_semantic"].eval()
    targets = semantic_steps(pair("a", 40).semantic)[:, : len(model.config.levels)]
    with torch.no_grad():
        found = model.logits(targets[None], None)
    expected = [
        float(torch.nn.functional.cross_entropy(logits[0], targets[:, level], reduction="sum"))
        for level, logits in enumerate(found)
    ]
    assert stage_nats(model, targets, None) == pytest.approx(expected, rel=1e-4)
