"""Rows of several runs in the slots of one decoder: tokens as alone, slots shared fairly, freed at once."""

from __future__ import annotations

import threading

import pytest
import torch

from audiolm.config import SamplingConfig
from audiolm.growing import Excerpt, Growing
from audiolm.lm import generate_steps
from audiolm.slots import Decoder
from tests.pipeline.material import random
from tests.pipeline.test_stages import MODULES

COARSE = MODULES["stage_coarse"]


def asked(seed: int, rows: int = 2, num_steps: int = 12) -> dict:
    return {
        "prompt": random(1, 10, 2, high=32, seed=seed),
        "condition": random(rows, 11, 1, high=24, seed=seed + 1),
        "num_steps": num_steps,
        "sampling": SamplingConfig(),
        "generators": [torch.Generator().manual_seed(100 * seed + row) for row in range(rows)],
    }


def drained(steps) -> torch.Tensor:
    return torch.stack([step for step in steps if step is not None], dim=1)


def test_rows_of_many_runs_get_the_tokens_of_each_run_alone():
    alone = [drained(generate_steps(COARSE, **asked(seed))) for seed in range(5)]
    decoder = Decoder(num_slots=4)  # fewer than the ten rows
    running = {seed: (decoder.decode(seed, COARSE, **asked(seed)), []) for seed in range(5)}
    while running:
        for seed, (steps, got) in list(running.items()):
            if (step := next(steps, steps)) is steps:
                assert torch.equal(torch.stack(got, dim=1), alone[seed])
                del running[seed]
            elif step is not None:
                got.append(step)
    assert decoder.active_rows() == {"coarse": 0}


def test_threads_that_step_for_each_other_change_no_token():
    alone = [drained(generate_steps(COARSE, **asked(seed))) for seed in range(4)]
    decoder, together = Decoder(num_slots=6), [None] * 4

    def run(seed: int) -> None:
        together[seed] = drained(decoder.decode(seed, COARSE, **asked(seed)))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        decoder.help()
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))


def test_a_condition_that_grows_gives_the_tokens_of_the_whole_one():
    request = asked(3)
    whole = drained(generate_steps(COARSE, **request))
    condition = request["condition"]
    source = Growing(condition[:, :2], 11)
    excerpt = Excerpt(source, 0, 11, 11)
    steps = Decoder().decode("run", COARSE, **asked(3) | {"condition": excerpt})
    got, waited = [], 0
    for step in steps:
        if step is not None:
            got.append(step)
            continue
        waited += 1
        source.append(condition[:, len(source)])
    assert waited == 9
    assert torch.equal(torch.stack(got, dim=1), whole)


def test_closing_a_run_frees_its_slots_at_once_and_its_waiting_rows_never_start():
    decoder = Decoder(num_slots=2)
    greedy, other = decoder.decode("a", COARSE, **asked(1, rows=4)), decoder.decode("b", COARSE, **asked(2, rows=2))
    assert next(greedy) is None  # its last two rows have no slot
    assert decoder.active_rows() == {"coarse": 2}
    greedy.close()
    assert decoder.active_rows() == {"coarse": 0}
    assert torch.equal(drained(other), drained(generate_steps(COARSE, **asked(2, rows=2))))


def test_free_slots_go_to_the_run_that_has_the_fewest():
    decoder = Decoder(num_slots=4)
    greedy, small = decoder.decode("a", COARSE, **asked(1, rows=8)), decoder.decode("b", COARSE, **asked(2, rows=1))
    assert next(greedy) is None  # four of its rows go on, four wait
    steps = 1
    while next(small) is None:  # behind these four
        steps += 1
    assert steps == 12  # as soon as any slot was free


def test_a_row_that_does_not_fit_fails_alone():
    decoder = Decoder()
    good, bad = decoder.decode("good", COARSE, **asked(1)), decoder.decode("bad", COARSE, **asked(2, num_steps=9999))
    next(good)
    with pytest.raises(IndexError, match="slots hold"):
        next(bad)
    assert drained(good).shape[1] == 11


def test_a_step_that_fails_ends_the_rows_it_held_and_the_next_ones_get_fresh_slots(monkeypatch):
    decoder = Decoder()
    held = decoder.decode("held", COARSE, **asked(1))
    next(held)

    def greedy(batch):
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("audiolm.lm.slots.SlotBatch.step", greedy)
        with pytest.raises(torch.OutOfMemoryError):
            next(held)
    again = decoder.decode("again", COARSE, **asked(2))
    assert torch.equal(drained(again), drained(generate_steps(COARSE, **asked(2))))


class AppendedMeanwhile(Growing):
    """Grows by its last step at the `n`-th look at its length, as if another thread had appended it just then."""

    looks, last, at = 0, None, 0

    def __len__(self) -> int:
        known = super().__len__()
        self.looks += 1
        if self.looks == self.at and self.last is not None:
            self.append(self.last)
        return known


@pytest.mark.parametrize("at", range(1, 14))
def test_a_condition_that_becomes_complete_while_it_is_read_loses_no_step_and_waits_for_none(at):
    request = asked(6, rows=1)
    whole, condition = drained(generate_steps(COARSE, **request)), request["condition"]
    source = AppendedMeanwhile(condition[:, :10], 11)
    source.last, source.at = condition[:, 10], at
    steps = Decoder().decode("run", COARSE, **asked(6, rows=1) | {"condition": Excerpt(source, 0, 11, 11)})
    got = [step for _, step in zip(range(200), steps, strict=False) if step is not None]
    assert len(got) == 12
    assert torch.equal(torch.stack(got, dim=1), whole)
