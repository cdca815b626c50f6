"""The detector's data, views and training, on tiny models: from a token cache to a calibrated verdict."""

import json
import shutil
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from audiolm.checkpoints.components import MADE_FOR
from audiolm.checkpoints.format import load_checkpoint, read_run
from audiolm.checkpoints.listener import Listener
from audiolm.config import STAGES, DetectorConfig, SamplingConfig
from audiolm.data.corpus import Corpus, CorpusWriter
from audiolm.data.pairs import SPLITS, PairSet, PairWriter
from audiolm.data.views import ViewSet
from audiolm.detector import Detector
from audiolm.detector.calibration import WIDEST_BAND, fit_ridge
from audiolm.detector.network import mel_frames
from audiolm.errors import DataError, TrainingError
from audiolm.pipeline import Pipeline
from audiolm.streams import Waveform
from audiolm.training import detector, detector_data, detector_views
from audiolm.training.loop import LoopOptions, Trainer
from audiolm.training.runs import load_run, write_run
from tests.pipeline.material import finish, recording, request
from tests.tiny import CODEC, SEMANTIC, make_tiny_checkpoint

LENGTH, JOIN = 32_000, 24_000


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
    counts = ["--count", "3", "--valid-count", "2", "--test-count", "2", "--unpaired", "1.5"]
    sizes = [*counts, "--seconds", "1", "--batch-size", "2", "--device", "cpu"]
    required = ["--checkpoint", str(checkpoint), "--tokens", str(tokens), "--out", str(out)]
    detector_data.run(parser.parse_args([*required, *sizes, "--threads", "1", *options]))


@pytest.fixture(autouse=True)
def mark_that_can_be_seen(monkeypatch):
    monkeypatch.setattr(detector_data, "mark", lambda waveform: Waveform((waveform.samples + 0.25).clamp(-1.0, 1.0)))


def unmarked(clip: torch.Tensor, note: dict) -> torch.Tensor:
    return clip - 0.25 if note["marked"] else clip


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
        for number, row in enumerate(pairs.rows):
            generated, original = pairs.spliced(number)
            assert row["group"] == f"speaker-{split}"
            item = next(item for item in corpus.items if item.id == row["item"])
            codes = corpus.codes(item)[row["start_frame"] : row["start_frame"] + 200].long()
            expected = models.codec.decode(codes[None])[0].clamp(-1, 1)
            assert torch.allclose(original[:48_000], expected[:48_000], atol=1e-4)
            assert torch.allclose(unmarked(original[48_000:], row), expected[48_000:], atol=1e-4)
            assert torch.allclose(generated[:44_000], expected[:44_000], atol=1e-4)  # the decoder looks ahead
            assert not torch.allclose(unmarked(generated[48_000:], row), expected[48_000:], atol=1e-2)
    marks = [row["marked"] for split in SPLITS for row in PairSet(tmp_path / "pairs", split).rows]
    assert {True, False} == set(marks)


def test_further_originals_went_through_fewer_levels_or_none(tmp_path, checkpoint):
    tokens = token_cache(tmp_path / "tokens", checkpoint)
    corpus, models = detector_data.TokenCorpus(tokens), load_checkpoint(checkpoint)
    with CorpusWriter(tmp_path / "corpus") as writer:
        for item in corpus.items:
            pcm = torch.randint(-9_000, 9_000, (item.num_frames * 320,)).numpy().astype("<i2")
            writer.add(pcm, id=item.id, group=item.group, split=item.split, source="test", licence="none")
    options = ("--data", str(tmp_path / "corpus"), "--unpaired", "20", "--split", "train", "--count", "1")
    make_data(checkpoint, tokens, tmp_path / "pairs", *options)
    pairs, recordings = PairSet(tmp_path / "pairs", "train"), Corpus(tmp_path / "corpus")
    assert {note["levels"] for note in pairs.unpaired} == {0, 2, 3, 4}
    for number, note in enumerate(pairs.unpaired):
        item = next(item for item in corpus.items if item.id == note["item"])
        start = note["start_frame"]
        if note["levels"]:
            codes = corpus.codes(item)[start : start + 50, : note["levels"]].long()
            expected = models.codec.decode(codes[None])[0]
        else:
            expected = recordings.waveform(recordings.items[corpus.items.index(item)])[
                start * 320 : start * 320 + 16_000
            ]
        assert torch.allclose(unmarked(pairs.original(number, 0, 16_000), note), expected.clamp(-1, 1), atol=1e-4)


