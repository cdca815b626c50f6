"""A batch of slots: every row as if it were alone."""

import sys

import pytest
import torch

import audiolm.lm
from audiolm.config import SamplingConfig
from audiolm.errors import ConfigError, RequestError
from audiolm.lm import SlotBatch
from tests.lm.models import STAGE_LAYOUTS, random_steps, stage_model, wide_model

each_stage_and_layout = pytest.mark.parametrize(("stage", "layout"), STAGE_LAYOUTS)
SETTINGS = (SamplingConfig(temperature=2.0), SamplingConfig(top_k=3), SamplingConfig(top_p=0.7, temperature=1.5))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def requests(model, count=7):
    """Rows of unlike prompts, conditions, lengths, settings and seeds."""
    for number in range(count):
        prompt, condition = random_steps(model, 1, 40, seed=number)
        yield (
            {
                "prompt": prompt[0, : 5 * (number % 4)] if number % 4 else None,
                "condition": None if condition is None else condition[0],
                "sampling": SETTINGS[number % 3],
                "num_steps": 25 - 3 * (number % 3),
            },
            number,
        )


def join(batch, request, seed):
    options = {name: request[name] for name in ("sampling", "num_steps")}
    return batch.join(request["prompt"], request["condition"], generator=torch.Generator().manual_seed(seed), **options)


def new_batch(model, num_slots):
    return SlotBatch(model, num_slots, 40, 40)


def alone(model, request, seed):
    batch = new_batch(model, 1)
    slot = join(batch, request, seed)
    return torch.stack([batch.step()[slot] for _ in range(request["num_steps"])])


def under_load(model, rows, num_slots, hurry=2):
    """Rows come in whenever a slot is free and `hurry` steps have passed; each leaves when it is done."""
    batch, waiting, running, done = new_batch(model, num_slots), list(rows), {}, {}
    count = 0
    while waiting or running:
        if waiting and batch.num_free and count % hurry == 0:
            request, seed = waiting.pop(0)
            running[join(batch, request, seed)] = (seed, request["num_steps"], [])
        count += 1
        for slot, tokens in batch.step().items():
            seed, wanted, got = running[slot]
            got.append(tokens)
            if len(got) == wanted:
                batch.leave(slot)
                done[seed] = torch.stack(got)
                del running[slot]
    return done


@each_stage_and_layout
@pytest.mark.parametrize("num_slots", [3, 8])
def test_a_row_is_the_same_alone_and_among_rows_that_come_and_go(stage, layout, num_slots):
    model = stage_model(stage, layout)
    together = under_load(model, requests(model), num_slots)
    for request, seed in requests(model):
        assert torch.equal(together[seed], alone(model, request, seed))


@pytest.fixture(params=["compiled", "without numba"])
def kernels(request, monkeypatch):
    """Both ways of a step with int8 weights."""
    if request.param == "without numba":
        monkeypatch.delattr(audiolm.lm, "kernels", raising=False)
        monkeypatch.setitem(sys.modules, "audiolm.lm.kernels", None)
    return request.param == "compiled"


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
def test_a_row_is_the_same_alone_and_among_others_with_int8_weights(stage, kernels):
    model = wide_model(stage)
    assert (new_batch(model, 1)._kernel is not None) == kernels
    together = under_load(model, requests(model), 5)
    for request, seed in requests(model):
        assert torch.equal(together[seed], alone(model, request, seed))


@pytest.mark.parametrize("window_s", [0.2, 1.0])
def test_a_row_beyond_the_window_is_the_same_alone_and_among_others(window_s):
    model = stage_model("fine", "depth", crop_s=window_s)
    together = under_load(model, requests(model), 4)
    for request, seed in requests(model):
        assert torch.equal(together[seed], alone(model, request, seed))


