import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from audiolm.errors import TrainingError
from audiolm.lm.layouts import UNKNOWN
from audiolm.training import guided_stage, runs
from audiolm.training.__main__ import main
from audiolm.training.guided_stage import guided_logits
from tests.training.conftest import arguments

BUDGET = ("--device", "cpu", "--threads", "1", "--lr", "1e-2", "--warmup-steps", "1", "--precision", "fp32")


@pytest.fixture(scope="module")
def teacher(material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    options = arguments(material, "coarse", "--condition-dropout", "0.3", "--condition-noise", "0")
    assert main(["stage", "--out", str(folder), "--steps", "40", *BUDGET, *options]) == 0
    return folder


def inputs(material, teacher, guidance):
    folders = ["--tokens", str(material / "tokens"), "--codec", str(material / "codec"), "--teacher", str(teacher)]
    return [*folders, "--guidance", str(guidance), "--batch-size", "3"]


def build(material, teacher, guidance, out="student", precision="fp32"):
    parser = argparse.ArgumentParser()
    guided_stage.add_arguments(parser)
    args = parser.parse_args(inputs(material, teacher, guidance))
    args.device, args.precision, args.out = torch.device("cpu"), precision, Path(out)
    return guided_stage.build(args)


def test_a_student_starts_where_guidance_is_one_and_training_brings_it_to_two(material, teacher, tmp_path):
    with torch.no_grad():
        same, before = (build(material, teacher, guidance).validate() for guidance in (1.0, 2.0))
    assert same["loss"] == pytest.approx(0.0, abs=1e-5)
    assert before["loss"] > 0.01
    budget = ["--out", str(tmp_path), "--steps", "30", *BUDGET]
    assert main(["guided-stage", *budget, *inputs(material, teacher, 2.0)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    after = [line for line in lines if line["kind"] == "valid"][-1]
    assert after["loss"] < 0.7 * before["loss"]
    gaps = [figures["nats_condition_shuffled"] - figures["nats"] for figures in (before, after)]
    assert gaps[1] > gaps[0]  # the condition counts for more
    component, student, made_for = runs.load_run(tmp_path)
    _, own, made_for_teacher = runs.load_run(teacher)
    assert (component, student.config, made_for) == ("stage_coarse", own.config, made_for_teacher)


def test_guided_logits_go_on_from_those_without_a_condition(material, teacher):
    task = build(material, teacher, 2.0)
    batch = task.batch(torch.Generator().manual_seed(0))
    model, options = task.teacher, (batch.targets, batch.condition)
    with torch.no_grad():
        hidden = torch.full_like(batch.condition, UNKNOWN)
        known, unknown = (model.logits(batch.targets, condition) for condition in (batch.condition, hidden))
        for guidance, expected in ((1.0, known), (0.0, unknown)):
            for own, other in zip(guided_logits(model, *options, guidance), expected, strict=True):
                assert torch.allclose(own, other, atol=1e-5)
        twice = guided_logits(model, *options, 2.0)[0]
    assert torch.allclose(twice - known[0], known[0] - unknown[0], atol=1e-4)


def test_the_loss_is_the_divergence_from_the_teacher_where_steps_count(material, teacher):
    task = build(material, teacher, 3.0)
    task.modules.eval()
    batch = task.batch(torch.Generator().manual_seed(0))
    batch = replace(batch, mask=torch.rand(batch.targets.shape[:2], generator=torch.Generator().manual_seed(1)) < 0.5)
    with torch.no_grad():
        wanted = guided_logits(task.teacher, batch.targets, batch.condition, 3.0, batch.inputs)
        own = task.model.logits(batch.targets, batch.condition, inputs=batch.inputs)
        loss, figures = task.loss("main", batch, 0)
    expected = [
        (F.softmax(w, -1) * (F.log_softmax(w, -1) - F.log_softmax(o, -1))).sum(-1)[batch.mask].mean()
        for w, o in zip(wanted, own, strict=True)
    ]
    assert float(loss) == pytest.approx(float(sum(expected)), rel=1e-4)
    assert set(figures) == {f"divergence_level_{level}" for level in range(len(expected))}


def test_only_the_student_learns(material, teacher):
    task = build(material, teacher, 2.0, precision="bf16")
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = task.loss("main", task.batch(torch.Generator().manual_seed(0)), 0)
    loss.backward()
    assert not task.teacher.training
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    assert any(bool(parameter.grad.any()) for parameter in task.model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("stage", ["semantic", "coarse"])
def test_a_teacher_that_never_went_without_a_condition_is_refused(material, tmp_path, stage):
    assert main(["stage", "--out", str(tmp_path), "--steps", "1", *BUDGET, *arguments(material, stage)]) == 0
    with pytest.raises(TrainingError, match="not of a stage trained with --condition-dropout"):
        build(material, tmp_path, 2.0)


def test_what_cannot_be_is_refused(material, teacher):
    with pytest.raises(TrainingError, match="found nan"):
        build(material, teacher, float("nan"))
    with pytest.raises(TrainingError, match="the student would replace its teacher"):
        build(material, teacher, 2.0, out=teacher)


def test_a_run_is_gone_on_with_as_what_it_is(material, teacher, tmp_path, capsys):
    budget = ["--out", str(tmp_path), "--steps", "2", *BUDGET]
    assert main(["guided-stage", *budget, *inputs(material, teacher, 2.0)]) == 0
    budget[3] = "3"
    assert main(["guided-stage", *budget, "--resume", *inputs(material, teacher, 2.0)]) == 0
    assert main(["guided-stage", *budget, "--resume", *inputs(material, teacher, 3.0)]) == 2
    assert "has guidance 2.0, not 3.0" in capsys.readouterr().err
    assert main(["stage", *budget, "--resume", *arguments(material, "coarse")]) == 2
    assert "was made by guided-stage" in capsys.readouterr().err