def test_some_pairs_have_their_fine_codes_from_the_masked_decoder(tmp_path, monkeypatch):
    tiny = make_tiny_checkpoint(tmp_path / "tiny", with_detector=False, with_masked=True)
    tokens = token_cache(tmp_path / "tokens", tiny.folder)
    for share, expected in ((0.0, False), (1.0, True)):
        monkeypatch.setattr(detector_data, "MASKED_SHARE", share)
        make_data(tiny.folder, tokens, tmp_path / f"pairs-{share:g}", "--split", "train")
        assert {row["masked"] for row in PairSet(tmp_path / f"pairs-{share:g}", "train").rows} == {expected}
    made = [PairSet(tmp_path / f"pairs-{share}", "train").spliced(0)[0] for share in (0, 1)]
    assert not torch.equal(*made)


def test_detector_data_goes_on_where_it_stopped(tmp_path, checkpoint):
    tokens = token_cache(tmp_path / "tokens", checkpoint)
    make_data(checkpoint, tokens, tmp_path / "pairs", "--split", "train", "--count", "1")
    before = PairSet(tmp_path / "pairs", "train").spliced(0)
    with open(tmp_path / "pairs/train/generated.int16", "ab") as file:
        file.write(b"audio whose line was never written")
    make_data(checkpoint, tokens, tmp_path / "pairs", "--split", "train", "--count", "3")
    pairs = PairSet(tmp_path / "pairs", "train")
    assert pairs.num_rows == 3
    assert torch.equal(pairs.spliced(0), before)
    assert pairs.num_unpaired >= 4
    assert len({row["seed"] for row in pairs.rows}) == 3
    with open(tmp_path / "pairs/train/left_out.jsonl", "a") as file:  # what was made and left out is not made again
        file.write(json.dumps(pairs.rows[0]) + "\n")
    make_data(checkpoint, tokens, tmp_path / "pairs", "--split", "train", "--count", "5")
    assert len({row["seed"] for row in PairSet(tmp_path / "pairs", "train").rows}) == 5
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


