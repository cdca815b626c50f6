import argparse
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from audiolm.checkpoints.tensors import component_hash, token_hash
from audiolm.data.corpus import CorpusWriter
from audiolm.errors import CheckpointError, TrainingError
from audiolm.nn.quantize import ResidualQuantizer
from audiolm.training import codec as codec_task
from audiolm.training.__main__ import main
from audiolm.training.loop import LoopOptions, Trainer
from audiolm.training.runs import load_run
from tests.training.ranks import run_ranks

SMALL = ["--levels", "3", "--width", "16", "--channels", "2", "--batch-size", "2", "--crop-s", "0.4"]
PLAIN = ["--device", "cpu", "--threads", "1", "--precision", "fp32", "--warmup-steps", "1", "--lr", "2e-3"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tones of changing pitch and level."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    with CorpusWriter(folder) as writer:
        for index in range(8):
            time_s = np.arange(32_000) / 16_000
            tone = np.sin(2 * np.pi * rng.uniform(200, 2000) * time_s) * rng.uniform(0.05, 0.3)
            noisy = tone * np.sin(2 * np.pi * 3 * time_s) + 0.01 * rng.standard_normal(32_000)
            pcm = (noisy * 32767).astype(np.int16)
            split = "valid" if index >= 6 else "train"
            writer.add(pcm, id=str(index), group=split + str(index), split=split, source="tones", licence="CC0")
    return folder


@pytest.fixture(autouse=True)
def early_quantizer(monkeypatch):
    monkeypatch.setattr(codec_task, "QUANTIZE_FROM_STEP", 4)


def train(corpus, out, *options: str) -> dict[str, list[dict[str, float]]]:
    assert main(["codec", "--data", str(corpus), "--out", str(out), *SMALL, *PLAIN, *options]) == 0
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {kind: [row for row in rows if row["kind"] == kind] for kind in ("train", "valid")}


@pytest.mark.parametrize("backbone", ["frame", "seanet"])
def test_a_codec_trains_from_nothing_and_loads(corpus, tmp_path, backbone):
    log = train(corpus, tmp_path, "--steps", "8", "--backbone", backbone)
    assert all(np.isfinite(value) for row in log["valid"] for key, value in row.items() if key != "kind")
    component, codec, made_for = load_run(tmp_path)
    assert (component, made_for, codec.config.backbone) == ("codec", {}, backbone)
    assert codec.encode(torch.randn(1, 3200) * 0.1).shape == (1, 10, 3)


def test_training_lowers_the_validation_loss(corpus, tmp_path):
    before = train(corpus, tmp_path / "before", "--steps", "1")["valid"][-1]
    after = train(corpus, tmp_path / "after", "--steps", "60")["valid"][-1]
    assert after["mel"] < 0.8 * before["mel"]


@pytest.mark.parametrize(
    ("codec", "further", "weights"),
    [
        (["--phase", "predicted"], [], codec_task.WEIGHTS),
        (["--phase", "reconstructed"], [], codec_task.MAGNITUDE_ADVERSARIAL_WEIGHTS),
        (["--phase", "reconstructed"], ["--heard", "2"], {**codec_task.MAGNITUDE_ADVERSARIAL_WEIGHTS, "heard": 2.0}),
    ],
)
def test_adversarial_training_with_frozen_tokens_changes_the_decoder_alone(corpus, tmp_path, codec, further, weights):
    train(corpus, tmp_path / "plain", "--steps", "8", *codec)
    options = ["--init", str(tmp_path / "plain"), "--adversarial", "--freeze-tokens", "--steps", "3", *codec, *further]
    log = train(corpus, tmp_path / "adversarial", *options)
    row = log["train"][-1]
    assert row["codec_loss"] == pytest.approx(sum(weights[name] * row[name] for name in weights), rel=1e-4)
    assert "discriminator_loss" in row
    before, after = (load_run(tmp_path / name)[1].state_dict() for name in ("plain", "adversarial"))
    assert token_hash(before) == token_hash(after)
    assert component_hash(before) != component_hash(after)


def test_a_codec_without_phases_learns_magnitudes_and_its_decoder_alone_with_frozen_tokens(corpus, tmp_path):
    options = ["--phase", "reconstructed"]
    before = train(corpus, tmp_path / "before", "--steps", "1", *options)["valid"][-1]
    log = train(corpus, tmp_path / "plain", "--steps", "60", *options)
    assert log["valid"][-1]["mel"] < 0.8 * before["mel"]
    assert set(codec_task.MAGNITUDE_WEIGHTS) < set(log["train"][-1])
    train(corpus, tmp_path / "decoder", "--steps", "3", *options, "--init", str(tmp_path / "plain"), "--freeze-tokens")
    plain, decoder = (load_run(tmp_path / name)[1] for name in ("plain", "decoder"))
    assert plain.is_phase_free
    assert token_hash(plain.state_dict()) == token_hash(decoder.state_dict())
    assert component_hash(plain.state_dict()) != component_hash(decoder.state_dict())


def test_a_codec_without_phases_may_start_from_one_with_them(corpus, tmp_path):
    train(corpus, tmp_path / "phases", "--steps", "1")
    task = task_of(corpus, "--phase", "reconstructed", "--init", str(tmp_path / "phases"))
    assert not task.quantizer_ready  # its latents are new ones, and so must the codebooks be
    before = load_run(tmp_path / "phases")[1]
    latents = torch.randn(1, before.config.quantizer.dimension, 6)
    magnitudes = task.shipped.eval().decoder.log_magnitudes(latents)
    wanted = before.decoder.log_magnitudes(latents)[:, : magnitudes.shape[1]]
    assert torch.allclose(magnitudes, wanted, atol=0.05)  # the run is read through the cast of shipping


@pytest.mark.parametrize("other", [("--backbone", "seanet"), ("--n-fft", "960")])
def test_a_codec_without_phases_refuses_to_start_from_one_of_other_sizes(corpus, tmp_path, other):
    train(corpus, tmp_path, "--steps", "1", *other)
    with pytest.raises(TrainingError, match="does not fit"):
        task_of(corpus, "--phase", "reconstructed", "--init", str(tmp_path))


def test_tokens_with_phases_are_not_frozen_into_a_codec_without_them(corpus, tmp_path):
    train(corpus, tmp_path, "--steps", "1")
    with pytest.raises(TrainingError, match="tokens with phases"):
        task_of(corpus, "--phase", "reconstructed", "--init", str(tmp_path), "--freeze-tokens")


def task_of(corpus, *options: str, device: str = "cpu") -> codec_task.CodecTask:
    parser = argparse.ArgumentParser()
    codec_task.add_arguments(parser)
    args = parser.parse_args(["--data", str(corpus), *SMALL, *options])
    args.device, args.seed, args.resume, args.out = torch.device(device), 0, False, None
    return codec_task.build(args)


def test_the_codec_reuses_what_its_discriminator_heard_and_updates_its_codebooks_once(corpus):
    task = task_of(corpus, "--adversarial")
    task.quantizer_ready = True
    quantizer = task.shipped.quantizer
    batch = task.batch(torch.Generator().manual_seed(0))
    before = quantizer.usage.clone()
    task.loss("discriminator", dict(batch), 0)  # copies, as DistributedDataParallel makes them
    once = quantizer.usage.clone()
    task.loss("codec", dict(batch), 0)
    assert not torch.equal(before, once)
    assert torch.equal(once, quantizer.usage)
    task.loss("discriminator", dict(batch), 1)
    assert not torch.equal(once, quantizer.usage)


def test_what_is_heard_teaches_a_decoder_that_says_no_phases(corpus):
    task = task_of(corpus, "--phase", "reconstructed", "--heard", "2.0", "--freeze-tokens")
    batch = task.batch(torch.Generator().manual_seed(0))
    waveforms, latents = batch["waveforms"], task.shipped.encoder(batch["waveforms"])
    sound = task.shipped.decoder(latents)
    _, figures = task.loss("codec", batch, 0)
    before = figures["heard"]
    assert sound.shape == waveforms.shape
    wanted = task.spectral(task.shipped.decoder.sound(task.shipped.decoder.log_magnitudes(latents)), waveforms)["mel"]
    assert wanted.item() == pytest.approx(float(before), rel=0.05)  # levels differ from row to row in training
    optimizer = torch.optim.Adam(task.shipped.decoder.parameters(), 3e-3)
    for _ in range(5):
        optimizer.zero_grad()
        task._losses(task.shipped.decoder.log_magnitudes(latents.detach()), waveforms)["heard"].backward()
        optimizer.step()
    _, figures = task.loss("codec", batch, 0)
    assert figures["heard"] < before


def test_a_codec_that_says_phases_is_trained_on_what_is_heard_anyway(corpus):
    with pytest.raises(TrainingError, match="--phase reconstructed"):
        task_of(corpus, "--heard", "1.0")


@pytest.mark.parametrize("phase", ["predicted", "reconstructed"])
def test_everything_trained_is_on_the_training_device(corpus, phase):
    task = task_of(corpus, "--adversarial", "--phase", phase, device="meta")
    tensors = [*task.modules.parameters(), *task.modules.buffers(), *task.spectral.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_a_seed_repeats_a_run(corpus, tmp_path):
    weights = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        # A budget without end: the clock has no say in the learning rate.
        train(corpus, tmp_path / name, "--steps", "3", "--seed", seed, "--max-minutes", "1e12")
        weights.append(component_hash(load_run(tmp_path / name)[1].state_dict()))
    assert weights[0] == weights[1] != weights[2]


TWO_RANKS = """
import os, sys
from safetensors.torch import save_file
from audiolm.training import codec, loop
from audiolm.nn.quantize import ResidualQuantizer
from audiolm.training.__main__ import main
codec.QUANTIZE_FROM_STEP = 2
started, initialise = [], ResidualQuantizer.initialise
ResidualQuantizer.initialise = lambda self, *rest: started.append((initialise(self, *rest), self.codebooks.clone())[1])
trainers, run = [], loop.Trainer.run
loop.Trainer.run = lambda self: (trainers.append(self), run(self))[1]
code = main(sys.argv[2:])
state = {**trainers[0].task.modules.state_dict(), "started": started[0]}
save_file(state, f"{sys.argv[1]}/rank{os.environ['RANK']}.safetensors")
sys.exit(code)
"""


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], marks=pytest.mark.long),
        pytest.param(["--adversarial"], marks=pytest.mark.long),
        ["--adversarial", "--phase", "reconstructed"],
    ],
)
def test_two_ranks_train_one_codec_and_one_of_them_reports(corpus, tmp_path, options):
    command = ["codec", "--data", str(corpus), "--out", str(tmp_path), *SMALL, *PLAIN, "--steps", "4", *options]
    outputs = run_ranks(TWO_RANKS, str(tmp_path), *command)
    assert "si_sdr_db" in json.loads(outputs[0])
    assert outputs[1] == ""
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2))
    assert json.loads((tmp_path / "state.json").read_text())["quantizer_ready"]
    for name, value in first.items():
        if not name.startswith("balancer."):  # each rank weighs its own losses
            assert torch.equal(value, second[name]), name


