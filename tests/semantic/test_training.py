import argparse
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from audiolm.checkpoints.format import read_run
from audiolm.config import CodecConfig, SemanticConfig
from audiolm.data.corpus import Corpus, CorpusWriter, to_pcm
from audiolm.data.phones import PHONES_FILE, UNKNOWN, PhoneLabels
from audiolm.errors import CheckpointError, ConfigError, DataError, TrainingError
from audiolm.semantic import SemanticTokenizer
from audiolm.semantic.w2vbert import W2vBertEncoder
from audiolm.training import kmeans, runs, semantic
from audiolm.training.loop import LoopOptions, Trainer
from audiolm.training.semantic import sounding_positions

TINY = (
    "--batch-size 4 --crop-s 2 --num-mels 20 --width 16 --num-heads 2 --feed-forward 24 --num-contrastive-layers 1 "
    "--num-masked-layers 2 --tap-layer 2 --codebook-entries 8 --start-crops 4 --target-cepstra 8 --warp 0.1 "
    "--fixed-target-steps 5"
)


def task_of(corpus_folder: Path, *more: str) -> semantic.SemanticTask:
    parser = argparse.ArgumentParser()
    semantic.add_arguments(parser)
    args = parser.parse_args(["--data", str(corpus_folder), *TINY.split(), *more])
    args.device, args.seed = "cpu", 0
    torch.manual_seed(0)
    return semantic.build(args)


def trained(corpus_folder: Path, out: Path, steps: int, *more: str) -> dict[str, float]:
    options = LoopOptions(steps=steps, max_minutes=1.0, learning_rate=3e-3, warmup_steps=2)
    return Trainer(task_of(corpus_folder, *more), out, options, torch.device("cpu")).run()


def untrained(corpus_folder: Path, *more: str) -> dict[str, float]:
    task = task_of(corpus_folder, *more)
    task.modules.eval()
    with torch.no_grad():
        return task.validate()


