import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from audiolm.codec import Codec
from audiolm.config import CodecConfig, DetectorCalibration, DetectorConfig, FrameBackboneConfig, QuantizerConfig
from audiolm.errors import CheckpointError, TrainingError
from audiolm.training import runs
from audiolm.training.loop import LoopOptions, Task, Trainer
from tests.training.ranks import run_ranks

CPU = torch.device("cpu")


class LineTask(Task):
    """Fits y = 3 x: small enough that every step's arithmetic can be compared."""

    component = "codec"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.shipped = nn.Linear(1, 1)
        self.modules = nn.ModuleDict({"line": self.shipped})
        self.config, self.made_for = CodecConfig(), {}

    def batch(self, generator):
        return torch.randn(8, 1, generator=generator)

    def loss(self, group, batch, step):
        return (self.shipped(batch) - 3 * batch).square().mean(), {}

    def validate(self):
        return {"loss": float((self.shipped.weight - 3).abs())}


def options(**changes) -> LoopOptions:
    return LoopOptions(**{"steps": 50, "learning_rate": 0.05, "warmup_steps": 1, "precision": "fp32"} | changes)


def test_training_minimises_the_loss_and_writes_a_run(tmp_path):
    task = LineTask()
    figures = Trainer(task, tmp_path, options(steps=400), CPU).run()
    assert figures["loss"] < 0.1
    assert json.loads((tmp_path / "state.json").read_text())["step"] == 400
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"train", "valid"} <= set(kinds)


def test_a_resumed_run_goes_on_with_weights_moments_and_step(tmp_path):
    Trainer(LineTask(), tmp_path, options(steps=20), CPU).run()
    resumed = LineTask()
    trainer = Trainer(resumed, tmp_path, options(steps=21), CPU)
    trainer.resume()
    assert trainer.step == 20
    moments = trainer.optimizers["main"].state_dict()["state"]
    assert all(float(m["step"]) == 20 and m["exp_avg"].abs().sum() > 0 for m in moments.values())
    stored = load_file(tmp_path / "train.safetensors")["modules/line.weight"]
    assert torch.equal(resumed.shipped.weight.data, stored)


def test_a_resumed_run_has_a_new_wall_clock_budget(tmp_path):
    first = Trainer(LineTask(), tmp_path, options(steps=10**9, max_minutes=0.005), CPU)
    first.run()
    resumed = Trainer(LineTask(), tmp_path, options(steps=10**9, max_minutes=0.005), CPU)
    resumed.resume()
    resumed.run()
    assert resumed.step > first.step > 0
    assert resumed.seconds > first.seconds


@pytest.mark.parametrize("name", ["state.json", "config.json", "weights.safetensors", "train.safetensors"])
def test_resuming_names_the_missing_file(tmp_path, name):
    Trainer(LineTask(), tmp_path, options(steps=1), CPU).run()
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: missing"):
        Trainer(LineTask(), tmp_path, options(), CPU).resume()


def test_resuming_a_truncated_run_says_so(tmp_path):
    Trainer(LineTask(), tmp_path, options(steps=1), CPU).run()
    path = tmp_path / "train.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="truncated"):
        Trainer(LineTask(), tmp_path, options(), CPU).resume()


def test_resuming_a_run_of_another_component_or_size_is_refused(tmp_path):
    Trainer(LineTask(), tmp_path, options(steps=1), CPU).run()
    task = LineTask()
    task.component = "detector"
    with pytest.raises(TrainingError, match="run of 'codec', not of 'detector'"):
        Trainer(task, tmp_path, options(), CPU).resume()
    task = LineTask()
    task.modules["second"] = nn.Linear(1, 1)
    with pytest.raises(TrainingError, match=r"does not fit this model.*second"):
        Trainer(task, tmp_path, options(), CPU).resume()


def test_a_run_is_resumed_only_for_what_it_was_made_for(tmp_path):
    def made_for(hashes):
        task = LineTask()
        task.made_for = hashes
        return Trainer(task, tmp_path, options(steps=1), CPU)

    made_for({"codec": "0" * 64}).run()
    made_for({"codec": "0" * 64}).resume()
    for other, found in (
        ({"codec": "1" * 64}, "codec 000000000000, not 111111111111"),
        ({}, "codec 000000000000, not none"),
        ({"codec": "0" * 64, "semantic": "2" * 64}, "semantic none, not 222222222222"),
    ):
        with pytest.raises(TrainingError, match=f"cannot resume: .* was made for {found}"):
            made_for(other).resume()