def quantizer_starts(monkeypatch) -> list[int]:
    """Grows by one at each k-means start."""
    starts, initialise = [], ResidualQuantizer.initialise
    monkeypatch.setattr(
        ResidualQuantizer, "initialise", lambda self, *rest: (starts.append(1), initialise(self, *rest))[1]
    )
    return starts


@pytest.mark.parametrize("saved_by", ["this version", "one that did not say whether the quantizer was ready"])
@pytest.mark.parametrize(("steps", "expected"), [("2", 1), ("4", 0)])
def test_a_resumed_codec_starts_its_quantizer_once(corpus, tmp_path, monkeypatch, steps, expected, saved_by):
    train(corpus, tmp_path, "--steps", steps)
    if saved_by != "this version":
        state = json.loads((tmp_path / "state.json").read_text())
        del state["quantizer_ready"]
        (tmp_path / "state.json").write_text(json.dumps(state))
    starts = quantizer_starts(monkeypatch)
    train(corpus, tmp_path, "--steps", "6", "--resume")
    assert len(starts) == expected


def test_a_codec_started_from_another_takes_over_its_quantizer(corpus, tmp_path, monkeypatch):
    train(corpus, tmp_path / "early", "--steps", "2")
    train(corpus, tmp_path / "late", "--steps", "4")
    assert not task_of(corpus, "--init", str(tmp_path / "early")).quantizer_ready
    starts = quantizer_starts(monkeypatch)
    train(corpus, tmp_path / "b", "--steps", "1", "--init", str(tmp_path / "late"))
    train(corpus, tmp_path / "b", "--steps", "4", "--resume")
    assert not starts


