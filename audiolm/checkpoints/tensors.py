"""Weights as files: cast once for shipping, hashed, sharded, written and read as safetensors (never pickle)."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from audiolm.errors import CheckpointError
from audiolm.nn.packing import pack_rows, unpack_rows

SHARD_BYTES = 15 * 2**20  # files of the repository stay under 16 MiB
SHIPPING_DTYPE = torch.bfloat16
PACKED_FROM_SIZE = 4096  # values; smaller matrices are not worth a scale a row
STEP_SUFFIX = ":step"
MAX_FILE_BYTES = 8 * 2**30
MAX_HEADER_BYTES = 8 * 2**20
READABLE_DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
DECODER_PREFIX = "decoder."  # of the codec's state: what turns tokens into sound, and never makes them


def as_shipped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values that survive shipping: what a checkpoint file gives back once it is read.

    Large float matrices are stored as int8 with a scale a row and come back as float32; small ones, codebooks and
    centroids in bfloat16; vectors and scalars in float32; integers as they are. The cast loses nothing the second
    time, so a checkpoint can be taken apart and assembled again with the same hashes. Token ids of a tokenizer before
    and after its cast can differ near the borders of its cells: whatever must see the shipped ids (token caches,
    stages) is to be made with a tokenizer that went through this cast.
    """
    shipped = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            if _is_packed(name, tensor):
                tensor = _unpack(*_pack(tensor.float()))
            else:
                tensor = tensor.to(SHIPPING_DTYPE if tensor.ndim >= 2 else torch.float32)
        shipped[name] = tensor.contiguous().clone()
    return shipped


def _is_packed(name: str, tensor: Tensor) -> bool:
    """Cells of a tokenizer stay out: their borders decide token ids."""
    exact = name.endswith(("codebooks", "centroids"))
    return tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel() >= PACKED_FROM_SIZE and not exact


def _rows(tensor: Tensor) -> Tensor:
    """[rows, values that share a scale]: stacked tables by vector, convolutions by output channel."""
    if tensor.ndim == 2 or tensor.shape[-1] >= 32:
        return tensor.reshape(-1, tensor.shape[-1])
    return tensor.reshape(tensor.shape[0], -1)


def _pack(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values of the tensor's shape, and a row's step (`audiolm.nn.packing`)."""
    values, exponents = pack_rows(_rows(tensor))
    return values.reshape(tensor.shape), exponents


def _unpack(values: Tensor, exponents: Tensor) -> Tensor:
    return unpack_rows(_rows(values), exponents).reshape(values.shape)


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


def write_tensors(folder: Path, component: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Writes a component's files of at most 15 MiB (one tensor larger than that has a file to itself).

    Returns the SHA-256 of each file by name. Raises CheckpointError for weights that are not finite.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{component}: tensor {name} holds NaN or infinite values; not written")
    stored = {}
    for name, tensor in as_shipped(tensors).items():
        if _is_packed(name, tensor):
            stored[name], stored[name + STEP_SUFFIX] = _pack(tensor)
        else:
            stored[name] = tensor
    shards = _shards(stored)
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
    """Tensors of all files, packed ones as float32. With `hashes` (SHA-256 by file name) a file is verified first.

    Raises CheckpointError, naming the file, where one is missing, truncated, not safetensors, does not match its hash,
    holds a tensor of another file again, an unusual number type, or values that are not finite.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        content = read_bytes(path)
        if hashes is not None and (found := hashlib.sha256(content).hexdigest()) != hashes[path.name]:
            reason = _damage(content) or f"its SHA-256 is {found}, config.json says {hashes[path.name]}"
            raise CheckpointError(f"{path}: {reason}")
        if int.from_bytes(content[:8], "little") > MAX_HEADER_BYTES:
            raise CheckpointError(f"{path}: {_damage(content)}")
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
    return _unpack_all(tensors)


def _unpack_all(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Raises CheckpointError for a scale without its matrix, or with another number of rows."""
    steps = {name: value for name, value in tensors.items() if name.endswith(STEP_SUFFIX)}
    plain = {name: value for name, value in tensors.items() if name not in steps}
    for name, exponents in steps.items():
        values = plain.get(name.removesuffix(STEP_SUFFIX))
        if values is None or values.dtype != torch.int8 or exponents.shape != _rows(values).shape[:1]:
            raise CheckpointError(f"tensor {name} does not fit the matrix it should scale")
        plain[name.removesuffix(STEP_SUFFIX)] = _unpack(values, exponents)
    return plain


def _damage(content: bytes) -> str:
    """What is visibly wrong with a safetensors file, or "": 8 bytes of header length, JSON header, data."""
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights (fetch them with `git lfs pull`)"
    if len(content) < 8:
        return f"truncated: {len(content)} bytes, shorter than any safetensors file"
    header_end = 8 + int.from_bytes(content[:8], "little")
    if header_end > MAX_HEADER_BYTES or content[8:9] != b"{":
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


def read_bytes(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Raises CheckpointError where the file is missing, too large, no regular file or cannot be read."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path}: not a regular file")
            if status.st_size > max_bytes:
                raise CheckpointError(f"{path}: {status.st_size} bytes, more than the {max_bytes} allowed")
            return file.read(max_bytes + 1)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
