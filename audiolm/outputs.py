"""Outputs as files: the audio with its receipt inside, the tokens, and the receipt beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from audiolm.audio import files
from audiolm.errors import AudioFormatError, ReceiptError
from audiolm.events import Continuation
from audiolm.receipt import Receipt

MAX_RECEIPT_BYTES = 2**20


@dataclass(frozen=True)
class OutputFiles:
    """`whole` is prompt and continuation; `tokens` holds "semantic" [S] and "codes" [F, Q], both int32."""

    whole: Path
    tokens: Path
    receipt: Path


def write_continuation(continuation: Continuation, folder: Path, name: str) -> OutputFiles:
    """Writes NAME.wav (int16, receipt in its comment), NAME.tokens.safetensors and NAME.receipt.json."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = OutputFiles(folder / f"{name}.wav", folder / f"{name}.tokens.safetensors", folder / f"{name}.receipt.json")
    compact = continuation.receipt.to_json()
    files.write_wav(paths.whole, continuation.waveform, compact)
    tokens = {"semantic": continuation.semantic.ids, "codes": continuation.acoustic.codes}
    tokens = {key: value.cpu().to(torch.int32).contiguous() for key, value in tokens.items()}
    save_file(tokens, paths.tokens, metadata={"receipt": compact})
    paths.receipt.write_text(continuation.receipt.to_json(indent=1) + "\n", encoding="utf-8")
    return paths


def read_receipt(path: Path) -> Receipt:
    """From a receipt file, or out of the comment of a WAV file. Raises ReceiptError where there is none."""
    try:
        if path.suffix.lower() == ".wav":
            text = files.read_comment(path)
        elif path.stat().st_size > MAX_RECEIPT_BYTES:
            raise ReceiptError(f"{path}: a receipt of more than {MAX_RECEIPT_BYTES} bytes")
        else:
            text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, AudioFormatError) as error:
        raise ReceiptError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not text:
        raise ReceiptError(f"{path}: no receipt in it")
    return Receipt.from_json(text)
