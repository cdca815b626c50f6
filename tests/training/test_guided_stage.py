import argparse
import json

import pytest
import torch
from torch.nn import functional as F

from audiolm.errors import TrainingError
from audiolm.lm.layouts import UNKNOWN
from audiolm.training import guided_stage, runs
from audiolm.training.__main__ import main
from audiolm.training.guided_stage import guided_logits
from tests.training.test_stage import arguments

BUDGET = ("--device", "cpu", "--threads", "1", "--lr", "1e-2", "--warmup-steps", "1", "--precision", "fp32")


@pytest.fixture(scope="module")
def teacher(material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    options = arguments(material, "coarse", "--condition-dropout", "0.3", "--condition-noise", "0")
    assert main(["stage", "--out", str(folder), "--steps", "40", *BUDGET, *options]) == 0
    return folder


def build(material, teacher, guidance):
    parser = argparse.ArgumentParser()
    guided_stage.add_arguments(parser)
    inputs = ["--tokens", str(material / "tokens"), "--codec", str(material / "codec"), "--teacher", str(teacher)]
    args = parser.parse_args([*inputs, "--guidance", str(guidance), "--batch-size", "3"])
    args.device, args.precision = torch.device("cpu"), "fp32"
    return guided_stage.build(args)


def test_a_student_starts_where_guidance_is_one_and_training_brings_it_to_two(material, teacher, tmp_path):
    with torch.no_grad():
        same, before = (build(material, teacher, guidance).validate() for guidance in (1.0, 2.0))
    assert same["loss"] == pytest.approx(0.0, abs=1e-5)
    assert before["loss"] > 0.01
    inputs = ["--tokens", str(material / "tokens"), "--codec", str(material / "codec"), "--teacher", str(teacher)]
    budget = ["--out", str(tmp_path), "--steps", "30", *BUDGET]
    assert main(["guided-stage", *budget, *inputs, "--guidance", "2", "--batch-size", "3"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    after = [line for line in lines if line["kind"] == "valid"][-1]
    assert after["loss"] < 0.7 * before["loss"]
    gaps = [figures["loss_condition_shuffled"] - figures["nats"] for figures in (before, after)]
    assert gaps[1] > gaps[0]  # the condition counts for more
    component, student, made_for = runs.load_run(tmp_path)
    _, own, made_for_teacher = runs.load_run(teacher)
    assert (component, student.config, made_for) == ("stage_coarse", own.config, made_for_teacher)


def test_guided_logits_go_on_from_those_without_a_condition(material, teacher):
    task = build(material, teacher, 2.0)
    batch = task.batch(torch.Generator().manual_seed(0))
    model, options = task.teacher, (batch.targets, batch.condition)
    with torch.no_grad():
        known, unknown = (model.logits(batch.targets, c) for c in (batch.condition, torch.full_like(options[1], -1)))
        assert UNKNOWN == -1
        for guidance, expected in ((1.0, known), (0.0, unknown)):
            for own, other in zip(guided_logits(model, *options, guidance), expected, strict=True):
                assert torch.allclose(own, other, atol=1e-5)
        twice = guided_logits(model, *options, 2.0)[0]
    assert torch.allclose(twice - known[0], known[0] - unknown[0], atol=1e-4)


def test_the_loss_is_the_divergence_from_the_teacher_where_steps_count(material, teacher):
    task = build(material, teacher, 3.0)
    task.modules.eval()
    batch = task.batch(torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = guided_logits(task.teacher, batch.targets, batch.condition, 3.0, batch.inputs)
        own = task.model.logits(batch.targets, batch.condition, inputs=batch.inputs)
        loss, figures = task.loss("main", batch, 0)
    counted = torch.ones(batch.targets.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask
    expected = [
        (F.softmax(w, -1) * (F.log_softmax(w, -1) - F.log_softmax(o, -1))).sum(-1)[counted].mean()
        for w, o in zip(wanted, own, strict=True)
    ]
    assert float(loss) == pytest.approx(float(sum(expected)), rel=1e-4)
    assert set(figures) == {f"level_{level}" for level in range(len(expected))}


def test_a_teacher_without_a_condition_is_refused(material, tmp_path):
    assert main(["stage", "--out", str(tmp_path), "--steps", "1", *BUDGET, *arguments(material, "semantic")]) == 0
    with pytest.raises(TrainingError, match="not of a stage with a condition"):
        build(material, tmp_path, 2.0)
