"""A token cache: the codes and semantic tokens of a corpus, in one safetensors file that fits in memory.

`tokens.safetensors` holds `codes` int16 [F_total, Q] at 50 Hz and `semantic` int16 [S_total] at 25 Hz, all items end to
end; `tokens.jsonl` one line an item; `meta.json` the tokenizers' hashes and sizes. Items keep the corpus's order; a
rest of less than 40 ms at an item's end is dropped, so that every item has exactly two frames a semantic token.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from audiolm.audio.resample import at_speed, length_at_speed
from audiolm.config import FRAMES_PER_SEMANTIC, SAMPLES_PER_SEMANTIC, SEMANTIC_RATE_HZ
from audiolm.data.corpus import Corpus, Item, select_items
from audiolm.data.json_lines import read_lines
from audiolm.errors import DataError

TOKENS_FILE, ITEMS_FILE, META_FILE = "tokens.safetensors", "tokens.jsonl", "meta.json"
CHUNK_S = 20.0  # encoded at once; longer items are encoded in overlapping windows
CONTEXT_S = 2.0  # of a window on each side, encoded but not kept
META_KEYS = ("codec", "semantic", "num_levels", "codebook_size", "num_clusters")

Encoder = Callable[[Tensor], Tensor]  # waveforms [B, T] -> codes [B, T // 320, Q], or semantic tokens [B, T // 640]


@dataclass(frozen=True)
class TokenItem:
    """One item: `num_frames` codec frames from `frame_start`, half as many semantic tokens from half of it."""

    id: str
    frame_start: int
    num_frames: int
    group: str
    split: str
    fluent: bool

    @property
    def num_semantic(self) -> int:
        return self.num_frames // FRAMES_PER_SEMANTIC

    @property
    def is_copy(self) -> bool:
        """Whether it is a recording at another speed (`Recording.id`)."""
        return re.search(r"@\d+(\.\d+)?$", self.id) is not None


class TokenCorpus:
    """Read access to a token cache.

    Raises: DataError when a file is missing or damaged, or the parts do not fit together.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.meta: dict[str, Any] = json.loads((self.folder / META_FILE).read_text(encoding="utf-8"))
            self.items = [TokenItem(**line) for line in read_lines(self.folder / ITEMS_FILE)]
            tensors = load_file(self.folder / TOKENS_FILE)
            self._codes, self._semantic = tensors["codes"], tensors["semantic"]
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise DataError(f"{self.folder}: not a token cache ({error})") from error
        if missing := [key for key in META_KEYS if key not in self.meta]:
            raise DataError(f"{self.folder}: {META_FILE} lacks {', '.join(missing)}")
        frames = sum(item.num_frames for item in self.items)
        if len(self._codes) != frames or len(self._semantic) * FRAMES_PER_SEMANTIC != frames:
            held = f"{len(self._codes)} frames and {len(self._semantic)} semantic tokens"
            raise DataError(f"{self.folder}: the items have {frames} frames, the file {held}")

    def select(
        self, split: str | None = None, fluent: bool | None = None, groups: Collection[str] | None = None
    ) -> list[TokenItem]:
        """Items that meet all the given criteria, in the cache's order."""
        return select_items(self.items, split, fluent, groups)

    def codes(self, item: TokenItem) -> Tensor:
        """int16 [F, Q]."""
        return self._codes[item.frame_start : item.frame_start + item.num_frames]

    def semantic(self, item: TokenItem) -> Tensor:
        """int16 [S], F = 2 S."""
        start = item.frame_start // FRAMES_PER_SEMANTIC
        return self._semantic[start : start + item.num_semantic]


@dataclass(frozen=True)
class Recording:
    """What is to be encoded: an item at a speed (1 as recorded, above 1 faster and higher)."""

    corpus: Corpus
    item: Item
    speed: float = 1.0

    @property
    def id(self) -> str:
        return self.item.id if self.speed == 1.0 else f"{self.item.id}@{self.speed:g}"

    @property
    def num_semantic(self) -> int:
        return length_at_speed(self.item.length, self.speed) // SAMPLES_PER_SEMANTIC

    def waveform(self) -> Tensor:
        """float32 [640 S]."""
        return at_speed(self.corpus.waveform(self.item), self.speed)[: self.num_semantic * SAMPLES_PER_SEMANTIC]


@dataclass(frozen=True)
class Window:
    """`length` positions from `start` of a recording are encoded, `keep_start .. keep_end` of them kept (25 Hz)."""

    recording: int
    start: int
    length: int
    keep_start: int
    keep_end: int


def list_recordings(corpora: Sequence[Corpus], speeds: Sequence[float]) -> list[Recording]:
    """Every item as recorded; after these, the training items once for each further speed."""
    recordings = [Recording(corpus, item) for corpus in corpora for item in corpus.items]
    for speed in speeds:
        recordings += [Recording(corpus, item, speed) for corpus in corpora for item in corpus.select(split="train")]
    return [recording for recording in recordings if recording.num_semantic > 0]