def test_a_run_is_resumed_only_with_its_own_config(tmp_path):
    def of(config):
        task = LineTask()
        task.component, task.config = "detector", config
        return Trainer(task, tmp_path, options(steps=1), CPU)

    calibration = DetectorCalibration(scale=2.0)
    of(DetectorConfig(dropout=0.1, calibration=calibration, scope_limit=3.0, withheld="missed")).run()
    of(DetectorConfig(dropout=0.3)).resume()  # what a finished detector has measured is no other config
    with pytest.raises(TrainingError, match="has listener_version 1, not 2; heard_width 64, not 32"):
        of(DetectorConfig(listener_version=2, heard_width=32)).resume()
    written = json.loads((tmp_path / "config.json").read_text())
    del written["config"]["listener_version"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    of(DetectorConfig()).resume()  # an older run means the default
    with pytest.raises(TrainingError, match=r"has listener_version 1, not 2$"):
        of(DetectorConfig(listener_version=2)).resume()


def test_weights_of_another_shape_are_refused(tmp_path):
    Trainer(LineTask(), tmp_path, options(steps=1), CPU).run()
    with pytest.raises(TrainingError, match=r"does not fit this model.*size mismatch"):
        runs.load_weights(tmp_path, "codec", nn.Linear(2, 1))


def test_a_wall_clock_budget_ends_the_run(tmp_path):
    trainer = Trainer(LineTask(), tmp_path, options(steps=10**9, max_minutes=0.005), CPU)
    trainer.run()
    assert 0 < trainer.step < 10**6


def test_averaged_weights_are_shipped_and_raw_ones_kept_for_resuming(tmp_path):
    Trainer(LineTask(), tmp_path, options(steps=30, average_decay=0.99), CPU).run()
    raw = load_file(tmp_path / "train.safetensors")["modules/line.weight"]
    averaged = load_file(tmp_path / "weights.safetensors")["weight"]
    assert not torch.equal(raw, averaged)


def test_what_is_validated_is_what_ships(tmp_path):
    task = LineTask()
    figures = Trainer(task, tmp_path, options(steps=30, average_decay=0.99), CPU).run()
    averaged = load_file(tmp_path / "weights.safetensors")["weight"]
    assert figures["loss"] == pytest.approx(float((averaged - 3).abs()), rel=1e-6)
    raw = load_file(tmp_path / "train.safetensors")["modules/line.weight"]
    assert torch.equal(task.shipped.weight.data, raw)


def test_a_figure_of_the_task_is_logged_in_place_of_a_meaningless_loss(tmp_path):
    task = LineTask()
    plain = task.loss
    task.loss = lambda *arguments: (plain(*arguments)[0], {"main_loss": 7.0})
    Trainer(task, tmp_path, options(steps=1), CPU).run()
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["main_loss"] == 7.0


def test_keep_best_does_not_overwrite_better_weights(tmp_path):
    task = LineTask()
    trainer = Trainer(task, tmp_path, options(steps=5, keep_best=True), CPU)
    trainer.kept = {"loss": -1.0}
    assert trainer.run() == {"loss": -1.0}
    assert not (tmp_path / "weights.safetensors").exists()


def distances(task, *more):
    """Has a task say, in turn, that its validation loss is each of these."""
    told = iter(more)
    task.validate = lambda: {"loss": next(told), "weight": float(task.shipped.weight)}
    return task


@pytest.mark.parametrize("keep_best", [True, False])
def test_what_a_run_returns_is_said_of_the_weights_that_it_wrote(tmp_path, keep_best):
    task = distances(LineTask(), 1.0, 2.0, 3.0)
    chosen = options(steps=2, keep_best=keep_best, validate_minutes=1e-9)  # after each step, and at the end
    figures = Trainer(task, tmp_path, chosen, CPU).run()
    assert figures["loss"] == (1.0 if keep_best else 3.0)
    assert figures["weight"] == pytest.approx(float(load_file(tmp_path / "weights.safetensors")["weight"]))


def test_a_resumed_run_keeps_what_is_best_by_the_loss_as_it_is_now(tmp_path):
    Trainer(distances(LineTask(), 1.0), tmp_path, options(steps=1), CPU).run()
    kept = load_file(tmp_path / "weights.safetensors")["weight"]
    for told, is_kept in (((5.0, 6.0), True), ((5.0, 4.0), False)):  # of the weights that are there, of the new ones
        trainer = Trainer(distances(LineTask(), *told), tmp_path, options(steps=2, keep_best=True), CPU)
        trainer.resume()
        assert trainer.run()["loss"] == min(told)
        assert torch.equal(load_file(tmp_path / "weights.safetensors")["weight"], kept) == is_kept


def test_learning_rate_warms_up_then_falls_to_its_stated_floor(tmp_path):
    trainer = Trainer(LineTask(), tmp_path, options(warmup_steps=10, final_learning_rate_ratio=0.1), CPU)
    rates = [trainer._learning_rate(progress, 100) for progress in (0.0, 0.5, 1.0)]
    assert trainer._learning_rate(0.0, 0) == pytest.approx(0.005)
    assert rates[0] > rates[1] > rates[2]
    assert rates[2] == pytest.approx(0.005)


def test_a_written_run_loads_as_the_same_module(tmp_path):
    config = CodecConfig(
        frame=FrameBackboneConfig(width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
        quantizer=QuantizerConfig(num_levels=2, codebook_size=8, dimension=4),
        num_coarse_levels=1,
    )
    codec = Codec(config).bfloat16().float()
    runs.write_run(tmp_path, "codec", codec, config, {})
    component, loaded, made_for = runs.load_run(tmp_path)
    assert (component, made_for, loaded.config) == ("codec", {}, config)
    waveforms = torch.randn(1, 3200) * 0.1
    assert torch.equal(codec.eval().encode(waveforms), loaded.encode(waveforms))


def test_a_run_whose_weights_are_not_of_its_config_is_refused(tmp_path):
    runs.write_run(tmp_path, "codec", nn.Linear(1, 1), CodecConfig(), {})
    with pytest.raises(CheckpointError, match="codec lacks"):
        runs.load_run(tmp_path)


TWO_RANKS = """
import itertools, os, sys, types, torch
from pathlib import Path
from audiolm.training import loop
from tests.training.test_loop import LineTask, options
ticks = itertools.count(step=1.0 + 2.0 * int(os.environ["RANK"]))  # the second rank's clock runs three times as fast
loop.time = types.SimpleNamespace(monotonic=lambda: next(ticks))
device = loop.setup_device("cpu", 1)
task = LineTask()
trainer = loop.Trainer(task, Path(sys.argv[1]), options(steps=30, max_minutes=1.0, validate_minutes=0.2), device)
trainer.run()
found = torch.tensor([[trainer.step, task.shipped.weight.item(), task.shipped.bias.item()]], dtype=torch.float64)
both = [torch.zeros_like(found) for _ in range(2)]
torch.distributed.all_gather(both, found)
assert torch.equal(*both), both
assert 1 < trainer.step < 30, trainer.step
torch.distributed.barrier()
torch.distributed.destroy_process_group()  # a rank that ends while the group's threads still run may be killed for it
"""


def test_two_ranks_of_unequal_clocks_end_with_equal_weights(tmp_path):
    run_ranks(TWO_RANKS, str(tmp_path))
    assert (tmp_path / "weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [
        ("steps", 0, "at least 1"),
        ("max_minutes", 0.0, "above 0"),
        ("max_minutes", float("nan"), "above 0"),
        ("learning_rate", float("inf"), "above 0 and finite"),
        ("final_learning_rate_ratio", 1.5, "0 to 1"),
        ("warmup_steps", -1, "at least 0"),
        ("weight_decay", -0.1, "at least 0 and finite"),
        ("average_decay", 1.0, "at least 0 and under 1"),
        ("validate_minutes", -1.0, "above 0"),
    ],
)
def test_budgets_and_schedules_that_cannot_be_are_refused(option, value, limit):
    with pytest.raises(TrainingError, match=f"must be {limit}, found {value:g}"):
        LoopOptions(**{option: value})


def test_a_command_line_error_is_one_line_and_exit_code_2(tmp_path, capsys):
    from audiolm.training.__main__ import main

    code = main(["codec", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path), "--device", "cpu"])
    assert code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_tokens_are_made_of_splits_that_there_are(tmp_path, capsys):
    from audiolm.training.__main__ import main

    folders = ["--data", "corpus", "--codec", "codec", "--semantic", "semantic", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(["tokens", *folders, "--splits", "train", "vlaid"])
    assert "invalid choice: 'vlaid'" in capsys.readouterr().err
