"""The compiled step of packed weights against its slow twins."""

import importlib
import pickle
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from numba.core.caching import IndexDataCacheFile

from audiolm.checkpoints import registry
from audiolm.config import SamplingConfig
from audiolm.lm import SlotBatch, kernels
from audiolm.lm.sampling import sample
from audiolm.nn.packing import pack_rows, unpack_rows
from tests.lm.models import random_steps, wide_model

NUM_STEPS = 80


def joined(batch, prompt, condition, seed, num_steps, sampling=None):
    return batch.join(
        prompt,
        condition,
        generator=torch.Generator().manual_seed(seed),
        sampling=sampling or SamplingConfig(),
        num_steps=num_steps,
    )


def last_logits(batch, row):
    """Of the row's last step, one [V] a level."""
    all_levels = torch.from_numpy(batch._kernel.args[1].logits.copy())
    return [each[row, :size] for each, size in zip(all_levels, batch.model.config.levels, strict=True)]


def differences(model):
    """Of three rows' logits from the uncached model's, at each level; they begin after 0, 1 and 7 steps."""
    prompt, condition = random_steps(model, 3, NUM_STEPS + 7)
    batch = SlotBatch(model, 3, NUM_STEPS + 7)
    lengths, made, found = (0, 1, 7), [], []
    for row, length in enumerate(lengths):
        joined(batch, prompt[row, :length], None if condition is None else condition[row], row, NUM_STEPS)
    for _ in range(NUM_STEPS):
        made.append(batch.step())
        found.append([last_logits(batch, row) for row in range(3)])
    tables = model.tables()
    tables.outputs = [unpack_rows(*pack_rows(table)) for table in tables.outputs]
    for row, length in enumerate(lengths):
        whole = torch.cat([prompt[row, :length], torch.stack([step[row] for step in made])])[None]
        known = None if condition is None else condition[row, None]
        with torch.inference_mode():
            expected = model.logits(whole, known, tables)
        for level, each in enumerate(expected):
            assert each[0, length:].std() > 0.5
            yield torch.stack([step[row][level] for step in found]) - each[0, length:]


@pytest.mark.parametrize("crop_s", [None, 0.4, 1.28])  # 1.28 s: a window of the 64 places that the cache then has
@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
def test_logits_are_nearly_those_of_the_uncached_model(stage, crop_s):
    """What is known of a condition still comes through bfloat16."""
    limit = 0.005 if stage == "semantic" else 0.05
    assert all(each.abs().max() < limit for each in differences(wide_model(stage, crop_s)))


@pytest.mark.parametrize("num_heads", [4, 8, 16])
def test_heads_may_be_narrower_than_a_vector_or_no_whole_number_of_them(num_heads):
    model = wide_model("semantic", width=96, num_heads=num_heads)
    assert all(each.abs().max() < 0.005 for each in differences(model))


@pytest.mark.parametrize(("stage", "feed_forward"), [("semantic", 1056), ("coarse", 96), ("fine", 96)])
def test_a_row_has_the_same_bits_alone_and_beside_others(stage, feed_forward):
    """Rows are multiplied by fours, twos and ones: seven take all three. 1056 columns are added up in two parts."""
    model = wide_model(stage, feed_forward=feed_forward)
    prompt, condition = random_steps(model, 7, 40)

    def logits(rows):
        batch = SlotBatch(model, 7, 40)
        for row in rows:
            joined(batch, prompt[row, :9], None if condition is None else condition[row], row, 20)
        for _ in range(20):
            batch.step()
            yield [last_logits(batch, place) for place in range(len(rows))]

    together = list(logits(range(7)))
    for row in range(7):
        for step, (alone,) in enumerate(logits([row])):
            assert all(map(torch.equal, alone, together[step][row]))


def test_more_columns_than_are_added_up_at_once_are_all_counted():
    assert all(each.abs().max() < 0.01 for each in differences(wide_model("semantic", feed_forward=1056)))


def test_a_row_that_overflows_float16_leaves_the_next_one_in_its_slot_alone():
    model = wide_model("semantic")
    prompt, _ = random_steps(model, 2, 40)

    def logits(batch):
        joined(batch, prompt[1, :1], None, 1, 3)
        for _ in range(3):
            batch.step()
        return last_logits(batch, 0)

    expected = logits(SlotBatch(model, 1, 40))
    batch = SlotBatch(model, 1, 40)
    slot = joined(batch, prompt[0, :9], None, 0, 3)
    with torch.inference_mode():
        batch._cache.fill(slot, [torch.full((2, 2, 9, 32), 1e9)] * 2)
    batch.leave(slot)
    assert all(map(torch.equal, logits(batch), expected))


