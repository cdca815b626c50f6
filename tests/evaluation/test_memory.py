"""Stretches shared with the training set: a copied one is found, a fresh one is not."""

import numpy as np
import pytest
import torch

from audiolm.checkpoints.format import load_checkpoint
from audiolm.data.corpus import Corpus, CorpusWriter, to_pcm
from audiolm.data.tokens import TokenCorpus, build, list_recordings
from audiolm.errors import EvaluationError
from audiolm.evaluation import memory
from audiolm.evaluation.holdout import HoldOut
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.memory import MIN_PROMPTS, Stretch, figures_of, longest_shared, measure, merge, within_margin
from audiolm.evaluation.report import Figure
from audiolm.evaluation.subject import from_checkpoint
from audiolm.request import ContinuationRequest
from tests.tiny import make_tiny_checkpoint

DRAW = np.random.default_rng(0)


def ids(count: int, size: int = 500) -> np.ndarray:
    return DRAW.integers(size, size=count)


def longest_by_hand(query: np.ndarray, recordings: list[np.ndarray]) -> int:
    texts = ["," + ",".join(map(str, one)) + "," for one in recordings]
    found = 0
    for start in range(len(query)):
        for end in range(start + 1, len(query) + 1):
            if any("," + ",".join(map(str, query[start:end])) + "," in text for text in texts):
                found = max(found, end - start)
    return found


def test_the_longest_stretch_is_that_of_a_search_by_hand():
    recordings = [ids(count, 4) for count in (1, 30, 80)]
    queries = [ids(25, 4) for _ in range(8)] + [ids(3, 4) + 4]
    lengths, stretch = longest_shared(queries, recordings)
    assert lengths.tolist() == [longest_by_hand(query, recordings) for query in queries]
    assert lengths[-1] == 0
    copied = queries[stretch.query][stretch.start : stretch.start + stretch.length]
    found = recordings[stretch.found][stretch.found_start : stretch.found_start + stretch.length]
    assert stretch.length == lengths.max()
    assert copied.tolist() == found.tolist()


def test_a_stretch_does_not_run_from_one_recording_into_the_next():
    lengths, stretch = longest_shared([np.array([1, 2, 3, 4])], [np.array([1, 2]), np.array([3, 4])])
    assert lengths.tolist() == [2]
    assert stretch == Stretch(2, 0, 0, 0, 0)


def test_nothing_in_common_is_no_stretch():
    lengths, stretch = longest_shared([np.array([1, 2])], [np.array([3, 4])])
    assert lengths.tolist() == [0]
    assert stretch is None


def test_a_copied_continuation_stands_out_and_a_fresh_one_does_not():
    trained, originals, fresh = (
        [ids(3000) for _ in range(10)],
        [ids(150) for _ in range(12)],
        [ids(150) for _ in range(12)],
    )
    figures, _ = figures_of(fresh, originals, trained, [f"item {i}" for i in range(10)])
    by_name = {figure.name: figure for figure in figures}
    assert by_name["merged tokens, continuations"].value < 4
    assert within_margin(by_name["merged tokens, difference"]) is True
    copied = [np.concatenate([ids(50), trained[3][100 + 7 * i : 180 + 7 * i], ids(20)]) for i in range(12)]
    figures, notes = figures_of(copied, originals, trained, [f"item {i}" for i in range(10)])
    by_name = {figure.name: figure for figure in figures}
    assert by_name["tokens at 25 Hz, continuations"].value >= 80
    assert by_name["tokens at 25 Hz, continuations, longest of all"].value >= 80
    assert by_name["merged tokens, difference"].low > 50
    assert within_margin(by_name["merged tokens, difference"]) is False
    assert any("continuations: the longest is 8" in note and note.endswith("found in item 3") for note in notes)


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("d", 0.0, 0.0, 0.0, MIN_PROMPTS), True),
        (Figure("d", 0.0, 0.0, 0.0, MIN_PROMPTS - 1), None),
        (Figure("d", 1.0, -1.0, 2.5, 50), False),  # an interval that reaches 0 is no evidence
        (Figure("d", 0.0, None, None, 1), None),
    ],
)
def test_the_target_is_met_by_enough_prompts_with_a_small_difference_alone(figure, met):
    assert within_margin(figure) is met


