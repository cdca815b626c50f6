import json

import numpy as np
import pytest
import torch

from audiolm.checkpoints.tensors import component_hash, token_hash
from audiolm.data.corpus import CorpusWriter
from audiolm.training import codec as codec_task
from audiolm.training.__main__ import main
from audiolm.training.runs import load_run

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


def test_adversarial_training_with_frozen_tokens_changes_the_decoder_alone(corpus, tmp_path):
    train(corpus, tmp_path / "plain", "--steps", "8")
    options = ["--init", str(tmp_path / "plain"), "--adversarial", "--freeze-tokens", "--steps", "3"]
    log = train(corpus, tmp_path / "adversarial", *options)
    assert {"adversarial", "matching", "discriminator_loss"} <= log["train"][-1].keys()
    before, after = (load_run(tmp_path / name)[1].state_dict() for name in ("plain", "adversarial"))
    assert token_hash(before) == token_hash(after)
    assert component_hash(before) != component_hash(after)


def test_a_resumed_codec_keeps_its_codebooks_in_use(corpus, tmp_path):
    train(corpus, tmp_path, "--steps", "10")
    log = train(corpus, tmp_path, "--steps", "14", "--resume")
    assert log["valid"][-1]["step"] == 14
    assert log["valid"][-1]["perplexity_first"] > 1.5