@pytest.mark.long
def test_processors_without_float16_keep_float32(monkeypatch):
    monkeypatch.setattr(kernels, "KEPT_AS", torch.float32)
    assert all(each.abs().max() < 0.0005 for each in differences(wide_model("semantic", 0.4)))


SETTINGS = [
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=0.7),
    SamplingConfig(top_k=1),
    SamplingConfig(top_k=5),
    SamplingConfig(temperature=1.5, top_p=0.6),
    SamplingConfig(top_p=1e-6),
    SamplingConfig(top_k=20, top_p=0.9),
]


def test_draws_are_those_of_the_slow_sampling():
    model = wide_model("coarse")
    prompt, condition = random_steps(model, 1, 50)
    batch = SlotBatch(model, len(SETTINGS), 50)
    for row, settings in enumerate(SETTINGS):
        joined(batch, prompt[0, :5], condition[0], row, 40, settings)
    for step in range(40):
        tokens = batch.step()
        for row, settings in enumerate(SETTINGS):
            uniforms = batch._sampling.block[row, step]
            for level, logits in enumerate(last_logits(batch, row)):
                assert tokens[row][level] == sample(logits[None], uniforms[level, None], settings)


def test_extreme_uniform_numbers_choose_the_first_and_the_last_id():
    model = wide_model("semantic")
    batch = SlotBatch(model, 2, 10)
    for row, uniform in enumerate((0.0, 1 - 2**-24)):
        joined(batch, None, None, row, 3)
        batch._sampling.advance([row])
        with torch.inference_mode():
            batch._sampling.block[row] = uniform
    tokens = batch.step()
    assert tokens[0].tolist() == [0, 0]
    for level, logits in enumerate(last_logits(batch, 1)):
        assert logits.softmax(0)[tokens[1][level] + 1 :].sum() < 1e-5


def test_an_embedded_checkpoint_chooses_nearly_what_it_would_in_float32():
    model = registry.load("speech-small", None, torch.device("cpu")).stages["semantic"]
    prompt, _ = random_steps(model, 1, 61)
    sampling = SamplingConfig(temperature=2.0)  # what it is surest of says little about rounding

    def chosen():
        batch = SlotBatch(model, 64, 100)
        first = joined(batch, prompt[0, :60], None, 0, 1, sampling)
        for seed in range(1, 64):
            batch.fork(first, generator=torch.Generator().manual_seed(seed), sampling=sampling)
        return torch.stack(list(batch.step().values())), batch._sampling.block[:, 0]

    ours, uniforms = chosen()
    assert torch.equal(ours, chosen()[0])
    with torch.inference_mode():
        logits = model.logits(prompt, None)[0][:, 60].expand(64, -1)
        expected = sample(logits, uniforms[:, 0], sampling)
    assert expected.unique().numel() > 20
    assert (ours[:, 0] == expected).float().mean() > 0.95


def test_what_cannot_be_kept_on_disk_is_compiled_all_the_same(monkeypatch):
    njit = numba.njit

    def nowhere_to_write(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", nowhere_to_write)
    assert kernels._kept_on_disk(lambda: 3)() == 3


@pytest.fixture
def one_more(tmp_path, monkeypatch):
    """A function of a file of its own, which adds one."""
    (tmp_path / "one_more.py").write_text("def one_more(numbers):\n    numbers[0] += 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "one_more", raising=False)
    return importlib.import_module("one_more").one_more


def called(monkeypatch, function):
    """What a new process has of `function`, once called."""
    monkeypatch.setattr(kernels, "_compiled", kernels._kept_on_disk(function))
    numbers = np.zeros(1)
    kernels.compiled_step(numbers)
    assert numbers[0] == 1
    return kernels._compiled.stats


DAMAGE = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) * 2 // 3],
    "garbage": lambda content: bytes(range(256)) * 8,
    "another pickle": lambda content: pickle.dumps("numba"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_damaged_files_on_disk_fail_no_step_and_are_made_anew(monkeypatch, one_more, ending, damage):
    kept_at = Path(called(monkeypatch, one_more).cache_path)
    assert called(monkeypatch, one_more).cache_hits
    (path,) = kept_at.glob(f"*one_more*.{ending}")
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert not called(monkeypatch, one_more).cache_hits
    called(monkeypatch, one_more)
    assert called(monkeypatch, one_more).cache_hits


def test_a_full_disk_fails_no_step(monkeypatch, one_more):
    def fails(*given):
        raise OSError("No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", fails)
    assert called(monkeypatch, one_more).cache_path  # where it would be kept: not compiled once more
