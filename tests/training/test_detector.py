"""The detector's data and training, on tiny models: pairs, augmentation, a run from data to a calibrated verdict."""

import json
from argparse import ArgumentParser
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from audiolm.checkpoints.components import MADE_FOR
from audiolm.checkpoints.format import load_checkpoint, read_run
from audiolm.config import STAGES, DetectorConfig, SamplingConfig
from audiolm.data.pairs import SPLITS, PairSet, PairWriter
from audiolm.detector import Detector
from audiolm.errors import DataError, TrainingError
from audiolm.pipeline import Pipeline
from audiolm.streams import Waveform
from audiolm.training import detector, detector_data
from audiolm.training.loop import LoopOptions, Trainer
from audiolm.training.runs import load_run
from tests.pipeline.material import finish, recording, request
from tests.tiny import CODEC, SEMANTIC, make_tiny_checkpoint

LENGTH = 32_000
PAIRS_MADE_FOR = {name: digit * 64 for name, digit in zip(MADE_FOR["detector"], "0123", strict=True)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", with_detector=False).folder


def write_tokens(folder: Path, codec: str, semantic: str, groups: dict[str, str]) -> Path:
    """A token cache of two random items of 5 s a split; `groups` names each split's speaker."""
    generator = torch.Generator().manual_seed(0)
    items, frames = [], 250
    for split, group in groups.items():
        for number in range(2):
            items.append(
                {"id": f"{split}{number}", "frame_start": frames * len(items), "num_frames": frames, "group": group}
                | {"split": split, "fluent": True}
            )
    folder.mkdir()
    total = frames * len(items)
    codes = torch.randint(CODEC.quantizer.codebook_size, (total, CODEC.quantizer.num_levels), generator=generator)
    ids = torch.randint(SEMANTIC.num_clusters, (total // 2,), generator=generator)
    save_file({"codes": codes.short(), "semantic": ids.short()}, folder / "tokens.safetensors")
    (folder / "tokens.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    sizes = {"num_levels": 4, "codebook_size": 32, "num_clusters": 24}
    (folder / "meta.json").write_text(json.dumps({"codec": codec, "semantic": semantic} | sizes))
    return folder


def token_cache(folder: Path, checkpoint: Path, groups: dict[str, str] | None = None) -> Path:
    components = load_checkpoint(checkpoint).info.components
    groups = groups or {split: f"speaker-{split}" for split in SPLITS}
    return write_tokens(folder, components["codec"].token_hash, components["semantic"].token_hash, groups)


def make_data(checkpoint: Path, tokens: Path, out: Path, *options: str) -> None:
    parser = ArgumentParser()
    detector_data.add_arguments(parser)
    sizes = ["--count", "3", "--held-out-count", "2", "--seconds", "1", "--batch-size", "2", "--device", "cpu"]
    required = ["--checkpoint", str(checkpoint), "--tokens", str(tokens), "--out", str(out)]
    detector_data.run(parser.parse_args([*required, *sizes, "--threads", "1", *options]))


def test_detector_data_pairs_generated_continuations_with_originals_through_the_codec(tmp_path, checkpoint):
    tokens = token_cache(tmp_path / "tokens", checkpoint)
    make_data(checkpoint, tokens, tmp_path / "pairs")
    models = load_checkpoint(checkpoint)
    corpus = detector_data.TokenCorpus(tokens)
    for split, count in (("train", 3), ("valid", 2), ("test", 2)):
        pairs = PairSet(tmp_path / "pairs", split)
        assert (pairs.num_rows, pairs.length) == (count, 16_000)
        made_for = {name: models.info.components[name].hash for name in MADE_FOR["detector"]}
        assert pairs.meta["made_for"] == made_for
        generated, original = pairs.pair(0, 0, pairs.length)
        row = pairs.rows[0]
        assert row["group"] == f"speaker-{split}"
        item = next(item for item in corpus.items if item.id == row["item"])
        codes = corpus.codes(item)[row["start_frame"] : row["start_frame"] + 200].long()
        expected = models.codec.decode(codes[None])[0, 48_000:]
        assert torch.allclose(original, expected.clamp(-1, 1), atol=1e-4)
        assert not torch.allclose(generated, original, atol=1e-2)


def test_detector_data_goes_on_where_it_stopped(tmp_path, checkpoint):
    tokens = token_cache(tmp_path / "tokens", checkpoint)
    make_data(checkpoint, tokens, tmp_path / "pairs", "--split", "train", "--count", "1")
    before = PairSet(tmp_path / "pairs", "train").pair(0, 0, 16_000)
    with open(tmp_path / "pairs/train/generated.int16", "ab") as file:
        file.write(b"audio whose line was never written")
    make_data(checkpoint, tokens, tmp_path / "pairs", "--split", "train", "--count", "3")
    pairs = PairSet(tmp_path / "pairs", "train")
    assert pairs.num_rows == 3
    assert torch.equal(pairs.pair(0, 0, 16_000), before)
    assert len({row["seed"] for row in pairs.rows}) == 3
    with pytest.raises(DataError, match="another checkpoint or length"):
        make_data(checkpoint, tokens, tmp_path / "pairs", "--seconds", "2")


def test_a_row_continues_the_same_alone_and_in_a_batch(tmp_path, checkpoint):
    models = load_checkpoint(checkpoint)
    generator = torch.Generator().manual_seed(1)
    semantic = (torch.randint(24, (1, 50), generator=generator) + torch.tensor([[0], [5], [9]])) % 24
    codes = torch.randint(32, (3, 100, 4), generator=generator)
    sampling = {stage: SamplingConfig(value) for stage, value in zip(STAGES, (0.9, 1.0, 0.8), strict=True)}
    batch = detector_data.continue_tokens(models, semantic, codes, 50, detector_data.Draws(sampling, [5, 6, 7]))
    assert batch.shape == codes.shape
    assert torch.equal(batch[:, :50], codes[:, :50])
    assert not torch.equal(batch[0, 50:], batch[1, 50:])
    alone = detector_data.continue_tokens(models, semantic[1:2], codes[1:2], 50, detector_data.Draws(sampling, [6]))
    assert torch.equal(alone[0], batch[1])


def test_rows_are_continued_as_the_pipeline_continues_them(checkpoint):
    models = load_checkpoint(checkpoint)
    seeds = [5, 6]
    sampling = {stage: SamplingConfig(value) for stage, value in zip(STAGES, (0.9, 1.0, 0.8), strict=True)}
    with_prompts = [
        finish(Pipeline(models).continue_prompt(recording(1.0, seed), request(seed=seed, **sampling))).continuations[0]
        for seed in seeds
    ]
    for made, seed in zip(with_prompts, seeds, strict=True):
        semantic, codes = made.semantic.ids[None], made.acoustic.codes[None].clone()
        prompt_frames = made.receipt.prompt_frames
        codes[:, prompt_frames:] = 0
        semantic = torch.cat([semantic[:, : prompt_frames // 2], 0 * semantic[:, prompt_frames // 2 :]], dim=1)
        again = detector_data.continue_tokens(
            models, semantic, codes, prompt_frames, detector_data.Draws(sampling, [seed])
        )
        assert torch.equal(again[0], made.acoustic.codes)


def test_detector_data_refuses_foreign_tokens_shared_speakers_and_short_items(tmp_path, checkpoint):
    foreign = write_tokens(tmp_path / "foreign", "0" * 64, "1" * 64, {"train": "a"})
    with pytest.raises(TrainingError, match="tokens of codec 000000000000"):
        make_data(checkpoint, foreign, tmp_path / "pairs")
    shared = token_cache(tmp_path / "shared", checkpoint, {"train": "ann", "valid": "bob", "test": "ann"})
    with pytest.raises(DataError, match="train and test share speakers or pieces: ann"):
        make_data(checkpoint, shared, tmp_path / "pairs")
    with pytest.raises(DataError, match=r"no item of the split train has 12 s"):
        make_data(checkpoint, shared, tmp_path / "pairs", "--seconds", "9")


def write_pairs(folder: Path, rows: dict[str, int], length: int = LENGTH) -> Path:
    """Pairs that can be told apart: white noise (generated) and noise below 2 kHz (original) of the same level."""
    generator = torch.Generator().manual_seed(0)
    for split, count in rows.items():
        noise = torch.randn(2, count, length, generator=generator)
        spectrum = torch.fft.rfft(noise[1])
        spectrum[:, length // 8 :] = 0
        low = torch.fft.irfft(spectrum, length)
        low = low / low.std()
        notes = [{"item": f"{split}{n}", "group": split} for n in range(count)]
        PairWriter(folder, split, {"length": length, "made_for": PAIRS_MADE_FOR}).add(0.1 * noise[0], 0.1 * low, notes)
    return folder


def test_a_trained_detector_ships_with_its_calibration_and_measured_errors(tmp_path):
    data = write_pairs(tmp_path / "pairs", {"train": 8, "valid": 8, "test": 10})
    sets = {split: PairSet(data, split) for split in SPLITS}
    torch.manual_seed(0)
    model = Detector(DetectorConfig(num_mels=16, channels=(6, 8), dropout=0.0))
    task = detector.DetectorTask(model, sets, batch_size=8)
    options = LoopOptions(steps=25, max_minutes=1, learning_rate=5e-3, warmup_steps=2, precision="fp32")
    run = tmp_path / "run"
    Trainer(task, run, options, torch.device("cpu")).run()
    figures = task.finish(run)
    assert figures["test_accuracy"] == 1.0
    assert figures["test_num_originals"] == figures["test_num_generated"] == 10
    assert figures["shortcut_bandwidth"] > 0.9  # of these pairs, not of real ones
    assert figures["shortcut_duration"] <= 0.6
    component, config, _, made_for = read_run(run)
    assert (component, made_for) == ("detector", PAIRS_MADE_FOR)
    assert config["calibration"]["num_originals"] == 10
    assert config["calibration"]["false_positive_rate"] == 0.0
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["kind"] == "test"
    _, shipped, _ = load_run(run)
    generated, original = sets["test"].pair(0, 0, LENGTH)
    assert shipped.judge(Waveform(generated)).label == "generated"
    assert shipped.judge(Waveform(original)).label == "original"


def test_augmentation_varies_level_band_and_noise_alike_for_both_kinds_and_keeps_length():
    """Rows come as pairs, generated first: over the rows of either kind, every change is as frequent and as strong."""
    waveforms = 0.1 * torch.randn(256, 16_000, generator=torch.Generator().manual_seed(0))
    varied = detector.augment(waveforms, torch.Generator().manual_seed(1))
    assert varied.shape == waveforms.shape
    assert torch.equal(varied, detector.augment(waveforms, torch.Generator().manual_seed(1)))
    gains = 20 * torch.log10(varied.std(dim=1) / waveforms.std(dim=1))
    assert float(gains.max() - gains.min()) > 15
    before, after = torch.fft.rfft(waveforms).abs(), torch.fft.rfft(varied).abs()
    treble, whole = slice(7_600, 8_000), slice(200, 2_000)  # bins of 1 Hz: what no low pass lets through, what all do
    kept_db = 20 * torch.log10(
        (after[:, treble].mean(1) / before[:, treble].mean(1)) / (after[:, whole].mean(1) / before[:, whole].mean(1))
    )
    limited = kept_db < -3
    kinds = torch.arange(256) % 2 == 0
    for kind in (kinds, ~kinds):
        assert 0.2 < float(limited[kind].float().mean()) < 0.47  # one row of three
        assert float(gains[kind].mean()) == pytest.approx(-7, abs=2)
    assert float(kept_db[~limited].abs().max()) < 1
    floor = 20 * torch.log10(after[limited][:, treble].mean(1) / after[limited][:, whole].mean(1))
    assert 0.3 < float((floor > -65).float().mean()) < 0.7  # noise fills the band that was taken, in one row of two


def test_held_out_clips_leave_out_what_a_verdict_is_withheld_for(tmp_path):
    notes = [{"item": "a", "group": "a"}] * 2
    noise = 0.1 * torch.randn(2, LENGTH, generator=torch.Generator().manual_seed(0))
    noise[1] = 0.0
    PairWriter(tmp_path, "test", {"length": LENGTH}).add(noise, noise.flip(0) + 0.1 * torch.randn(2, LENGTH), notes)
    clips = detector.held_out_clips(PairSet(tmp_path, "test"))
    assert sum(len(batch.labels) for batch in clips) == 3
    assert sum(int(batch.labels.sum()) for batch in clips) == 1


def test_pairs_that_do_not_say_what_made_them_are_refused(tmp_path):
    data = write_pairs(tmp_path / "pairs", {split: 1 for split in SPLITS})
    (data / "meta.json").write_text(json.dumps({"length": LENGTH, "codec": "c" * 64}))
    sets = {split: PairSet(data, split) for split in SPLITS}
    with pytest.raises(TrainingError, match="do not say which codec, stage_semantic, stage_coarse, stage_fine"):
        detector.DetectorTask(Detector(DetectorConfig(num_mels=16, channels=(6, 8))), sets, batch_size=2)


def test_unusable_data_is_refused(tmp_path):
    write_pairs(tmp_path / "short", {split: 1 for split in SPLITS}, length=8_000)
    with pytest.raises(TrainingError, match="8000 samples"):
        detector.crop_lengths(PairSet(tmp_path / "short", "train"))
    with pytest.raises(DataError, match="split train"):
        PairSet(tmp_path / "missing", "train")
    (tmp_path / "short/valid/original.int16").write_bytes(b"\0\0")
    with pytest.raises(DataError, match="split valid"):
        PairSet(tmp_path / "short", "valid")
