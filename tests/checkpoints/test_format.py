import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from audiolm.checkpoints import load_checkpoint, read_info, tensors, write_checkpoint
from audiolm.checkpoints.format import Part, build_component, component_hash, read_run, write_parts
from audiolm.checkpoints.listener import LISTENER_VERSION, Listener
from audiolm.config import DetectorConfig
from audiolm.errors import CheckpointError
from tests.tiny import CARD, make_tiny_checkpoint, tiny_configs, tiny_modules


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes config.json in place."""
    path = folder / "config.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def replace_weights(folder: Path, component: str, change: Callable[[dict[str, torch.Tensor]], dict[str, Any]]) -> None:
    """Changes a component's weights, and the hashes that name them, as someone who forges a file would."""
    path = folder / f"{component}.safetensors"
    weights = change(load_file(path))
    save_file(weights, path)

    def rehash(value: dict[str, Any]) -> None:
        entry = value["components"][component]
        entry["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        entry["hash"] = component_hash(weights)
        if component in value["components"]["detector"]["made_for"]:
            value["components"]["detector"]["made_for"][component] = entry["hash"]

    edit(folder, rehash)


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return component_hash(first.state_dict()) == component_hash(second.state_dict())


def test_a_written_checkpoint_loads_whole(checkpoint: Path):
    models = load_checkpoint(checkpoint)
    assert (models.info.name, models.info.domain) == ("tiny-speech", "speech")
    assert models.info.summary.startswith("Random weights")
    assert models.info.card == CARD
    assert models.info.sha256 == hashlib.sha256((checkpoint / "config.json").read_bytes()).hexdigest()
    assert list(models.stages) == ["semantic", "coarse", "fine"]
    originals = tiny_modules(seed=0)
    for name, module in {
        "codec": models.codec,
        "semantic": models.semantic,
        **{f"stage_{stage}": model for stage, model in models.stages.items()},
        "detector": models.detector,
    }.items():
        assert same_weights(module, originals[name])
        assert models.info.components[name].hash == component_hash(originals[name].state_dict())


def test_models_are_float32_in_eval_mode_without_gradients(checkpoint: Path):
    models = load_checkpoint(checkpoint)
    for module in (models.codec, models.semantic, *models.stages.values(), models.detector):
        assert not module.training
        assert all(p.dtype == torch.float32 and not p.requires_grad for p in module.parameters())


def test_matrices_are_stored_as_bfloat16(checkpoint: Path):
    stored = load_file(checkpoint / "stage_coarse.safetensors")
    assert {t.dtype for t in stored.values() if t.ndim >= 2} == {torch.bfloat16}


def test_a_checkpoint_written_again_has_the_same_hashes_and_tokens(checkpoint: Path, tmp_path: Path):
    first = load_checkpoint(checkpoint)
    modules = {"codec": first.codec, "semantic": first.semantic}
    modules |= {f"stage_{stage}": model for stage, model in first.stages.items()}
    labels = {"name": "again", "domain": "speech", "summary": "again", "card": CARD}
    write_checkpoint(tmp_path / "again", components=modules, **labels)
    second = load_checkpoint(tmp_path / "again")
    hashes = {name: entry.hash for name, entry in first.info.components.items() if name != "detector"}
    assert hashes == {name: entry.hash for name, entry in second.info.components.items()}
    waveforms = 0.1 * torch.randn(1, 6400, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first.codec.encode(waveforms), second.codec.encode(waveforms))
    assert torch.equal(first.semantic.encode(waveforms), second.semantic.encode(waveforms))


def test_loaded_stages_have_the_codebooks(checkpoint: Path):
    models = load_checkpoint(checkpoint)
    semantic = torch.zeros(1, 4, 1, dtype=torch.long)
    coarse = torch.zeros(1, 8, 2, dtype=torch.long)
    assert len(models.stages["coarse"].logits(coarse, semantic)) == 2
    assert len(models.stages["fine"].logits(coarse, coarse)) == 2


def test_the_flattened_layout_loads_too(tmp_path: Path):
    make_tiny_checkpoint(tmp_path / "flattened", layout="flattened", with_detector=False)
    assert load_checkpoint(tmp_path / "flattened").stages["coarse"].config.layout == "flattened"


def test_a_checkpoint_may_lack_a_detector_only(checkpoint: Path):
    edit(checkpoint, lambda value: value["components"].pop("detector"))
    assert load_checkpoint(checkpoint).detector is None
    edit(checkpoint, lambda value: value["components"].pop("stage_fine"))
    with pytest.raises(CheckpointError, match=r"lacks component\(s\) stage_fine"):
        read_info(checkpoint)


def test_a_detector_of_another_listener_is_refused(checkpoint: Path, tmp_path: Path):
    models, modules = load_checkpoint(checkpoint), tiny_modules()
    count = Listener(models.codec, models.semantic, models.stages).num_features
    labels = {"name": "tiny", "domain": "speech", "summary": "tiny", "card": CARD}
    for version in (LISTENER_VERSION, LISTENER_VERSION + 1):
        config = DetectorConfig(channels=(4,), num_heard=count, listener_version=version, heard_width=4)
        modules["detector"] = build_component("detector", config.to_dict())
        write_checkpoint(tmp_path / str(version), components=modules, **labels)
    assert load_checkpoint(tmp_path / str(LISTENER_VERSION)).detector.listener is not None
    with pytest.raises(CheckpointError, match=rf"reads {count} figures of listener version 2, .* {count} of version 1"):
        load_checkpoint(tmp_path / str(LISTENER_VERSION + 1))


def test_sharded_components_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensors, "SHARD_BYTES", 2**16 + 4096)
    info = make_tiny_checkpoint(tmp_path / "sharded")
    files = info.components["codec"].files
    assert len(files) > 1
    assert all((info.folder / name).is_file() for name in files)
    assert same_weights(load_checkpoint(info.folder).codec, tiny_modules(seed=0)["codec"])
    (info.folder / list(files)[1]).unlink()
    with pytest.raises(CheckpointError, match=r"codec-00002-of-\d+\.safetensors: missing"):
        load_checkpoint(info.folder)


