"""Band-limited sample rate conversion: whole signals, and streams of blocks in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.transforms import Resample

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import AudioLimitError

MAX_TERM = 2000  # of the reduced rate ratio: bounds the polyphase kernel to some 30 MB, whatever the rates
MAX_RATIO = 64

_MIN_PHASES = 32
_ZERO_CROSSINGS = 64
_ROLLOFF = 0.9475937167399596  # with the Kaiser beta below: resampy's "kaiser_best"
_KAISER_BETA = 14.769656459379492


def rate_ratio(from_hz: int, to_hz: int) -> Fraction:
    """`to_hz / from_hz`, exact where numerator and denominator stay within `MAX_TERM`, else the nearest such ratio.

    All common rates are exact. The nearest ratio is off by at most 2.5e-4 (half a cent of pitch) between 4 and 192 kHz.

    Raises AudioLimitError for rates below 1 Hz or a ratio beyond 1:64 either way.
    """
    if from_hz < 1 or to_hz < 1:
        raise AudioLimitError(f"sample rates must be at least 1 Hz, found {from_hz} Hz and {to_hz} Hz")
    ratio = Fraction(to_hz, from_hz)
    if not Fraction(1, MAX_RATIO) <= ratio <= MAX_RATIO:
        raise AudioLimitError(f"cannot convert {from_hz} Hz to {to_hz} Hz: at most a factor of {MAX_RATIO} is accepted")
    if ratio <= 1:
        return ratio.limit_denominator(MAX_TERM)
    return 1 / (1 / ratio).limit_denominator(MAX_TERM)


def resample(waveforms: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """[..., T] float -> [..., ceil(T * ratio)], windowed-sinc interpolation (Kaiser, 64 zero crossings).

    Raises AudioLimitError as `rate_ratio`.
    """
    ratio = rate_ratio(from_hz, to_hz)
    if ratio == 1 or waveforms.shape[-1] == 0:
        return waveforms
    rows = waveforms.reshape(-1, waveforms.shape[-1])
    return _convert(rows, ratio).reshape(*waveforms.shape[:-1], -1)


def at_speed(waveforms: Tensor, speed: float) -> Tensor:
    """[..., T] at 16 kHz -> [..., length_at_speed(T)]: played so much faster and higher. A speed has its own filter.

    Raises AudioLimitError as `rate_ratio`.
    """
    return resample(waveforms, _played_rate_hz(speed), SAMPLE_RATE_HZ)


def length_at_speed(num_samples: int, speed: float) -> int:
    """How many samples `at_speed` makes of `num_samples`. Raises AudioLimitError as `rate_ratio`."""
    return _num_converted(num_samples, _speed_ratio(speed))


def least_length_for(num_samples: int, speed: float) -> int:
    """The fewest samples of which `at_speed` makes `num_samples` or more. Raises AudioLimitError as `rate_ratio`."""
    return int((num_samples - 1) / _speed_ratio(speed)) + 1


def _speed_ratio(speed: float) -> Fraction:
    return rate_ratio(_played_rate_hz(speed), SAMPLE_RATE_HZ)


def _played_rate_hz(speed: float) -> int:
    return round(SAMPLE_RATE_HZ * speed)


def resample_blocks(blocks: Iterable[Tensor], from_hz: int, to_hz: int) -> Iterator[Tensor]:
    """Blocks [n] float32 of any lengths -> blocks [m] at `to_hz`; joined they equal `resample` of the joined input.

    Holds no more than a block and the filter's reach at a time.

    Raises AudioLimitError as `rate_ratio`.
    """
    ratio = rate_ratio(from_hz, to_hz)
    if ratio == 1:
        yield from blocks
        return
    stride = ratio.denominator
    reach = (_kernel(ratio)[1] // stride + 2) * stride  # a multiple of the stride, so that output phases line up
    held, past = torch.zeros(0), 0
    for block in blocks:
        held = torch.cat([held, block])
        ready = (held.shape[0] - past - reach) // stride * stride
        if ready > 0:
            yield _middle(held[: past + ready + reach], past, ready, ratio)
            keep = min(past + ready, reach)
            held, past = held[past + ready - keep :], keep
    remaining = held.shape[0] - past
    if remaining:
        yield _middle(held, past, remaining, ratio)


def _middle(samples: Tensor, start: int, length: int, ratio: Fraction) -> Tensor:
    """Converted `samples[start : start + length]`, with what lies around it as context; `start` is whole strides."""
    first = start // ratio.denominator * ratio.numerator
    return _convert(samples[None], ratio)[0, first : first + _num_converted(length, ratio)]


def _num_converted(length: int, ratio: Fraction) -> int:
    return -(-length * ratio.numerator // ratio.denominator)


def _convert(rows: Tensor, ratio: Fraction) -> Tensor:
    """[B, T] -> [B, ceil(T * ratio)]: one convolution, a channel for each output phase."""
    kernel, width = _kernel(ratio)
    stride = kernel.shape[0] * ratio.denominator // ratio.numerator
    padded = F.pad(rows, (width, width + stride))
    phases = F.conv1d(padded[:, None], kernel.to(rows), stride=stride)  # [B, phases, T / stride]
    return phases.transpose(1, 2).reshape(rows.shape[0], -1)[:, : _num_converted(rows.shape[-1], ratio)]


@lru_cache(maxsize=8)
def _kernel(ratio: Fraction) -> tuple[Tensor, int]:
    """Polyphase kernel [phases, 1, taps] and its reach in input samples.

    There are `numerator` phases, or a multiple of it: one phase alone (48 to 16 kHz) convolves ten times slower.
    """
    transform = Resample(
        ratio.denominator,
        ratio.numerator,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=_ZERO_CROSSINGS,
        rolloff=_ROLLOFF,
        beta=_KAISER_BETA,
    )
    repeats = max(1, _MIN_PHASES // ratio.numerator)
    shifted = [
        F.pad(transform.kernel, (i * ratio.denominator, (repeats - 1 - i) * ratio.denominator)) for i in range(repeats)
    ]
    return torch.cat(shifted), transform.width
