import math

import pytest
import torch

from audiolm.checkpoints.format import load_checkpoint
from audiolm.checkpoints.listener import FIGURES, Listener
from audiolm.inspection.scores import score_coarse, score_semantic
from audiolm.pipeline import Pipeline
from audiolm.stages import finished
from tests.pipeline.material import recording
from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="module", params=["depth", "flattened"])
def models(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    return load_checkpoint(make_tiny_checkpoint(folder, layout=request.param).folder)


@pytest.fixture(scope="module")
def listener(models) -> Listener:
    return Listener(models.codec, models.semantic, models.stages)


def clips(seconds: float) -> torch.Tensor:
    return torch.stack([recording(seconds, seed).samples for seed in range(2)])


def test_figures_are_those_of_the_inspection(models, listener):
    waveform = clips(2.0)[:1]
    figures = listener(waveform)[0]
    assert figures.shape == (listener.num_features, 50)
    encoded = Pipeline(models).encode(recording(2.0, 0))
    semantic = finished(score_semantic(Pipeline(models), encoded.semantic))
    coarse = finished(score_coarse(Pipeline(models), encoded.semantic, encoded.codes))
    num_semantic = len(models.stages["semantic"].config.levels)
    tolerance = {"atol": 0.05, "rtol": 0.02}  # the listener computes in bfloat16
    assert torch.allclose(figures[0], semantic.nats[:, 0], **tolerance)
    first = FIGURES * num_semantic
    assert torch.allclose(figures[first], coarse.nats[::2, 0], **tolerance)
    assert torch.allclose(figures[first + 1], coarse.entropy[::2, 0], **tolerance)
    ranks = (1.0 + coarse.rank[::2, 0]).log()
    assert float((figures[first + 2] - ranks).abs().mean()) < 0.05
    assert float(figures[first + 2].max()) <= math.log(models.codec.codebook_size) + 1e-3
    second = first + FIGURES * models.codec.config.num_coarse_levels
    assert torch.allclose(figures[second], coarse.nats[1::2, 0], **tolerance)


def test_a_clip_is_heard_the_same_alone_and_in_a_batch_and_at_any_level(listener):
    batch = clips(1.5)
    alone = listener(batch[1:])
    assert torch.allclose(listener(batch)[1:], alone, atol=0.05)
    assert torch.allclose(listener(0.2 * batch[1:] + 0.1), alone, atol=0.05)


def test_long_recordings_are_heard_in_windows_that_do_not_depend_on_each_other(listener):
    long = clips(7.0)[:1]
    heard = listener(long)
    assert heard.shape[2] == 175
    changed = long.clone()
    changed[:, -8_000:] = changed[:, -8_000:].flip(1)
    first = slice(0, 87)  # 3.5 s each
    assert torch.allclose(listener(changed)[:, :, first], heard[:, :, first], atol=0.3)
    assert not torch.allclose(listener(changed), heard, atol=0.3)


def test_what_is_shorter_than_a_frame_pair_has_no_figures_and_silence_has_some(listener):
    assert listener(torch.zeros(3, 639)).shape == (3, listener.num_features, 0)
    assert bool(torch.isfinite(listener(torch.zeros(1, 16_000))).all())