def test_a_growing_condition_gives_what_the_whole_one_gives():
    model = stage_model("coarse", "depth")
    prompt, condition = random_steps(model, 1, 40, seed=3)
    request = {"prompt": prompt[0, :8], "condition": condition[0], "sampling": SETTINGS[0], "num_steps": 32}
    batch = new_batch(model, 4)
    slot = batch.join(
        prompt[0, :8],
        condition[0, :9],
        generator=torch.Generator().manual_seed(5),
        sampling=SETTINGS[0],
        num_steps=32,
        complete=False,
    )
    got, given = [], 9
    while len(got) < 32:
        if step := batch.step():
            got.append(step[slot])
        else:
            assert not batch.ready(slot)
            more = condition[0, given : given + 3]
            given += len(more)
            batch.extend(slot, more, complete=given == condition.shape[1])
    assert torch.equal(torch.stack(got), alone(model, request, 5))


def test_a_fork_goes_on_as_a_row_that_read_the_same():
    model = stage_model("coarse", "depth")
    (request, _), *_ = list(requests(model))[1:]
    batch = new_batch(model, 3)
    first = join(batch, request, 1)
    second = batch.fork(first, generator=torch.Generator().manual_seed(2), sampling=request["sampling"])
    steps = [batch.step() for _ in range(request["num_steps"])]
    for slot, seed in ((first, 1), (second, 2)):
        assert torch.equal(torch.stack([step[slot] for step in steps]), alone(model, request, seed))


def test_a_full_batch_and_rows_that_do_not_fit_are_refused_and_leave_no_trace():
    model = stage_model("coarse", "depth")
    (request, _), *_ = requests(model)
    batch = new_batch(model, 1)
    with pytest.raises(IndexError, match="40 steps"):
        join(batch, request | {"num_steps": 41}, 0)
    with pytest.raises(ConfigError, match="condition steps"):
        join(batch, request | {"condition": request["condition"][:2]}, 0)
    with pytest.raises(RequestError, match="condition levels"):
        join(batch, request | {"condition": None}, 0)
    join(batch, request, 0)
    with pytest.raises(IndexError, match="in use"):
        join(batch, request, 0)


def test_a_finished_row_takes_no_further_step_until_it_leaves():
    model = stage_model("semantic", "depth")
    (request, _), *_ = requests(model)
    batch = new_batch(model, 1)
    slot = join(batch, request | {"num_steps": 2}, 0)
    assert [list(batch.step()) for _ in range(3)] == [[slot], [slot], []]
    batch.leave(slot)
    assert batch.num_free == 1
    with pytest.raises(KeyError):
        batch.leave(slot)


def test_a_batch_that_is_rewound_takes_the_same_step_again_and_again():
    model = wide_model("coarse")
    (request, _), *_ = list(requests(model))[1:]
    batch = new_batch(model, 1)
    slot = join(batch, request | {"num_steps": 2}, 0)
    for _ in range(5):
        assert list(batch.step()) == [slot]
        batch.rewind(5)
        assert batch._rows[slot].num_positions == 5
        assert batch._rows[slot].num_left == 2


def test_bfloat16_decodes_nearly_as_float32():
    model = stage_model("coarse", "depth")
    prompt, condition = random_steps(model, 2, 30)
    batches = [SlotBatch(model, 4, 30, dtype=dtype) for dtype in (None, torch.bfloat16)]
    for batch in batches:
        for row in range(2):
            request = {"prompt": prompt[row, :9], "condition": condition[row], "sampling": SETTINGS[0], "num_steps": 3}
            join(batch, request, row)
    with torch.inference_mode():
        exact, rounded = (
            steps.outputs[0](steps.levels[0](steps.state(batch._states[:2]))).float().softmax(-1)
            for batch, steps in ((batch, batch._steps) for batch in batches)
        )
    assert 0 < (exact - rounded).abs().max() < 0.05


@pytest.mark.long
def test_a_compiled_batch_chooses_what_an_eager_one_does():
    model = stage_model("coarse", "depth")
    rows = list(requests(model, 3))
    batches = [SlotBatch(model, 4, 40, compiled=compiled) for compiled in (False, True)]
    made = []
    for batch in batches:
        slots = [join(batch, request, seed) for request, seed in rows]
        steps = [batch.step() for _ in range(15)]
        made.append(torch.stack([torch.stack([step[slot] for slot in slots]) for step in steps]))
    assert torch.equal(*made)
