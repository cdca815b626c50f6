"""Weights as files: cast once for shipping, hashed, sharded, written and read as safetensors (never pickle)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from audiolm.errors import CheckpointError

SHARD_BYTES = 15 * 2**20  # files of the repository stay under 16 MiB
SHIPPING_DTYPE = torch.bfloat16
READABLE_DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
DECODER_PREFIX = "decoder."  # of the codec's state: what turns tokens into sound, and never makes them


def as_shipped(tensors: Mapping[str, Tensor], dtype: torch.dtype = SHIPPING_DTYPE) -> dict[str, Tensor]:
    """The values a checkpoint file holds: float tensors of two or more dimensions in `dtype`, other floats in float32.

    Vectors and scalars (biases, gains, feature means and deviations) are small and keep their precision; integers stay
    as they are. The cast loses nothing the second time, so a checkpoint can be taken apart and assembled again with
    the same hashes. Token ids of a tokenizer before and after its cast can differ near the borders of its cells:
    whatever must see the shipped ids (token caches, stages) is to be made with a tokenizer that went through this cast.
    """
    shipped = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(dtype if tensor.ndim >= 2 else torch.float32)
        shipped[name] = tensor.contiguous().clone()
    return shipped


def component_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and little-endian bytes of the shipped values, sorted by name.

    It is taken after `as_shipped`, so float32 weights of a run folder and the bfloat16 file made from them agree.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(as_shipped(tensors).items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def token_hash(tensors: Mapping[str, Tensor]) -> str:
    """`component_hash` of the part of a tokenizer that decides its tokens: everything but a codec's decoder.

    A codec whose decoder alone was trained further keeps it, and with it the stages made for its tokens.
    """
    return component_hash({name: value for name, value in tensors.items() if not name.startswith(DECODER_PREFIX)})


def file_names(component: str, num_files: int) -> list[str]:
    """`codec.safetensors`, or `codec-00001-of-00003.safetensors` and its siblings."""
    if num_files == 1:
        return [f"{component}.safetensors"]
    return [f"{component}-{i:05d}-of-{num_files:05d}.safetensors" for i in range(1, num_files + 1)]


def write_tensors(
    folder: Path, component: str, tensors: Mapping[str, Tensor], dtype: torch.dtype = SHIPPING_DTYPE
) -> dict[str, str]:
    """Writes a component's files of at most 15 MiB (one tensor larger than that has a file to itself).

    Returns the SHA-256 of each file by name. Raises CheckpointError for weights that are not finite.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{component}: tensor {name} holds NaN or infinite values; not written")
    shards = _shards(as_shipped(tensors, dtype))
    hashes = {}
    for file_name, shard in zip(file_names(component, len(shards)), shards, strict=True):
        content = save(shard, metadata={"format": "pt"})
        hashes[file_name] = hashlib.sha256(content).hexdigest()
        (folder / file_name).write_bytes(content)
    return hashes


def _shards(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    header_bytes = 2**16
    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES - header_bytes
    for name, tensor in sorted(tensors.items()):
        if shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = SHARD_BYTES - header_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    return shards


def read_tensors(paths: Iterable[Path], hashes: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Tensors of all files, as stored. With `hashes` (SHA-256 by file name) a file is verified before it is parsed.

    Raises CheckpointError, naming the file, where one is missing, truncated, not safetensors, does not match its hash,
    holds a tensor of another file again, an unusual number type, or values that are not finite.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        content = read_bytes(path)
        if hashes is not None and (found := hashlib.sha256(content).hexdigest()) != hashes[path.name]:
            reason = _damage(content) or f"its SHA-256 is {found}, config.json says {hashes[path.name]}"
            raise CheckpointError(f"{path}: {reason}")
        try:
            part = load(content)
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{path}: {_damage(content) or f'not readable as safetensors ({error})'}") from error
        for name, tensor in part.items():
            if tensor.dtype not in READABLE_DTYPES:
                raise CheckpointError(f"{path}: tensor {name} is of an unexpected type, {tensor.dtype}")
            if name in tensors:
                raise CheckpointError(f"{path}: tensor {name} is in another file of this component too")
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise CheckpointError(f"{path}: tensor {name} holds NaN or infinite values")
            tensors[name] = tensor
    return tensors


def _damage(content: bytes) -> str:
    """What is visibly wrong with a safetensors file, or "": 8 bytes of header length, JSON header, data."""
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights (fetch them with `git lfs pull`)"
    if len(content) < 8:
        return f"truncated: {len(content)} bytes, shorter than any safetensors file"
    header_end = 8 + int.from_bytes(content[:8], "little")
    if header_end > 100 * 2**20 or content[8:9] != b"{":
        return "foreign: not a safetensors file"
    if len(content) < header_end:
        return f"truncated: {len(content)} bytes, its header alone takes {header_end}"
    try:
        header = json.loads(content[8:header_end])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = header_end + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return "foreign: its header is not a safetensors header"
    return f"truncated: {len(content)} bytes, its header promises {expected}" if len(content) < expected else ""


def read_bytes(path: Path) -> bytes:
    """Raises CheckpointError where the file is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
