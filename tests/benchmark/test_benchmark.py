from __future__ import annotations

import json

import pytest

from audiolm.benchmark.__main__ import main
from audiolm.benchmark.stages import measure, synthetic_prompt, table
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
    assert by_name["coarse"].steps == 20
    assert by_name["coarse"].tokens == 20 * 2 * 2
    assert by_name["coarse"].tokens_per_s == pytest.approx(80 / by_name["coarse"].seconds)
    assert speed.seconds == pytest.approx(sum(stage.seconds for stage in speed.stages))
    assert speed.real_time_factor == pytest.approx(speed.seconds / 0.4)
    text = table(speed)
    assert all(name in text for name in (*by_name, "whole", "torch", speed.processor, "tokens/s", "real-time factor"))


def test_the_command_prints_json_and_a_table(tiny_folder, capsys):
    options = ["--checkpoint", str(tiny_folder), "--seconds", "0.2", "--prompt-seconds", "0.5", "--device", "cpu"]
    assert main([*options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["generated_s"] == pytest.approx(0.2)
    assert main(options) == 0
    assert capsys.readouterr().out.startswith("tiny-speech: 1 x 0.20 s")


def test_errors_are_one_line(capsys):
    assert main(["--checkpoint", "no-such"]) == 2
    assert capsys.readouterr().err.startswith("audiolm.benchmark: ")


def test_the_synthetic_prompt_sounds_all_along():
    prompt = synthetic_prompt(3.0)
    assert prompt.duration_s == 3.0
    assert 0.1 < prompt.samples.abs().max() < 0.7
    assert prompt.samples.unfold(0, 4000, 4000).abs().amax(dim=1).min() > 0.05
