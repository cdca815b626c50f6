import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from audiolm.checkpoints import tensors
from audiolm.checkpoints.tensors import as_shipped, component_hash, read_tensors, token_hash, write_tensors
from audiolm.errors import CheckpointError


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "encoder.weight": torch.randn(6, 5, generator=generator),
        "encoder.bias": torch.randn(6, generator=generator),
        "decoder.weight": torch.randn(5, 6, generator=generator),
        "steps": torch.tensor(2**40 + 1),
    }


def test_matrices_ship_as_bfloat16_vectors_as_float32_integers_as_they_are():
    shipped = as_shipped(state())
    assert shipped["encoder.weight"].dtype == torch.bfloat16
    assert torch.equal(shipped["encoder.bias"], state()["encoder.bias"])
    assert shipped["steps"].item() == 2**40 + 1


def test_hash_is_the_same_before_and_after_shipping():
    assert component_hash(state()) == component_hash(as_shipped(state()))
    assert component_hash(state()) == component_hash(
        {k: v.float() for k, v in as_shipped(state()).items()} | {"steps": state()["steps"]}
    )


def test_hash_sees_names_shapes_and_values():
    original = state()
    renamed = {name.replace("bias", "gain"): value for name, value in original.items()}
    reshaped = original | {"encoder.weight": original["encoder.weight"].reshape(5, 6)}
    changed = original | {"encoder.bias": original["encoder.bias"] + 1e-3}
    assert len({component_hash(s) for s in (original, renamed, reshaped, changed)}) == 4


def test_token_hash_does_not_see_the_decoder():
    changed = state() | {"decoder.weight": torch.zeros(5, 6)}
    assert token_hash(changed) == token_hash(state())
    assert component_hash(changed) != component_hash(state())


def test_files_are_sharded_over_the_limit_and_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensors, "SHARD_BYTES", 2**16 + 90)
    hashes = write_tensors(tmp_path, "codec", state())
    assert list(hashes) == ["codec-00001-of-00002.safetensors", "codec-00002-of-00002.safetensors"]
    found = read_tensors([tmp_path / name for name in hashes], hashes)
    assert component_hash(found) == component_hash(state())


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"codec: tensor encoder.bias holds NaN"):
        write_tensors(tmp_path, "codec", state() | {"encoder.bias": torch.full((6,), torch.nan)})
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_read(tmp_path: Path):
    (tmp_path / "codec.safetensors").write_bytes(save({"a": torch.tensor([torch.inf])}))
    with pytest.raises(CheckpointError, match=r"codec.safetensors: tensor a holds NaN or infinite"):
        read_tensors([tmp_path / "codec.safetensors"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated: 0 bytes"),
        (save({"a": torch.zeros(64)})[:-1], "truncated: .* its header promises"),
        (save({"a": torch.zeros(64)})[:20], "truncated: 20 bytes, its header alone"),
        (b"this is a text file, not weights", "foreign"),
        (pickle.dumps({"a": 1}) + bytes(64), "foreign"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        ((16).to_bytes(8, "little") + b'{"a": [1, 2, 3]}', "foreign"),
        ((9).to_bytes(8, "little") + b"{" * 9, "foreign"),
    ],
)
@pytest.mark.parametrize("hashed", [True, False])
def test_damaged_files_are_refused_with_their_name_and_the_reason(
    tmp_path: Path, content: bytes, reason: str, hashed: bool
):
    path = tmp_path / "codec.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"codec\.safetensors: .*{reason}"):
        read_tensors([path], {path.name: "0" * 64} if hashed else None)


def test_a_changed_byte_is_found_before_the_file_is_parsed(tmp_path: Path):
    path = tmp_path / "codec.safetensors"
    content = bytearray(save({"a": torch.zeros(64)}))
    digest = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"its SHA-256 is \w+, config.json says {digest}"):
        read_tensors([path], {path.name: digest})


def test_unusual_number_types_are_refused(tmp_path: Path):
    path = tmp_path / "codec.safetensors"
    path.write_bytes(save({"a": torch.zeros(4).to(torch.float8_e4m3fn)}))
    with pytest.raises(CheckpointError, match="tensor a is of an unexpected type"):
        read_tensors([path])


def test_a_tensor_in_two_files_is_refused(tmp_path: Path):
    paths = [tmp_path / f"codec-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for path in paths:
        path.write_bytes(save({"a": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match="tensor a is in another file"):
        read_tensors(paths)


def matrices() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"linear": (96, 64), "convolution": (32, 64, 7), "table": (3, 40, 64), "codebooks": (4, 64, 32)}
    return {name: torch.randn(*shape, generator=generator) * 3.7 for name, shape in shapes.items()}


def test_large_matrices_lose_less_than_a_hundredth_of_a_rows_largest_value():
    for name, value in as_shipped(matrices()).items():
        error = (value.float() - matrices()[name]).abs().max()
        assert error < 0.01 * matrices()[name].abs().max()


def test_the_cast_loses_nothing_the_second_time():
    once = as_shipped(matrices())
    twice = as_shipped(once)
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_large_matrices_are_stored_as_bytes_and_read_back_as_shipped(tmp_path):
    hashes = write_tensors(tmp_path, "codec", matrices())
    stored = load((tmp_path / "codec.safetensors").read_bytes())
    assert stored["linear"].dtype == stored["table"].dtype == torch.int8
    assert stored["codebooks"].dtype == torch.bfloat16
    found = read_tensors([tmp_path / name for name in hashes], hashes)
    expected = as_shipped(matrices())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_scale_without_its_matrix_is_refused(tmp_path):
    (tmp_path / "codec.safetensors").write_bytes(save({"lost:step": torch.zeros(3, dtype=torch.int16)}))
    with pytest.raises(CheckpointError, match="lost:step"):
        read_tensors([tmp_path / "codec.safetensors"])
