from __future__ import annotations

import json
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from audiolm.benchmark.__main__ import main
from audiolm.benchmark.detector import products
from audiolm.benchmark.stages import measure, synthetic_prompt, table
from audiolm.benchmark.timing import interleaved
from audiolm.config import FRAME_RATE_HZ, FRAMES_PER_SEMANTIC
from audiolm.pipeline import Pipeline
from audiolm.request import ContinuationRequest
from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    make_tiny_checkpoint(folder)
    return folder


def test_figures_are_consistent(tiny_folder):
    request = ContinuationRequest(prompt_s=1.0, continuation_s=0.4, num_continuations=2)
    speed = measure(Pipeline.load(str(tiny_folder), device="cpu"), request)
    by_name = {stage.stage: stage for stage in speed.stages}
    assert list(by_name) == ["encode", "semantic", "coarse", "fine", "decode", "mark", "detect"]
    num_new = 20 + FRAMES_PER_SEMANTIC  # the prompt's end is made anew
    assert by_name["coarse"].steps == num_new
    assert by_name["coarse"].tokens == num_new * 2 * 2
    assert by_name["coarse"].tokens_per_s == pytest.approx(4 * num_new / by_name["coarse"].seconds)
    assert speed.seconds == pytest.approx(sum(stage.seconds for stage in speed.stages))
    assert speed.real_time_factor == pytest.approx(speed.seconds / (num_new / FRAME_RATE_HZ))
    text = table(speed.to_dict())
    assert all(name in text for name in (*by_name, "whole", "torch", speed.processor, "tokens/s", "real-time factor"))


def test_the_command_prints_a_table_and_writes_json(tiny_folder, tmp_path, capsys):
    options = ["--checkpoint", str(tiny_folder), "--seconds", "0.2", "--prompt-seconds", "0.5", "--device", "cpu"]
    assert main(["stages", *options, "--runs", "1", "--json", str(tmp_path / "figures.json")]) == 0
    generated_s = json.loads((tmp_path / "figures.json").read_text())["generated_s"]
    assert generated_s == pytest.approx(0.24)  # with the prompt's last 40 ms
    assert "tiny-speech: 1 x 0.24 s" in capsys.readouterr().out


def test_a_step_is_measured_beside_its_floor_and_its_twins(tiny_folder, tmp_path, capsys):
    options = [
        "--checkpoint",
        str(tiny_folder),
        "--rows",
        "2",
        "--length",
        "3",
        "--json",
        str(tmp_path / "figures.json"),
    ]
    assert main(["decode", *options, "--runs", "1"]) == 0
    steps = json.loads((tmp_path / "figures.json").read_text())["steps"]
    assert [(row["stage"], row["rows"]) for row in steps] == [("semantic", 2), ("coarse", 2), ("fine", 2)]
    for row in steps:
        assert row["share_of_floor"] == pytest.approx(row["floor_ms"] / row["step_ms"])
        assert row["megabytes_read"] > 0
    assert "of floor" in capsys.readouterr().out


def test_costs_against_length_are_plotted(tiny_folder, tmp_path, capsys):
    options = ["--checkpoint", str(tiny_folder), "--seconds", "1", "2", "--plot", str(tmp_path / "costs.png")]
    assert main(["scaling", *options, "--runs", "1"]) == 0
    assert (tmp_path / "costs.png").stat().st_size > 5000
    assert "fine" in capsys.readouterr().out


def test_the_codec_is_measured_whole_and_as_a_stream(tiny_folder, capsys):
    assert main(["codec", "--checkpoint", str(tiny_folder), "--runs", "1"]) == 0
    assert "decode in blocks of 25 frames" in capsys.readouterr().out


def test_a_verdict_is_measured_beside_its_products(tiny_folder, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    options = ["--checkpoint", "speech-small", "--seconds", "4", "--runs", "1", "--json", str(figures)]
    assert main(["detector", *options]) == 0
    result = json.loads(figures.read_text())
    assert 5e9 < result["operations"] < 10e9
    assert result["parts"]["verdict"]["median_s"] > 0
    options[1] = str(tiny_folder)
    assert main(["detector", *options, "--seconds", "0"]) == 2
    assert "--seconds must be over 0" in capsys.readouterr().err
    assert main(["detector", *options, "--seconds", "0.3"]) == 2
    assert "a verdict that costs nothing: too short" in capsys.readouterr().err
    assert main(["detector", *options]) == 0
    assert "x the products" in capsys.readouterr().out


def test_products_come_to_as_many_operations_as_asked_for():
    with FlopCounterMode(display=False) as counter:
        products(10**9, torch.float32)()
    assert counter.get_total_flops() == pytest.approx(10**9, rel=0.2)


def test_works_take_turns_and_each_is_told_of():
    order = []
    times = interleaved({"a": lambda: order.append("a") or time.sleep(0.03), "b": lambda: time.sleep(0.03)}, runs=3)
    assert len(order) == 2 + 3
    assert set(times) == {"a", "b"}
    assert times["a"].runs == 3


def test_errors_are_one_line(capsys):
    assert main(["stages", "--checkpoint", "no-such"]) == 2
    assert capsys.readouterr().err.startswith("audiolm.benchmark: ")


def test_the_synthetic_prompt_sounds_all_along():
    prompt = synthetic_prompt(3.0)
    assert prompt.duration_s == 3.0
    assert 0.1 < prompt.samples.abs().max() < 0.7
    assert prompt.samples.unfold(0, 4000, 4000).abs().amax(dim=1).min() > 0.05