def cut(recording: int, num_positions: int, chunk: int, context: int) -> Iterator[Window]:
    """Windows of one recording that together keep every position once.

    All have length `chunk + 2 * context`, those at the edges lying further inside, so that no padding is needed; a
    recording no longer than that is one window.
    """
    length = chunk + 2 * context
    if num_positions <= length:
        yield Window(recording, 0, num_positions, 0, num_positions)
        return
    kept = 0
    while kept < num_positions:
        start = min(max(0, kept - context), num_positions - length)
        end = num_positions if start + length == num_positions else start + length - context
        yield Window(recording, start, length, kept - start, end - start)
        kept = end


def batches(windows: Sequence[Window], max_positions: int) -> Iterator[list[Window]]:
    """Windows of equal length together (padding would change tokens), at most `max_positions` in sum, at least one."""
    batch: list[Window] = []
    for window in sorted(windows, key=lambda one: (-one.length, one.recording)):
        if batch and (window.length != batch[0].length or (len(batch) + 1) * window.length > max_positions):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def build(
    recordings: Sequence[Recording],
    encode_codes: Encoder,
    encode_semantic: Encoder,
    *,
    out: Path,
    meta: dict[str, Any],
    batch_s: float = 160.0,
) -> None:
    """Writes the token cache `out`; `batch_s` seconds of audio are encoded at once.

    `meta` names the tokenizers and their sizes, with the keys `META_KEYS`.

    Raises: DataError when there is nothing to encode, or an encoder's output has not the promised length.
    """
    if not recordings:
        raise DataError("no recordings to encode")
    lengths = [recording.num_semantic for recording in recordings]
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    codes = torch.zeros(starts[-1] * FRAMES_PER_SEMANTIC, meta["num_levels"], dtype=torch.int16)
    semantic = torch.zeros(starts[-1], dtype=torch.int16)
    chunk, context = round(CHUNK_S * SEMANTIC_RATE_HZ), round(CONTEXT_S * SEMANTIC_RATE_HZ)
    windows = [window for index, length in enumerate(lengths) for window in cut(index, length, chunk, context)]
    reader = _Reader(recordings)
    with tqdm(total=starts[-1] // SEMANTIC_RATE_HZ, unit="s", desc="tokens") as bar:
        for batch in batches(windows, round(batch_s * SEMANTIC_RATE_HZ)):
            waveforms = torch.stack([reader.read(window) for window in batch])
            batch_codes, batch_semantic = encode_codes(waveforms), encode_semantic(waveforms)
            _check(waveforms, batch_codes, batch_semantic, meta["num_levels"])
            for window, row_codes, row_semantic in zip(batch, batch_codes, batch_semantic, strict=True):
                first, last = window.keep_start, window.keep_end
                at = starts[window.recording] + window.start
                semantic[at + first : at + last] = row_semantic[first:last].to(torch.int16)
                frames = slice(FRAMES_PER_SEMANTIC * (at + first), FRAMES_PER_SEMANTIC * (at + last))
                codes[frames] = row_codes[FRAMES_PER_SEMANTIC * first : FRAMES_PER_SEMANTIC * last].to(torch.int16)
            bar.update(sum(window.keep_end - window.keep_start for window in batch) // SEMANTIC_RATE_HZ)
    items = [_token_item(recording, start) for recording, start in zip(recordings, starts, strict=False)]
    _write(out, codes, semantic, items, meta)


class _Reader:
    """Audio of windows; keeps the last recording, since windows of one recording follow each other."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._recordings = recordings
        self._index, self._waveform = -1, torch.zeros(0)

    def read(self, window: Window) -> Tensor:
        """float32 [640 * length]."""
        if window.recording != self._index:
            self._index, self._waveform = window.recording, self._recordings[window.recording].waveform()
        start = window.start * SAMPLES_PER_SEMANTIC
        return self._waveform[start : start + window.length * SAMPLES_PER_SEMANTIC]


def _check(waveforms: Tensor, codes: Tensor, semantic: Tensor, num_levels: int) -> None:
    batch, positions = waveforms.shape[0], waveforms.shape[1] // SAMPLES_PER_SEMANTIC
    expected = (batch, positions * FRAMES_PER_SEMANTIC, num_levels)
    if tuple(codes.shape) != expected or tuple(semantic.shape) != (batch, positions):
        raise DataError(
            f"expected codes {expected} and semantic tokens {(batch, positions)}, "
            f"found {tuple(codes.shape)} and {tuple(semantic.shape)}"
        )


def _token_item(recording: Recording, start: int) -> TokenItem:
    item, frames = recording.item, recording.num_semantic * FRAMES_PER_SEMANTIC
    return TokenItem(recording.id, start * FRAMES_PER_SEMANTIC, frames, item.group, item.split, item.fluent)


def _write(out: Path, codes: Tensor, semantic: Tensor, items: Sequence[TokenItem], meta: dict[str, Any]) -> None:
    """meta.json comes last: without it the folder is no token cache."""
    out.mkdir(parents=True, exist_ok=True)
    (out / META_FILE).unlink(missing_ok=True)
    save_file({"codes": codes, "semantic": semantic}, out / TOKENS_FILE)
    with (out / ITEMS_FILE).open("w", encoding="utf-8") as lines:
        for item in items:
            lines.write(json.dumps(dataclasses.asdict(item), ensure_ascii=False) + "\n")
    sizes = {"num_items": len(items), "num_frames": len(codes)}
    (out / META_FILE).write_text(json.dumps(meta | sizes, indent=1) + "\n", encoding="utf-8")