@pytest.mark.parametrize("name", ["config.json", "README.md", "codec.safetensors", "stage_semantic.safetensors"])
def test_a_missing_file_is_named(checkpoint: Path, name: str):
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: missing"):
        read_info(checkpoint)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"nowhere: no such folder"):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_file_is_named_and_called_truncated(checkpoint: Path, verify: bool):
    path = checkpoint / "stage_fine.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    read_info(checkpoint)
    with pytest.raises(CheckpointError, match=r"stage_fine\.safetensors: truncated"):
        load_checkpoint(checkpoint, verify=verify)


def test_a_changed_byte_is_found(checkpoint: Path):
    path = checkpoint / "codec.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"codec\.safetensors: its SHA-256 is"):
        load_checkpoint(checkpoint)


def test_weights_that_match_their_file_but_not_the_recorded_component_are_refused(checkpoint: Path):
    edit(checkpoint, lambda value: value["components"]["detector"].update(hash="0" * 64))
    with pytest.raises(CheckpointError, match=r"config\.json: detector hash is 000"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: {k: v for k, v in w.items() if k != "start"}, r"stage_fine lacks 1 tensor\(s\), the first is start"),
        (lambda w: w | {"extra": torch.zeros(1)}, r"stage_fine has 1 unknown tensor\(s\), the first is extra"),
        (lambda w: w | {"start": torch.zeros(3)}, r"tensor start has shape \(3,\), its config asks for \(16,\)"),
        (lambda w: w | {"start": torch.zeros(16, dtype=torch.int64)}, r"tensor start is torch.int64"),
        (lambda w: w | {"start": torch.full((16,), torch.nan)}, r"tensor start holds NaN"),
    ],
)
def test_foreign_weights_with_true_hashes_are_refused(checkpoint: Path, change: Any, reason: str):
    replace_weights(checkpoint, "stage_fine", change)
    with pytest.raises(CheckpointError, match=rf"stage_fine\.safetensors: .*{reason}"):
        load_checkpoint(checkpoint)


def test_a_codec_of_another_training_makes_a_mixed_set(checkpoint: Path, tmp_path: Path):
    other = make_tiny_checkpoint(tmp_path / "other", seed=1)
    shutil.copy(other.folder / "codec.safetensors", checkpoint)
    entry = json.loads((other.folder / "config.json").read_text())["components"]["codec"]
    edit(checkpoint, lambda value: value["components"].update(codec=entry))
    with pytest.raises(CheckpointError, match=r"mixed set: stage_coarse was made for codec"):
        read_info(checkpoint)


