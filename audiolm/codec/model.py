"""The codec: one of two backbones (frame-by-frame ConvNeXt or SoundStream's SEANet) around one residual quantizer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from audiolm.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ, CodecConfig
from audiolm.nn.convnext import FrameDecoder, FrameEncoder
from audiolm.nn.quantize import ResidualQuantizer
from audiolm.nn.seanet import SeanetDecoder, SeanetEncoder


class CodecOutput(NamedTuple):
    reconstruction: Tensor  # waveforms [B, T], or where phases are reconstructed log magnitudes [B, bins, 2F]
    codes: Tensor | None  # [B, F, Q] long; None while the quantizer is bypassed
    commitment_loss: Tensor  # scalar
    latents: Tensor  # [B, F, D], before quantisation


class Codec(nn.Module):
    """SoundStream (arXiv 2107.03312) at 16 kHz and 50 frames a second; see the configuration for the backbone."""

    sample_rate_hz = SAMPLE_RATE_HZ
    frame_rate_hz = FRAME_RATE_HZ

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        dimension = config.quantizer.dimension
        if config.backbone == "frame":
            self.encoder: nn.Module = FrameEncoder(config.frame, dimension)
            self.decoder: nn.Module = FrameDecoder(config.frame, dimension)
        else:
            self.encoder = SeanetEncoder(config.seanet, dimension)
            self.decoder = SeanetDecoder(config.seanet, dimension)
        self.quantizer = ResidualQuantizer(config.quantizer)

    @property
    def is_phase_free(self) -> bool:
        """Whether tokens leave phases to the decoder."""
        return self.config.backbone == "frame" and self.config.frame.phase == "reconstructed"

    @property
    def num_levels(self) -> int:
        return self.config.quantizer.num_levels

    @property
    def codebook_size(self) -> int:
        return self.config.quantizer.codebook_size

    def codebooks(self) -> Tensor:
        """[Q, K, D] code vectors."""
        return self.quantizer.codebooks

    @torch.inference_mode()
    def encode(self, waveforms: Tensor, num_levels: int | None = None) -> Tensor:
        """waveforms [B, T] -> codes [B, ceil(T / 320), q] long, q = num_levels or all."""
        return self.quantizer.encode(self.encoder(waveforms).transpose(1, 2), num_levels)

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, F, q], any 1 <= q <= Q -> waveforms [B, 320 F]. Raises ValueError for another q."""
        self._check(codes)
        return self.decoder(self.quantizer.decode(codes).transpose(1, 2))

    def forward(self, waveforms: Tensor, quantize: bool = True, levels: Tensor | None = None) -> CodecOutput:
        """Training pass on waveforms [B, T]; levels [B]: quantizer levels used by each row (None: all)."""
        latents = self.encoder(waveforms).transpose(1, 2)
        codes, commitment, quantised = None, latents.new_zeros(()), latents
        if quantize:
            quantised, codes, commitment = self.quantizer(latents, levels)
        if self.is_phase_free:
            return CodecOutput(self.decoder.log_magnitudes(quantised.transpose(1, 2)), codes, commitment, latents)
        decoded = self.decoder(quantised.transpose(1, 2))[:, : waveforms.shape[-1]]
        return CodecOutput(decoded, codes, commitment, latents)

    def init_decode_state(self, batch: int) -> Any:
        """The state of a streaming decode, a value that `decode_step` takes and returns."""
        return self.decoder.init_state(batch)

    @torch.inference_mode()
    def decode_step(self, codes: Tensor, state: Any) -> tuple[Tensor, Any]:
        """codes [B, n, q] -> (waveform samples that are final [B, m], next state); steps + flush == decode."""
        self._check(codes)
        return self.decoder.step(self.quantizer.decode(codes).transpose(1, 2), state)

    @torch.inference_mode()
    def decode_flush(self, state: Any) -> Tensor:
        """The samples withheld by the decoder's look-ahead [B, m]."""
        return self.decoder.flush(state)

    def _check(self, codes: Tensor) -> None:
        if codes.ndim != 3 or not 1 <= codes.shape[-1] <= self.num_levels:
            raise ValueError(f"codes must be [B, F, 1..{self.num_levels}], found {tuple(codes.shape)}")


def without_phases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a frame codec that predicts phases -> a start for one that reconstructs them, else of the same sizes.

    The log magnitudes stay what they were on both sides; the encoder's other inputs begin at zero.
    """
    kept = dict(tensors)
    logs = kept["encoder.input.weight"].chunk(5, dim=1)[2]
    kept["encoder.input.weight"] = torch.cat([torch.zeros_like(logs), logs], dim=1)
    for name in ("decoder.head.weight", "decoder.head.bias"):
        kept[name] = kept[name].chunk(3)[0]
    return kept