@pytest.mark.parametrize("masked", [False, True])
def test_rows_are_continued_as_the_pipeline_continues_them(tmp_path, masked):
    tiny = make_tiny_checkpoint(tmp_path / "tiny", with_detector=False, with_masked=True)
    models, seeds = load_checkpoint(tiny.folder), [5, 6]
    fine_decoder = "masked" if masked else "autoregressive"
    sampling = {stage: SamplingConfig(value) for stage, value in zip(STAGES, (0.9, 1.0, 0.8), strict=True)}
    with_prompts = [
        finish(
            Pipeline(models).continue_prompt(
                recording(1.0, seed), request(seed=seed, fine_decoder=fine_decoder, **sampling)
            )
        ).continuations[0]
        for seed in seeds
    ]
    for made, seed in zip(with_prompts, seeds, strict=True):
        semantic, codes = made.semantic.ids[None], made.acoustic.codes[None].clone()
        prompt_frames = made.receipt.prompt_frames
        codes[:, prompt_frames:] = 0
        semantic = torch.cat([semantic[:, : prompt_frames // 2], 0 * semantic[:, prompt_frames // 2 :]], dim=1)
        again = detector_data.continue_tokens(
            models, semantic, codes, prompt_frames, detector_data.Draws(sampling, [seed], masked)
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


def test_a_group_counts_by_the_square_root_of_what_it_has(tmp_path, checkpoint):
    tokens = token_cache(tmp_path / "tokens", checkpoint, {f"{n}": "much" if n else "little" for n in range(10)})
    items = tokens / "tokens.jsonl"
    notes = [json.loads(line) | {"split": "train"} for line in items.read_text().splitlines()]
    items.write_text("".join(json.dumps(note) + "\n" for note in notes))
    sources = detector_data.Sources([detector_data.TokenCorpus(tokens)], "train", 100)
    generator = torch.Generator().manual_seed(0)
    drawn = [sources.draw(generator).item.group for _ in range(1_000)]
    assert drawn.count("little") / len(drawn) == pytest.approx(0.25, abs=0.05)


def write_pairs(folder: Path, made_for: dict[str, str], rows: dict[str, int], length: int = LENGTH) -> Path:
    """Pairs that can be told apart: white noise (generated) after noise below 2 kHz (original), of the same level."""
    generator = torch.Generator().manual_seed(0)
    for split, count in rows.items():
        noise = torch.randn(2, count, JOIN + length, generator=generator)
        spectrum = torch.fft.rfft(noise[1])
        spectrum[:, (JOIN + length) // 8 :] = 0
        low = torch.fft.irfft(spectrum, JOIN + length)
        low = 0.1 * low / low.std()
        notes = [{"item": f"{split}{n}", "group": f"{split}{n % 4}"} for n in range(count)]
        writer = PairWriter(folder, split, {"length": length, "join": JOIN, "made_for": made_for})
        writer.add(torch.cat([low[:, :JOIN], 0.1 * noise[0, :, JOIN:]], dim=1), low, notes)
        writer.add_unpaired(low[:, :length].flip(1), [note | {"levels": 4} for note in notes])
    return folder


def make_views(checkpoint: Path, data: Path, *options: str) -> None:
    parser = ArgumentParser()
    detector_views.add_arguments(parser)
    required = ["--checkpoint", str(checkpoint), "--data", str(data), "--device", "cpu", "--threads", "1"]
    detector_views.run(parser.parse_args([*required, *options]))


@pytest.fixture(scope="module")
def viewed(tmp_path_factory, checkpoint) -> Path:
    components = load_checkpoint(checkpoint).info.components
    made_for = {name: components[name].hash for name in MADE_FOR["detector"]}
    data = write_pairs(tmp_path_factory.mktemp("pairs"), made_for, {"train": 12, "valid": 12, "test": 10})
    make_views(checkpoint, data, "--turns", "3", "--batch-size", "4")
    return data


def test_views_are_what_the_detector_reads_of_the_clips(viewed, checkpoint):
    models = load_checkpoint(checkpoint)
    listener = Listener(models.codec, models.semantic, models.stages)
    pairs, views = PairSet(viewed, "test"), ViewSet(viewed, "test")
    whole = {(note["kind"], note["row"]): index for index, note in enumerate(views.notes) if note["turn"] == 0}
    assert len(whole) == 30
    waveforms = torch.cat([pairs.pair(3, 0, LENGTH), pairs.original(3, 0, LENGTH)[None]])
    for kind, waveform in zip(("generated", "original", "unpaired"), waveforms, strict=True):
        mels, figures = views.crop(whole[kind, 3], 0, LENGTH)
        assert torch.allclose(mels, mel_frames(waveform[None], 64)[0], atol=0.02)
        assert torch.allclose(figures, listener(waveform[None])[0], atol=0.1)


def test_both_clips_of_a_pair_are_cut_and_changed_alike_and_some_over_the_join(viewed):
    notes = ViewSet(viewed, "train").notes
    by_place: dict[tuple[int, int], list[dict]] = {}
    for note in notes:
        if note["kind"] != "unpaired":
            by_place.setdefault((note["turn"], note["row"]), []).append(note)
    assert len(by_place) == 3 * 12 + 12 // detector_views.WHOLE_EVERY
    for (turn, _), (one, other) in by_place.items():
        assert (one["length"], one["change"]) == (other["length"], other["change"])
        assert {one["kind"], other["kind"]} in ({"generated", "original"}, {"spliced", "original"})
        assert turn or not one["change"]
        assert one["length"] % 8_000 == 0
    cut = [bool(one["change"]) for (turn, _), (one, _) in by_place.items() if turn]
    assert 0.5 < sum(cut) / len(cut) < 1
    spliced = [note for note in notes if note["kind"] == "spliced"]
    assert spliced
    assert all(0 < note["join"] < note["length"] for note in spliced)
    assert {note["length"] for note in ViewSet(viewed, "test").notes if note["turn"]} == {16_000, 32_000}
    assert not any(note["change"] for note in ViewSet(viewed, "test").notes)
    assert {bool(note["change"]) for note in ViewSet(viewed, "valid").notes} == {True, False}


def test_views_are_made_once_and_only_with_the_models_that_made_the_pairs(viewed, checkpoint, tmp_path):
    before = (viewed / "train/views.jsonl").read_bytes()
    make_views(checkpoint, viewed, "--turns", "3", "--batch-size", "4")
    assert (viewed / "train/views.jsonl").read_bytes() == before
    other = make_tiny_checkpoint(tmp_path / "other", seed=1, with_detector=False).folder
    with pytest.raises(TrainingError, match="was made with codec"):
        make_views(other, viewed)


def test_pairs_that_were_added_are_listened_to_also_in_a_batch_that_was_begun():
    done = {(1, False, row) for row in range(6)} | {(2, False, 7), (1, True, 7)}
    job = detector_views.Job(range(4, 8), turn=1, length=LENGTH)
    assert job.without(done).rows == range(6, 8)
    assert job.without(set()).rows == job.rows
    assert not replace(job, unpaired=True).without(done).rows
    quiet = done - {(1, False, 4)}  # near silence: what was left out of those before is not heard again
    assert job.without(quiet).rows == range(6, 8)


def test_a_pair_whose_clips_do_not_both_take_the_mark_has_none(monkeypatch):
    def mark(waveform):
        return waveform if waveform.samples.abs().max() < 0.1 else Waveform(-waveform.samples)

    monkeypatch.setattr(detector_data, "mark", mark)
    generated, original = torch.full((40, 8), 0.5), torch.full((40, 8), 0.5)
    generated[:20] = 0.01
    notes = [{} for _ in range(40)]
    both = detector_data._marked([generated, original], notes, 4, torch.Generator().manual_seed(0))
    assert not any(note["marked"] for note in notes[:20])
    assert {note["marked"] for note in notes[20:]} == {True, False}
    signs = torch.tensor([-1.0 if note["marked"] else 1.0 for note in notes])
    for new, old in zip(both, (generated, original), strict=True):
        assert torch.equal(new[:, :4], old[:, :4])
        assert torch.equal(new[:, 4:], old[:, 4:] * signs[:, None])


def test_silent_clips_are_not_listened_to_and_splits_must_not_share_speakers(checkpoint, tmp_path):
    components = load_checkpoint(checkpoint).info.components
    meta = {"length": LENGTH, "made_for": {name: components[name].hash for name in MADE_FOR["detector"]}}
    generated = 0.1 * torch.randn(3, LENGTH, generator=torch.Generator().manual_seed(0))
    generated[1:] = 0.0
    original = generated[[1, 0, 2]]
    for split in SPLITS:
        PairWriter(tmp_path, split, meta).add(generated, original, [{"item": "a", "group": "a"}] * 3)
    make_views(checkpoint, tmp_path, "--turns", "1", "--batch-size", "2")
    kinds = [(note["kind"], note["row"]) for note in ViewSet(tmp_path, "test").notes if note["turn"] == 0]
    assert kinds == [("generated", 0), ("original", 1)]
    parser = ArgumentParser()
    detector.add_arguments(parser)
    with pytest.raises(TrainingError, match="train and valid share speakers or pieces: a"):
        detector.build(parser.parse_args(["--data", str(tmp_path)]))


def test_a_trained_detector_ships_with_weights_scope_calibration_and_measured_errors(viewed, checkpoint, tmp_path):
    views = {split: ViewSet(viewed, split) for split in SPLITS}
    made_for = detector.made_for_of(PairSet(viewed, "train"))
    torch.manual_seed(0)
    config = DetectorConfig(channels=(6, 8), dropout=0.0, num_heard=views["train"].num_figures, heard_width=8)
    task = detector.DetectorTask(Detector(config), views, made_for, batch_size=12)
    options = LoopOptions(steps=40, max_minutes=1, learning_rate=5e-3, warmup_steps=2, precision="fp32")
    run = tmp_path / "run"
    Trainer(task, run, options, torch.device("cpu")).run()
    figures = task.finish(run)
    assert figures["test_whole_balanced_accuracy"] == pytest.approx(1.0)
    assert (figures["test_2s_num_originals"], figures["test_2s_num_generated"]) == (30, 30)
    component, config, tensors, found = read_run(run)
    assert (component, found) == ("detector", made_for)
    assert figures["valid_changed_num_generated"] == 12
    assert [rates["seconds"] for rates in config["calibration"]["by_length"]] == [1.0, 2.0]
    assert config["calibration"]["by_length"][1]["false_positive_rate"] == 0.0
    assert config["scope_limit"] > 0.5
    assert float(tensors["weights"].min()) >= 0.0
    assert float(tensors["ear.std"].min()) > 0.0
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["kind"] == "test"
    shipped, models = load_run(run)[1], load_checkpoint(checkpoint)
    shipped.attach(Listener(models.codec, models.semantic, models.stages))
    pairs = PairSet(viewed, "test")
    generated, original = pairs.pair(0, 0, LENGTH)
    assert float(shipped.probabilities(generated[None])) > 0.5
    assert float(shipped.probabilities(original[None])) < 0.5
    assert config["calibration"]["uncertain_high"] == WIDEST_BAND  # a dozen clips prove little,
    num_decided = config["calibration"]["by_length"][1]["num_decided"]
    reason = shipped.judge(Waveform(generated)).reason  # and so it says nothing
    assert "not reliable at this length" in reason
    assert f"of its {num_decided} answers" in reason
    sure = [config["calibration"]["by_length"][1] | {"num_originals": 400, "num_decided": 400}]
    calibration = config["calibration"] | {"by_length": sure}
    shipped.config = DetectorConfig.from_dict(config | {"calibration": calibration, "scope_limit": 100.0})
    boundary = shipped.judge(Waveform(pairs.spliced(0)[0])).boundary_s
    assert boundary == pytest.approx(JOIN / 16_000, abs=0.5)


@pytest.mark.parametrize("stacked", [False, True])
def test_the_ears_logits_are_fitted_alone_or_to_what_log_mel_leaves_open(viewed, tmp_path, monkeypatch, stacked):
    """Whichever is likelier on the split valid."""
    task, fitted, losses = build_on(viewed), [], iter([0.0, 1.0] if not stacked else [1.0, 0.0])

    def fit(x, labels, penalty, offset=None):
        fitted.append((labels, offset))
        return fit_ridge(x, labels, penalty, offset)

    write_run(tmp_path, "detector", task.model, task.config, {})
    monkeypatch.setattr(detector, "fit_ridge", fit)
    monkeypatch.setattr(detector, "fit_weights", lambda scored, s: (torch.tensor([0.5, 0.5]), 0.0, next(losses, None)))
    task.finish(tmp_path)
    (of_clips, nothing), (_, clip_offset), (of_segments, segment_offset), *_ = fitted
    before, after = load_run(tmp_path)[1].eval(), load_run(tmp_path)[1]
    views, mel_clips, mel_segments, labels = task.views["train"], [], [], []
    for number, note in enumerate(views.notes):
        batch = detector.Crops(views).batch([(number, 0)], note["length"])
        with torch.no_grad():
            reading = before.read(batch.views)[0]
        mel_segments.append(reading.segments[0, number % detector.EVERY_SEGMENT :: detector.EVERY_SEGMENT])
        if note["kind"] != "spliced":
            mel_clips.append(reading.clips)
            labels.append(batch.labels)
    assert torch.equal(of_clips, torch.cat(labels))
    assert nothing is None
    assert torch.allclose(clip_offset, torch.cat(mel_clips), atol=0.02)  # runs keep weights in half precision
    assert len(of_segments) == len(torch.cat(mel_segments))
    if stacked:
        assert torch.allclose(segment_offset, torch.cat(mel_segments), atol=0.02)
    else:
        assert segment_offset is None
    rows = detector.clip_rows(before, views, with_mel=True)
    kinds = {False: replace(rows, mel=None), True: rows}
    detector.fit_head(before.ear.clip, kinds[stacked], detector.CLIP_PENALTY)
    assert torch.allclose(after.ear.clip.weight, before.ear.clip.weight, atol=2e-2, rtol=2e-2)
    detector.fit_head(before.ear.clip, kinds[not stacked], detector.CLIP_PENALTY)
    assert not torch.allclose(after.ear.clip.weight, before.ear.clip.weight, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("turned", [False, True])
def test_branches_are_weighed_in_segments_as_they_were_fitted(viewed, monkeypatch, turned):
    fitted, task = [], build_on(viewed)
    model, views = task.model, task.views["train"]
    model.weights.copy_(torch.tensor([1.5, 0.4]))

    def fit(x, labels, penalty, offset=None):
        fitted.append((x, offset, fit_ridge(x, labels, penalty, offset)))
        return fitted[-1][2]

    monkeypatch.setattr(detector, "fit_ridge", fit)
    detector.fit_segment_head(model, views, stacked=True)
    if (fitted[0][2].factor < 0.0) != turned:  # nothing was learnt: which way round log-mel is, is chance
        for parameter in model.output.parameters():
            parameter.data.neg_()
        fitted.clear()
        detector.fit_segment_head(model, views, stacked=True)
    x, offset, ridge = fitted[0]
    assert (ridge.factor < 0.0) == turned
    assert [one[1] is None for one in fitted] == ([False, True] if turned else [False])  # by itself, where it is turned
    if not turned:
        wanted = x @ ridge.weights + ridge.bias + ridge.factor * offset
        batch = detector.Crops(views).batch([(0, 0)], views.notes[0]["length"])
        with torch.no_grad():
            fused = model.fused(model.read(batch.views), batch.views.num_samples)[0][0, :: detector.EVERY_SEGMENT]
        assert torch.allclose(fused, 1.5 / ridge.factor * wanted[: len(fused)], atol=1e-3, rtol=1e-3)


def build_on(data: Path, *options: str) -> detector.DetectorTask:
    parser = ArgumentParser()
    detector.add_arguments(parser)
    sizes = ["--channels", "6", "8", "--heard-width", "8"]
    args = parser.parse_args(["--data", str(data), *sizes, *options])
    args.device = torch.device("cpu")
    return detector.build(args)


def test_a_detector_is_bound_to_the_listener_of_its_views(viewed, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(viewed, data)
    write_run(tmp_path / "first", "detector", build_on(data).model, build_on(data).config, {})
    for split in SPLITS:
        path = data / split / "views.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"listener_version": 2}))
        if split != "test":
            with pytest.raises(TrainingError, match="views of different kinds"):
                build_on(data)
    assert build_on(data).config.listener_version == 2
    with pytest.raises(TrainingError, match="heard by listener version 1, the views by 2"):
        build_on(data, "--init", str(tmp_path / "first"))


def test_the_ears_clip_logit_starts_as_a_regression(viewed):
    views = {split: ViewSet(viewed, split) for split in SPLITS}
    made_for = detector.made_for_of(PairSet(viewed, "train"))
    config = DetectorConfig(channels=(6, 8), num_heard=views["train"].num_figures, heard_width=8)
    task = detector.DetectorTask(Detector(config), views, made_for, batch_size=12)
    scored = detector.score(task.model.eval(), views["valid"], detector.is_whole)
    ear = scored.logits[:, 1]
    assert float(ear[scored.labels == 1].min()) > float(ear[scored.labels == 0].max())


def test_weights_of_an_earlier_run_are_taken_over_where_they_fit(tmp_path):
    torch.manual_seed(0)
    old, new = (Detector(DetectorConfig(channels=(6, 8), num_heard=count, heard_width=8)) for count in (5, 7))
    write_run(tmp_path / "old", "detector", old, old.config, {})
    start = {name: one.clone() for name, one in new.state_dict().items()}
    detector.take_over(new, tmp_path / "old")
    now = new.state_dict()
    assert torch.allclose(now["stem.weight"], old.stem.weight, atol=0.01)
    assert torch.allclose(now["ear.far.weight"], old.ear.far.weight, atol=0.01)
    assert torch.equal(now["ear.near.weight"], start["ear.near.weight"])
    write_run(tmp_path / "codec", "codec", old, old.config, {})
    with pytest.raises(TrainingError, match="run of codec"):
        detector.take_over(new, tmp_path / "codec")


def test_crops_are_a_third_generated_with_their_own_counterparts_and_labelled_by_their_share(viewed):
    crops = detector.Crops(ViewSet(viewed, "train"))
    generator = torch.Generator().manual_seed(0)
    shares, lengths = [], set()
    for _ in range(40):
        batch = crops.draw(12, generator)
        lengths.add(batch.views.num_samples)
        assert len(batch.labels) == 12
        assert 1 <= int((batch.labels > 0).sum()) <= 4  # a crop of a spliced clip may end before its join
        assert batch.segments.shape == (12, batch.views.num_samples // 4_000 + 1)
        assert torch.allclose(batch.segments.mean(dim=1), batch.labels, atol=0.2)
        shares += batch.labels[batch.labels > 0].tolist()
    assert lengths == {16_000, 24_000, 32_000}
    assert 0 < sum(share < 1 for share in shares) < len(shares) / 2


def test_augmentation_hides_and_shifts_frames_and_repeats_with_its_generator(viewed):
    batch = detector.Crops(ViewSet(viewed, "train")).draw(12, torch.Generator().manual_seed(0))
    varied = [detector.augment(batch, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(varied[0].views.mels, varied[1].views.mels)
    assert torch.equal(varied[0].labels, batch.labels)
    shift = (varied[0].views.mels - batch.views.mels).flatten(1)
    assert 0.05 < float(shift.median(dim=1).values.std()) < 0.4
    hidden = (shift - shift.median(dim=1, keepdim=True).values).abs() > 1e-4
    assert 0.02 < float(hidden.float().mean()) < 0.6


def test_pairs_that_do_not_say_what_made_them_are_refused(tmp_path):
    data = write_pairs(tmp_path / "pairs", {}, {split: 1 for split in SPLITS})
    with pytest.raises(TrainingError, match="do not say which codec, stage_semantic, stage_coarse, stage_fine"):
        detector.made_for_of(PairSet(data, "train"))


def test_clips_too_short_for_crops_are_refused(checkpoint, tmp_path):
    components = load_checkpoint(checkpoint).info.components
    made_for = {name: components[name].hash for name in MADE_FOR["detector"]}
    write_pairs(tmp_path / "short", made_for, {split: 1 for split in SPLITS}, length=8_000)
    with pytest.raises(TrainingError, match="8000 samples"):
        make_views(checkpoint, tmp_path / "short")