def kmeans_args(corpus_folder: Path, encoder: Path, out: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    kmeans.add_arguments(parser)
    return parser.parse_args(
        ["--data", str(corpus_folder), "--encoder", str(encoder), "--out", str(out), "--num-clusters", "6",
         "--hours", "0.005", "--crop-s", "1", "--device", "cpu", "--threads", "1", *more]
    )  # fmt: skip


def test_training_lowers_the_validation_loss(corpus_folder: Path, tmp_path: Path) -> None:
    before = untrained(corpus_folder)
    after = trained(corpus_folder, tmp_path, 15)
    assert after["loss"] < before["loss"] - 0.05
    assert after["code_perplexity"] > 3


def test_the_same_generator_state_gives_the_same_batch(corpus_folder: Path) -> None:
    task = task_of(corpus_folder)
    first, second = (task.batch(torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first.views.noisy, second.views.noisy)
    assert torch.equal(first.mask, second.mask)


def test_only_the_choice_of_codes_waits_for_the_fixed_target_steps(corpus_folder: Path) -> None:
    task = task_of(corpus_folder)
    for step, waiting in ((0, {"model.quantizer.scores.weight", "model.quantizer.scores.bias"}), (5, set())):
        task.modules.zero_grad()
        loss, _ = task.loss("main", task.batch(torch.Generator().manual_seed(0)), step)
        loss.backward()
        found = {name for name, value in task.modules.named_parameters() if value.grad is None}
        assert found == waiting


def test_padding_is_not_sounding_but_a_pause_is() -> None:
    crops = torch.ones(1, 6 * 640)
    crops[:, 640:1280] = 0.0
    crops[:, 4 * 640 :] = 0.0
    assert sounding_positions(crops).tolist() == [[True, True, True, True, False, False]]


def test_kmeans_writes_a_tokenizer_run(corpus_folder: Path, tmp_path: Path) -> None:
    trained(corpus_folder, tmp_path / "encoder", 1)
    args = kmeans_args(corpus_folder, tmp_path / "encoder", tmp_path / "tokenizer", "--normalise-per-group")
    figures = kmeans.run(args)
    component, tokenizer, made_for = runs.load_run(tmp_path / "tokenizer")
    assert component == "semantic"
    assert made_for == {}
    assert isinstance(tokenizer, SemanticTokenizer)
    assert tokenizer.codebook_size == 6
    assert 1.0 <= figures["usage_perplexity"] <= 6.0
    assert 0.0 <= figures["repeat_rate"] <= 1.0
    assert tokenizer.encode(torch.randn(1, 6_400)).shape == (1, 10)


def test_the_tapped_layer_can_be_chosen_afterwards(corpus_folder: Path, tmp_path: Path) -> None:
    trained(corpus_folder, tmp_path / "encoder", 1)
    kmeans.run(kmeans_args(corpus_folder, tmp_path / "encoder", tmp_path / "tokenizer", "--tap-layer", "3"))
    tokenizer = runs.load_run(tmp_path / "tokenizer")[1]
    assert len(tokenizer.extractor.layers) == tokenizer.config.tap_layer == 3
    with pytest.raises(ConfigError, match=r"tap_layer must be 1\.\.3, found 0"):
        kmeans.run(kmeans_args(corpus_folder, tmp_path / "encoder", tmp_path / "tokenizer", "--tap-layer", "0"))


def test_an_encoder_is_gone_on_with_as_it_is_tapped(corpus_folder: Path, tmp_path: Path) -> None:
    trained(corpus_folder, tmp_path, 1)
    device = torch.device("cpu")
    Trainer(task_of(corpus_folder, "--dropout", "0.1"), tmp_path, LoopOptions(), device).resume()
    other = task_of(corpus_folder, "--tap-layer", "3", "--no-centre-targets")
    with pytest.raises(TrainingError, match="has tap_layer 2, not 3; centre_targets True, not False"):
        Trainer(other, tmp_path, LoopOptions(), device).resume()


def test_features_are_standardised_over_the_training_data(corpus_folder: Path, tmp_path: Path) -> None:
    trained(corpus_folder, tmp_path / "encoder", 1)
    kmeans.run(kmeans_args(corpus_folder, tmp_path / "encoder", tmp_path / "tokenizer"))
    tokenizer = runs.load_run(tmp_path / "tokenizer")[1]
    corpus = kmeans.Corpus(corpus_folder)
    features = torch.cat([tokenizer.features(corpus.waveform(item)[None])[0] for item in corpus.select(split="train")])
    assert features.mean(dim=0).abs().max() < 0.5
    assert 0.6 < float(features.std(dim=0).mean()) < 1.4


def test_information_about_the_group_is_none_where_there_is_none_and_all_where_tokens_name_it() -> None:
    generator = torch.Generator().manual_seed(0)
    ids, groups = (torch.randint(size, (40_000,), generator=generator) for size in (100, 20))
    plug_in = 99 * 19 / 80_000
    assert kmeans.group_information(ids, groups) < 0.1 * plug_in  # the counts alone would tell about 0.024 nats
    assert kmeans.group_information(torch.zeros(50, dtype=torch.long), torch.arange(50) % 5) == 0.0
    told = kmeans.group_information(3 * groups, groups)  # K = G = 20: ids that do not occur do not count
    entropy = torch.distributions.Categorical(torch.bincount(groups).double()).entropy()
    assert told == pytest.approx(float(entropy) - 19 * 19 / 80_000)
    assert kmeans.group_information(torch.arange(6), torch.arange(6) % 2) >= 0.0


def test_kmeans_without_an_encoder_run_is_refused(corpus_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        kmeans.run(kmeans_args(corpus_folder, tmp_path / "nothing", tmp_path / "tokenizer"))


def test_kmeans_of_a_run_that_is_neither_encoder_nor_tokenizer_is_refused(corpus_folder: Path, tmp_path: Path) -> None:
    runs.write_run(tmp_path, "codec", torch.nn.Linear(1, 1), CodecConfig(), {})
    with pytest.raises(TrainingError, match="run of 'codec', neither 'semantic' nor 'w2vbert'"):
        kmeans.run(kmeans_args(corpus_folder, tmp_path, tmp_path / "tokenizer"))


def test_clusters_are_fitted_on_the_features_that_ship(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(corpus_folder, tmp_path / "encoder", 1)
    used = []
    fit = kmeans._features
    monkeypatch.setattr(
        kmeans, "_features", lambda tokenizer, *rest: (used.append(tokenizer), fit(tokenizer, *rest))[1]
    )
    kmeans.run(kmeans_args(corpus_folder, tmp_path / "encoder", tmp_path / "tokenizer"))
    sound = torch.randn(1, 6_400)
    shipped = runs.load_run(tmp_path / "tokenizer")[1]
    assert len(used) == 2
    assert all(torch.equal(one.extractor(sound), shipped.extractor(sound)) for one in used)


def test_a_split_without_usable_items_is_refused(corpus_folder: Path) -> None:
    corpus = kmeans.Corpus(corpus_folder)
    with pytest.raises(DataError, match="split 'test'"):
        kmeans._features(None, [corpus], "test", 0.1, 1.0, torch.Generator())  # type: ignore[arg-type]


@pytest.fixture
def labelled_folder(corpus_folder: Path) -> Path:
    """The corpus with a "phone" for dull stretches and one for bright ones; an item is unknown."""
    corpus = Corpus(corpus_folder)
    labels = []
    for item in corpus.items:
        waveform = torch.cat([corpus.waveform(item), torch.zeros(-item.length % 160)])
        frames = waveform.unflatten(0, (-1, 160))
        bright = (frames[:, 1:] * frames[:, :-1]).sum(1) < 0
        labels.append(2 + bright.to(torch.uint8))
    labels[1] = torch.full_like(labels[1], UNKNOWN)
    (corpus_folder / PHONES_FILE).write_bytes(torch.cat(labels).numpy().tobytes())
    return corpus_folder


def test_known_phones_are_learnt_beside_the_rest(labelled_folder: Path, tmp_path: Path) -> None:
    without = untrained(labelled_folder, "--phones", "2")
    after = trained(labelled_folder, tmp_path / "long", 25, "--phones", "2")
    assert after["phones"] < without["phones"] - 1.0
    assert after["phone_accuracy"] > 0.65  # two phones, equally often
    expected = after["contrastive"] + after["masked"] + 2 * after["phones"]
    assert after["loss"] == pytest.approx(expected, rel=1e-5)  # so that --keep-best keeps what phones were learnt
    assert expected < without["loss"]
    kmeans.run(kmeans_args(labelled_folder, tmp_path / "long", tmp_path / "tokenizer"))  # the head does not ship


def test_phones_are_those_of_the_positions_whose_features_are_taken(labelled_folder: Path, tmp_path: Path) -> None:
    trained(labelled_folder, tmp_path / "encoder", 1)
    tokenizer = kmeans._untrained_tokenizer(kmeans_args(labelled_folder, tmp_path / "encoder", tmp_path))
    corpus, generator = Corpus(labelled_folder), torch.Generator().manual_seed(0)
    data = kmeans._features(tokenizer, [corpus], "train", 0.001, 0.5, generator, with_phones=True)
    assert data.phones.shape == (len(data.features), 3)
    generator, labels, start = torch.Generator().manual_seed(0), PhoneLabels(corpus), 0
    chosen = [item for item in corpus.select(split="train") if item.duration_s >= kmeans.MIN_ITEM_S]
    for index in torch.randperm(len(chosen), generator=generator).tolist():
        crop = kmeans._random_crop(chosen[index], 8_000, generator)
        count = crop.length // 640
        own = data.phones[start : start + count]
        assert torch.equal(own[:, 1], labels.at(crop, count))
        assert int(own[0, 0]) == int(own[-1, 2]) == UNKNOWN
        rows = tokenizer.features(corpus.read([crop], crop.length))[0]
        assert torch.equal(data.features[start : start + count], rows)
        if (start := start + count) == len(data.features):
            break
    assert len(set(data.phones[:, 1].tolist())) > 1


def test_clusters_are_moved_for_the_phones_on_the_layers_of_a_tokenizer(labelled_folder: Path, tmp_path: Path) -> None:
    trained(labelled_folder, tmp_path / "encoder", 1)
    kmeans.run(kmeans_args(labelled_folder, tmp_path / "encoder", tmp_path / "plain"))
    figures = kmeans.run(kmeans_args(labelled_folder, tmp_path / "plain", tmp_path / "moved", "--phones"))
    assert 0.0 <= figures["phone_information_nats"] <= np.log(3)
    plain, moved = (runs.load_run(tmp_path / name)[1] for name in ("plain", "moved"))
    sound = torch.randn(1, 6_400)
    assert torch.equal(plain.extractor(sound), moved.extractor(sound))
    assert not torch.equal(plain.centroids, moved.centroids)
    assert moved.centroids.isfinite().all()
    with pytest.raises(ConfigError, match="has its layers up to 2, found --tap-layer 3"):
        kmeans.run(kmeans_args(labelled_folder, tmp_path / "plain", tmp_path / "deeper", "--tap-layer", "3"))
    (labelled_folder / PHONES_FILE).unlink()
    with pytest.raises(DataError, match=r"audiolm\.data phones"):
        kmeans.run(kmeans_args(labelled_folder, tmp_path / "plain", tmp_path / "moved", "--phones"))


def test_phones_ask_for_aligned_transcripts(corpus_folder: Path) -> None:
    with pytest.raises(DataError, match=r"audiolm\.data phones"):
        task_of(corpus_folder, "--phones", "1")


def test_an_encoder_starts_from_the_layers_of_an_earlier_run(corpus_folder: Path, tmp_path: Path) -> None:
    trained(corpus_folder, tmp_path / "encoder", 1)
    kmeans.run(kmeans_args(corpus_folder, tmp_path / "encoder", tmp_path / "tokenizer"))
    earlier, fresh = task_of(corpus_folder), task_of(corpus_folder, "--init", str(tmp_path / "tokenizer"))
    kept = runs.load_run(tmp_path / "tokenizer")[1].extractor.state_dict()
    name = next(name for name, value in kept.items() if name.startswith("layers.1") and value.ndim == 2)
    weights, first = fresh.shipped.encoder.state_dict(), earlier.shipped.encoder.state_dict()
    assert torch.allclose(weights[name], kept[name], atol=1e-2)
    assert all(torch.equal(weights[n], first[n]) for n in weights if n.startswith("log_mel"))
    with pytest.raises(TrainingError, match="other sizes"):
        task_of(corpus_folder, "--init", str(tmp_path / "tokenizer"), "--width", "8")


def encoder_of(run: Path, num_layers: int) -> W2vBertEncoder:
    component, config, tensors, _ = read_run(run)
    encoder = W2vBertEncoder(SemanticConfig.from_dict(config), num_layers)
    encoder.load_state_dict(semantic.layers_of(run, component, tensors))
    return encoder.eval()


def test_an_encoder_is_made_deeper(corpus_folder: Path, tmp_path: Path) -> None:
    trained(corpus_folder, tmp_path / "encoder", 1)
    deeper = ("--init", str(tmp_path / "encoder"), "--num-masked-layers", "4", "--tap-layer", "5")
    before, after = encoder_of(tmp_path / "encoder", 3), task_of(corpus_folder, *deeper).shipped.encoder.eval()
    x = torch.randn(2, 20, 40, generator=torch.Generator().manual_seed(0))
    states = []
    for encoder in (before, after):
        y = encoder.front_end(x)
        for layer in encoder.layers:
            y = layer(y)
        states.append(y)
    assert F.cosine_similarity(*states, dim=-1).min() > 0.99  # the layers more only normalise
    trained(corpus_folder, tmp_path / "deeper", 2, *deeper)
    for layer in encoder_of(tmp_path / "deeper", 5).layers[3:]:
        first, last = layer.feed_forward_before.contract, layer.feed_forward_after.contract
        for projection in (first, layer.attention.out, layer.convolution.out, last):
            assert projection.weight.any()


def test_a_run_of_another_kind_of_encoder_is_refused(corpus_folder: Path, tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"extractor": torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)})})
    runs.write_run(tmp_path, "semantic", model, SemanticConfig(), {})
    with pytest.raises(TrainingError, match="holds no layer of this kind of encoder"):
        task_of(corpus_folder, "--init", str(tmp_path))