def test_a_long_rest_is_one_merged_token():
    rest, trained = np.array([1] + [7] * 60 + [2]), [np.array([3] + [7] * 100 + [4])]
    figures, _ = figures_of([rest], [rest], trained, ["a"])
    assert [figure.value for figure in figures] == [1, 1, 1, 1, 0, 60, 60, 60, 60, 0]
    assert merge(rest).tolist() == [1, 7, 2]


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A checkpoint, and the recordings and token caches of two corpora: data has splits, more is for training alone."""
    folder = tmp_path_factory.mktemp("memory")
    make_tiny_checkpoint(folder / "piano", "piano")
    models = load_checkpoint(folder / "piano")
    meta = {name: models.info.components[name].token_hash for name in ("codec", "semantic")}
    meta |= {"num_levels": 4, "codebook_size": 32, "num_clusters": 24}
    for name, splits in {"data": ("test", "test", "train"), "more": ("train",)}.items():
        with CorpusWriter(folder / name) as writer:
            for index, split in enumerate(splits):
                pulse = 1.0 + np.sin(2 * np.pi * 3 * np.arange(32_000) / 16_000)
                pcm = to_pcm(0.1 * pulse * DRAW.normal(size=32_000))
                writer.add(pcm, id=f"{name}/{index}", group=str(index), split=split, source="s", licence="x")
        recordings = list_recordings([Corpus(folder / name)], [])
        build(recordings, models.codec.encode, models.semantic.encode, out=folder / f"{name}-tokens", meta=meta)
    return folder


def inputs(folder, *caches: TokenCorpus) -> Inputs:
    subject = from_checkpoint(str(folder / "piano"))
    holdout = HoldOut(subject, Corpus(folder / "data"), caches)
    return Inputs("piano", subject, holdout, ContinuationRequest(0.8, 0.8, num_continuations=1))


@pytest.mark.parametrize(("source", "name"), [(0, "data/2"), (1, "more/0")])
def test_a_stage_that_says_what_it_was_trained_on_is_found_out(subject, monkeypatch, source, name):
    caches = [TokenCorpus(subject / f"{corpus}-tokens") for corpus in ("data", "more")]
    report = measure(inputs(subject, *caches))
    assert report.figure("merged tokens, originals").n == 2
    assert report.met is None
    trained = caches[source].semantic(caches[source].select(split="train")[0]).long()
    num_known, num_positions = 19, 40  # 0.8 s of prompt, whose last position is made anew, and 0.8 s more
    parrot = torch.cat([torch.zeros(num_known, dtype=torch.long), trained[5:]])[:num_positions]
    monkeypatch.setattr(memory, "continue_semantic", lambda models, prompts, *rest: parrot.expand(len(prompts), -1))
    copied = measure(inputs(subject, *caches))
    assert copied.figure("tokens at 25 Hz, continuations").value == num_positions - num_known
    assert copied.figure("merged tokens, originals") == report.figure("merged tokens, originals")
    assert f"found in {name}" in copied.notes[1]


def test_the_hold_out_is_that_of_the_first_cache_and_training_tokens_are_those_of_all(subject):
    caches = [TokenCorpus(subject / "data-tokens"), *[TokenCorpus(subject / "more-tokens")] * 2]
    holdout = inputs(subject, *caches).holdout
    assert [pair.id for pair in holdout.pairs(10)] == ["data/0", "data/1"]
    assert [pair.id for pair in holdout.training_pairs(10)] == ["data/2", "more/0", "more/0"]


def test_without_training_tokens_there_is_no_row(subject):
    with pytest.raises(EvaluationError, match="give --tokens"):
        measure(inputs(subject))
