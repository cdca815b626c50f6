"""Other implementations at equal sizes, random weights: whichever is installed (the extra `benchmark`).

What they are asked for is the work of one coarse frame at a given length, in their own cached decoding.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass

import torch

from audiolm.config import StageConfig

Work = Callable[[], object]
UNUSED = ("fairseq", "wandb")
"""What audiolm-pytorch imports for things that are not asked of it here; fairseq cannot be installed any more."""


@dataclass(frozen=True)
class Peer:
    """`work` takes `frames` coarse frames more than `base` does: the difference is what they cost, prefill left out."""

    name: str
    work: Work
    base: Work | None
    frames: int


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _stand_in_for_unused() -> None:
    for name in UNUSED:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)


def coarse_peers(config: StageConfig, num_frames: int, rows: int) -> list[Peer]:
    """Those that are installed, at the length of `num_frames` frames; all levels of a frame are tokens of their own."""
    peers = []
    if version := installed("transformers"):
        peers.append(_llama(config, num_frames, rows, version))
    if (version := installed("audiolm-pytorch")) and rows == 1:
        peers += [_audiolm_pytorch(config, num_frames, version, bias) for bias in (True, False)]
    return peers


def _llama(config: StageConfig, num_frames: int, rows: int, version: str) -> Peer:
    """A Llama with as many weights a layer (its gated feed-forward has three matrices) over a static cache."""
    from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

    body, levels = config.transformer, len(config.levels)
    length = num_frames * levels
    sizes = LlamaConfig(
        vocab_size=sum(config.levels),
        hidden_size=body.width,
        intermediate_size=body.feed_forward * 2 // 3,
        num_hidden_layers=body.num_layers,
        num_attention_heads=body.num_heads,
        max_position_embeddings=length + levels,
    )
    model = LlamaForCausalLM(sizes).eval()
    cache = StaticCache(config=sizes, max_cache_len=length + levels)
    with torch.inference_mode():
        model(torch.zeros(rows, length, dtype=torch.long), past_key_values=cache, use_cache=True, logits_to_keep=1)

    def frame() -> None:
        with torch.inference_mode():
            for level in range(levels):
                place = torch.tensor([length + level])
                ids = torch.zeros(rows, 1, dtype=torch.long)
                found = model(
                    ids, past_key_values=cache, use_cache=True, cache_position=place, position_ids=place[None]
                )
                torch.multinomial(found.logits[:, -1].softmax(-1), 1)

    return Peer(f"transformers {version} Llama", frame, None, 1)


def _audiolm_pytorch(config: StageConfig, num_frames: int, version: str, with_bias: bool) -> Peer:
    """Its CoarseTransformer with a key/value cache, with and without its relative position bias."""
    _stand_in_for_unused()
    from audiolm_pytorch import AudioLMSoundStream, CoarseTransformer, CoarseTransformerWrapper
    from audiolm_pytorch.t5 import DEFAULT_T5_NAME, T5_CONFIGS
    from transformers import T5Config

    T5_CONFIGS[DEFAULT_T5_NAME] = {"config": T5Config()}  # else it fetches the size of a text encoder not used here
    body, levels = config.transformer, len(config.levels)
    model = CoarseTransformer(
        num_semantic_tokens=config.condition_levels[0],
        codebook_size=config.levels[0],
        num_coarse_quantizers=levels,
        dim=body.width,
        depth=body.num_layers,
        heads=body.num_heads,
        flash_attn=not with_bias,
    ).eval()
    codec = AudioLMSoundStream(codebook_size=config.levels[0])  # for its number of levels alone
    wrapper = CoarseTransformerWrapper(transformer=model, codec=codec, unique_consecutive=False).eval()
    semantic = torch.randint(config.condition_levels[0], (1, num_frames // config.condition_stride))
    prime = torch.randint(config.levels[0], (1, num_frames * levels))

    def frames(count: int) -> Work:
        def work() -> None:
            with torch.inference_mode():
                wrapper.generate(
                    semantic_token_ids=semantic, prime_coarse_token_ids=prime, max_time_steps=count, cond_scale=1.0
                )

        return work

    name = f"audiolm-pytorch {version}" + ("" if with_bias else " without its position bias")
    return Peer(name, frames(2), frames(1), 1)


def codec_peers(num_seconds: float) -> dict[str, tuple[Work, Work]]:
    """(encode, decode) of so many seconds, by name: EnCodec at 24 kHz, the other AudioLM's SoundStream."""
    peers = {}
    if version := installed("transformers"):
        peers[f"transformers {version} EnCodec, 24 kHz"] = _encodec(num_seconds)
    if version := installed("audiolm-pytorch"):
        peers[f"audiolm-pytorch {version} SoundStream, 16 kHz"] = _soundstream(num_seconds)
    return peers


def _encodec(num_seconds: float) -> tuple[Work, Work]:
    from transformers import EncodecConfig, EncodecModel

    model = EncodecModel(EncodecConfig()).eval()
    samples = torch.randn(1, 1, round(num_seconds * 24_000)) * 0.1
    with torch.inference_mode():
        encoded = model.encode(samples, bandwidth=6.0)

    def encode() -> None:
        with torch.inference_mode():
            model.encode(samples, bandwidth=6.0)

    def decode() -> None:
        with torch.inference_mode():
            model.decode(encoded.audio_codes, encoded.audio_scales)

    return encode, decode


def _soundstream(num_seconds: float) -> tuple[Work, Work]:
    _stand_in_for_unused()
    from audiolm_pytorch import AudioLMSoundStream

    model = AudioLMSoundStream(codebook_size=1024).eval()
    samples = torch.randn(1, round(num_seconds * 16_000)) * 0.1
    with torch.inference_mode():
        _, codes, _ = model(samples, return_encoded=True)

    def encode() -> None:
        with torch.inference_mode():
            model(samples, return_encoded=True)

    def decode() -> None:
        with torch.inference_mode():
            model.decode_from_codebook_indices(codes)

    return encode, decode