def test_bands_are_masked_on_the_context_side_alone(corpus_folder: Path) -> None:
    task = task_of(corpus_folder, "--masked-bands", "2")
    batch = task.batch(torch.Generator().manual_seed(0))
    assert batch.views.masked_bands.any()
    nothing = torch.zeros_like(batch.mask)
    heard = task.shipped.eval()(batch.views, nothing, batch.valid)
    whole = task.shipped(dataclasses.replace(batch.views, masked_bands=None), nothing, batch.valid)
    assert not torch.allclose(heard.tapped, whole.tapped)
    assert torch.equal(heard.codes, whole.codes)


def test_a_mask_is_one_run_of_bands_anywhere() -> None:
    mask = semantic.band_mask(500, 20, 1, torch.Generator().manual_seed(0))
    edges = (mask[:, 1:] != mask[:, :-1]).sum(1) + mask[:, 0] + mask[:, -1]
    assert set(edges.tolist()) == {0, 2}
    assert set(mask.sum(1).tolist()) == set(range(semantic.WIDEST_MASK + 1))
    assert mask.any(dim=0).all()
    assert semantic.band_mask(500, 20, 3, torch.Generator().manual_seed(0)).sum(1).max() > semantic.WIDEST_MASK


def test_an_encoder_and_its_clusters_hear_several_corpora(corpus_folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(corpus_folder, second)
    assert len(task_of(corpus_folder, "--data", str(corpus_folder), str(second)).sources.corpora) == 2
    args = kmeans_args(corpus_folder, tmp_path, tmp_path, "--data", str(corpus_folder), str(second))
    assert args.data == [corpus_folder, second]


def test_a_recording_played_faster_is_higher_and_its_phones_come_sooner(tmp_path: Path) -> None:
    seconds = torch.arange(64_000) / 16_000
    tone = torch.where(seconds < 2, torch.sin(6.283185 * 1000 * seconds), torch.sin(6.283185 * 4000 * seconds))
    with CorpusWriter(tmp_path) as writer:
        labels = {"group": "reader", "source": "made", "licence": "CC0", "split": "train"}
        writer.add(to_pcm(0.1 * tone.numpy().astype(np.float32)), id="tones", **labels)
    (tmp_path / PHONES_FILE).write_bytes(bytes([2] * 200 + [3] * 200))
    mixture = semantic.CorpusMixture([Corpus(tmp_path)], 16_000, with_phones=True)
    played, phones = mixture.crops("train", 51_200, 1, torch.Generator(), speed=1.25)  # the whole recording
    assert played.shape == (1, 51_200)
    assert phones.tolist() == [[2] * 40 + [3] * 40]
    for part, expected_hz in ((played[0, 4_000:20_000], 1250), (played[0, 30_000:46_000], 5000)):
        assert int(torch.fft.rfft(part).abs().argmax()) == expected_hz
        assert float(part.square().mean().sqrt()) == pytest.approx(0.1 / 2**0.5, rel=0.02)  # high ones are not dulled


@pytest.mark.parametrize("speed", ["0.9091", "1.1"])
def test_a_batch_of_any_speed_has_a_phone_a_position(labelled_folder: Path, speed: str) -> None:
    task = task_of(labelled_folder, "--speeds", speed, "--phones", "1", "--crop-s", "5")
    batch = task.batch(torch.Generator().manual_seed(0))
    assert batch.views.clean.shape == (4, 80_000)
    assert batch.phones.shape == batch.valid.shape == (4, 125)
    loss, figures = task.loss("main", batch, 0)
    assert torch.isfinite(loss)
    assert figures["phones"] > 0


def test_training_batches_are_played_at_the_speeds_asked_for_and_validation_as_recorded(
    corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, heard = task_of(corpus_folder, "--speeds", "0.9", "1", "1.1"), []
    crops = task.sources.crops

    def spy(split: str, length: int, count: int, generator: torch.Generator, speed: float):
        heard.append((split, speed))
        return crops(split, length, count, generator, speed)

    monkeypatch.setattr(task.sources, "crops", spy)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        assert task.batch(generator).views.clean.shape == (4, 32_000)
    with torch.no_grad():
        task.validate()
    assert {speed for split, speed in heard if split == "train"} == {0.9, 1.0, 1.1}
    assert {speed for split, speed in heard if split == "valid"} == {1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--speeds", "1", "2.5"], "--speeds must be 0.5 to 2, found 2.5"),
        (["--speeds", "nan"], "found nan"),
        (["--masked-bands", "-1"], "--masked-bands must be at least 0, found -1"),
        (["--warp", "1"], "--warp must be at least 0 and under 1, found 1"),
        (["--phones", "-1"], "--phones must be at least 0 and finite, found -1"),
        (["--phones", "inf"], "found inf"),
    ],
)
def test_impossible_options_are_refused(corpus_folder: Path, options: list[str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        task_of(corpus_folder, *options)
