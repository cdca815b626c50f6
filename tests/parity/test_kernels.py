"""The compiled step of packed weights against its slow twins."""

import numba
import pytest
import torch

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


@pytest.mark.parametrize("crop_s", [None, 0.4, 1.28])  # 1.28 s: a window of the 64 places that the cache then has
@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
def test_logits_are_nearly_those_of_the_uncached_model(stage, crop_s):
    """What is known of a condition still comes through bfloat16."""
    model = wide_model(stage, crop_s)
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
            ours = torch.stack([step[row][level] for step in found])
            assert each[0, length:].std() > 0.5
            assert (ours - each[0, length:]).abs().max() < (0.005 if condition is None else 0.05)


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

    def chosen():
        batch = SlotBatch(model, 64, 100)
        first = joined(batch, prompt[0, :60], None, 0, 1)
        for seed in range(1, 64):
            batch.fork(first, generator=torch.Generator().manual_seed(seed), sampling=SamplingConfig())
        return torch.stack(list(batch.step().values())), batch._sampling.block[:, 0]

    ours, uniforms = chosen()
    assert torch.equal(ours, chosen()[0])
    with torch.inference_mode():
        logits = model.logits(prompt, None)[0][:, 60].expand(64, -1)
        expected = sample(logits, uniforms[:, 0], SamplingConfig())
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


def test_a_full_disk_fails_no_step(monkeypatch):
    calls = []

    def first_call_fails(given):
        calls.append(given)
        if len(calls) == 1:
            raise OSError("No space left on device")

    monkeypatch.setattr(kernels, "_compiled", first_call_fails)
    kernels.compiled_step("given")
    assert calls == ["given", "given"]