def test_validating_averaged_weights_leaves_the_quantizer_as_it_was(corpus, tmp_path):
    options = LoopOptions(steps=6, average_decay=0.5, precision="fp32")
    trainer = Trainer(task_of(corpus), tmp_path, options, torch.device("cpu"))
    trainer.run()
    quantizer = trainer.task.shipped.quantizer
    before = {name: value.clone() for name, value in quantizer.named_buffers()}
    figures = trainer._figures()
    assert all(torch.equal(value, before[name]) for name, value in quantizer.named_buffers())
    assert float(quantizer.usage.max()) > 1.0
    trainer._swap_average()
    assert trainer.task.validate() == figures


def test_a_codec_starts_from_codecs_of_its_size_alone(corpus, tmp_path):
    train(corpus, tmp_path, "--steps", "1")
    with pytest.raises(TrainingError, match="does not fit this model"):
        task_of(corpus, "--init", str(tmp_path), "--width", "24")
    with pytest.raises(CheckpointError, match="missing"):
        task_of(corpus, "--init", str(tmp_path / "nothing"))


def test_a_resumed_codec_keeps_its_codebooks_in_use(corpus, tmp_path):
    train(corpus, tmp_path, "--steps", "10")
    log = train(corpus, tmp_path, "--steps", "14", "--resume")
    assert log["valid"][-1]["step"] == 14
    assert log["valid"][-1]["perplexity_first"] > 1.5
