"""R5: a checkpoint is data. It cannot run code, and what it claims is checked before memory is taken for it."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
import shutil
import sys
from pathlib import Path

import pytest

from audiolm.checkpoints import load_checkpoint
from audiolm.checkpoints.tensors import MAX_HEADER_BYTES
from audiolm.errors import AudioLMError, CheckpointError
from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "tiny"
    make_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def rewrite(folder: Path, weights: str, content: bytes) -> None:
    """Other weights, and config.json with the hash that fits them: as somebody who makes a checkpoint would."""
    (folder / weights).write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    config["components"][weights.partition(".")[0]]["files"][weights] = hashlib.sha256(content).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


class Planted:
    def __reduce__(self):
        return os.mkdir, ("planted",)


@pytest.mark.parametrize("with_fitting_hash", [False, True])
def test_a_pickle_is_never_opened(folder, monkeypatch, with_fitting_hash):
    monkeypatch.chdir(folder)
    content = pickle.dumps(Planted())
    if with_fitting_hash:
        rewrite(folder, "stage_fine.safetensors", content)
    else:
        (folder / "stage_fine.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"stage_fine\.safetensors"):
        load_checkpoint(folder)
    assert not (folder / "planted").exists()


def test_code_beside_a_checkpoint_is_not_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("modeling.py", "configuration.py", "audiolm.py", "torch.py", "__init__.py", "sitecustomize.py"):
        (folder / name).write_text("import os; os.mkdir('planted')")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted()))
    load_checkpoint(folder)
    assert not (folder / "planted").exists()
    places = [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())]
    assert not [place for place in places if place.startswith(str(folder))]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{" * 100,
        (2**63).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        (20).to_bytes(8, "little") + b'{"a": ' + b"[" * 14,
        (72).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1073741824,1073741824],"data_offsets":[0,4]}}',
        (62).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4294967296]}}',
        (65).to_bytes(8, "little") + b'{"a":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1]}}       ' + b"x",
    ],
)
def test_weights_whose_header_lies_are_refused(folder, content):
    rewrite(folder, "stage_fine.safetensors", content)
    with pytest.raises(CheckpointError, match=r"stage_fine\.safetensors"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("component", "field", "value"),
    [
        ("stage_coarse", ("transformer", "num_layers"), 10**6),
        ("stage_coarse", ("transformer", "num_layers"), 255),
        ("stage_coarse", ("transformer", "width"), 2**16),
        ("stage_coarse", ("transformer", "width"), 2**40),
        ("stage_coarse", ("transformer", "feed_forward"), 2**16),
        ("stage_coarse", ("levels",), [1024] * 5000),
        ("stage_coarse", ("max_steps",), 10**18),
        ("semantic", ("num_masked_layers",), 10**9),
        ("semantic", ("n_fft",), 2**16),
        ("semantic", ("num_mels",), 2**16),
        ("semantic", ("extractor",), "os.system"),
        ("semantic", ("extractor",), "HUBERT_XLARGE"),
        ("codec", ("quantizer", "codebook_size"), 2**15),
        ("codec", ("quantizer", "__class__"), "os.system"),
    ],
)
def test_configs_that_the_weights_do_not_bear_out_take_no_memory(folder, component, field, value):
    config = json.loads((folder / "config.json").read_text())
    place = config["components"][component]["config"]
    for name in field[:-1]:
        place = place[name]
    place[field[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AudioLMError, match=r"config\.json|safetensors"):
        load_checkpoint(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_files_that_are_none_or_endless_are_refused(folder):
    for name in ("config.json", "README.md", "codec.safetensors"):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            load_checkpoint(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(kept)
    with (folder / "config.json").open("ab") as file:
        file.truncate(2**34)  # a hole: it takes no room on the disk
    with pytest.raises(CheckpointError, match="17179869184 bytes, more than the 1048576 allowed"):
        load_checkpoint(folder)