def test_a_codec_with_another_decoder_keeps_its_stages_but_not_its_detector(tmp_path: Path):
    modules = tiny_modules()
    labels = {"name": "x", "domain": "piano", "summary": "x", "card": CARD}
    info = write_checkpoint(tmp_path / "before", components=modules, **labels)
    with torch.no_grad():
        for parameter in modules["codec"].decoder.parameters():
            parameter.mul_(0.5)
    parts = {
        name: Part(module.config.to_dict(), module.state_dict(), info.components[name].made_for)
        for name, module in modules.items()
    }
    with pytest.raises(CheckpointError, match=r"mixed set: detector was made for codec"):
        write_parts(tmp_path / "after", parts=parts, **labels)
    del parts["detector"]
    write_parts(tmp_path / "after", parts=parts, **labels)
    assert load_checkpoint(tmp_path / "after").detector is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.update(format=2), "format 2, this version of audiolm reads up to 1"),
        (lambda v: v.update(format=0), "format 0 does not exist"),
        (lambda v: v.update(format=True), "foreign: not the config of an AudioLM checkpoint"),
        (lambda v: v.pop("format"), "foreign: not the config of an AudioLM checkpoint"),
        (lambda v: v.update(pickle="model.pt"), r"unknown field\(s\) pickle"),
        (lambda v: v.pop("summary"), r"missing field\(s\) summary"),
        (lambda v: v.update(summary=""), "summary must be"),
        (lambda v: v.update(summary="a\x1b[2Jb"), "summary must be"),
        (lambda v: v.update(name="../other"), "name must be"),
        (lambda v: v.update(name=7), "field name must be str, found int"),
        (lambda v: v.update(domain="violin"), "domain must be one of speech, piano, found 'violin'"),
        (lambda v: v["components"].update(vocoder={}), "unknown component 'vocoder'"),
        (lambda v: v["components"].update(codec=[]), "codec: expected an object, found list"),
        (lambda v: v["components"]["codec"].update(files={}), "files of codec must be codec.safetensors"),
        (lambda v: v["components"]["codec"].update(files={"../../etc/passwd": "0" * 64}), "files of codec must be"),
        (lambda v: v["components"]["codec"].update(files={"/etc/passwd": "0" * 64}), "files of codec must be"),
        (lambda v: v["components"]["codec"].update(files={"detector.safetensors": "0" * 64}), "files of codec must be"),
        (lambda v: v["components"]["codec"].update(files={"codec.safetensors": "abc"}), "must be a SHA-256"),
        (lambda v: v["components"]["codec"].update(hash="Z" * 64), "must be a SHA-256"),
        (
            lambda v: v["components"]["stage_fine"].update(made_for={}),
            "stage_fine must say which codec it was made for",
        ),
        (lambda v: v["components"]["codec"]["config"].update(backbone="os.system"), "backbone must be frame or seanet"),
        (lambda v: v["components"]["codec"]["config"].update(layers=3), r"CodecConfig: unknown field\(s\) layers"),
        (lambda v: v["components"]["semantic"]["config"].update(num_clusters=25), "stage_semantic predicts"),
        (lambda v: v["components"]["stage_fine"]["config"].update(levels=[32]), "stage_fine predicts"),
        (lambda v: v["components"]["stage_fine"]["config"].update(stage="coarse"), "stage_fine holds a coarse stage"),
        (lambda v: v["components"]["stage_fine"]["config"].update(feature_dimension=9), "code vectors of 9 dimensions"),
    ],
)
def test_a_config_that_is_foreign_or_does_not_fit_is_refused(checkpoint: Path, change: Any, reason: str):
    edit(checkpoint, change)
    with pytest.raises(CheckpointError, match=rf"config\.json.*{reason}"):
        read_info(checkpoint)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[1]", "expected a JSON object, found list"),
        (b'{"format": 1, "format": 1}', "duplicate key 'format'"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b" " * (2**20 + 1), "more than the 1048576 allowed"),
    ],
)
def test_json_is_read_strictly_and_in_bounded_size(checkpoint: Path, content: bytes, reason: str):
    (checkpoint / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{reason}"):
        read_info(checkpoint)


@pytest.mark.parametrize(("content", "reason"), [(b" \n", "is empty"), (b"\xff", "not UTF-8"), (b"x" * 2**21, "bytes")])
def test_an_unusable_card_is_refused(checkpoint: Path, content: bytes, reason: str):
    (checkpoint / "README.md").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"README\.md: .*{reason}"):
        read_info(checkpoint)


def test_writing_over_a_checkpoint_leaves_no_stale_shard_and_keeps_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(tensors, "SHARD_BYTES", 2**16 + 4096)
        make_tiny_checkpoint(folder)
    (folder / "sample.txt").write_text("kept")
    make_tiny_checkpoint(folder, with_detector=False)
    assert {path.name for path in folder.glob("*.safetensors")} == {
        f"{name}.safetensors" for name in tiny_configs(with_detector=False)
    }
    assert (folder / "sample.txt").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_failed_write_leaves_the_older_checkpoint_as_it_was(checkpoint: Path):
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    modules = tiny_modules()
    with torch.no_grad():
        modules["stage_fine"].start.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="stage_fine: tensor start holds NaN"):
        write_checkpoint(checkpoint, name="x", domain="speech", summary="x", components=modules, card=CARD)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint"]


def test_a_folder_with_other_things_in_it_is_not_written_to(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty and not a checkpoint"):
        make_tiny_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="foreign"):
        make_tiny_checkpoint(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "config.json"}


def test_an_unknown_component_cannot_be_built():
    with pytest.raises(CheckpointError, match="unknown component 'vocoder'"):
        build_component("vocoder", {})


def test_a_run_folder_is_read_as_it_was_written(tmp_path: Path):
    module = tiny_modules()["codec"]
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    config = {"component": "codec", "config": module.config.to_dict(), "made_for": {"semantic": "0" * 64}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    component, values, state, made_for = read_run(tmp_path)
    assert (component, made_for) == ("codec", {"semantic": "0" * 64})
    assert torch.equal(state["quantizer.codebooks"], module.quantizer.codebooks)
    assert build_component(component, values).config == module.config


def test_a_run_folder_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"config\.json: missing"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text('{"component": "codec", "config": {}}')
    with pytest.raises(CheckpointError, match=r"missing field\(s\) made_for"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text('{"component": "codec", "config": {}, "made_for": {}}')
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: missing"):
        read_run(tmp_path)
