import math

import pytest
import torch

from audiolm.audio.resample import (
    MAX_TERM,
    _kernel,
    at_speed,
    least_length_for,
    length_at_speed,
    rate_ratio,
    resample,
    resample_blocks,
)
from audiolm.errors import AudioLimitError

RATES = [4_000, 4_001, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 190_007, 191_999, 192_000]


@pytest.mark.parametrize("rate", RATES)
def test_resampling_in_blocks_equals_resampling_the_whole(rate):
    wave = torch.randn(rate // 2 + 17, generator=torch.Generator().manual_seed(rate))
    whole = resample(wave, rate, 16_000)
    for size in (100, 7_777, rate):
        blocks = torch.cat(list(resample_blocks(wave.split(size), rate, 16_000)))
        assert blocks.shape == whole.shape
        assert torch.allclose(blocks, whole, atol=1e-5)


@pytest.mark.parametrize("rate", RATES)
def test_length_and_pitch_are_kept_at_every_rate(rate):
    wave = torch.sin(2 * math.pi * 1000 * torch.arange(rate) / rate)
    resampled = resample(wave, rate, 16_000)
    assert resampled.shape[0] == math.ceil(rate * rate_ratio(rate, 16_000))
    reference = torch.sin(
        2 * math.pi * 1000 * torch.arange(resampled.shape[0]) / float(rate * rate_ratio(rate, 16_000))
    )
    assert float((resampled - reference)[2_000:-2_000].abs().max()) < 2e-3


def test_what_lies_above_the_new_band_is_removed():
    wave = torch.sin(2 * math.pi * 9_000 * torch.arange(48_000).double() / 48_000)
    assert float(resample(wave, 48_000, 16_000)[500:-500].abs().max()) < 1e-4


@pytest.mark.parametrize("rate", [44_101, 47_999, 131_071, 191_999, 4_003])
def test_odd_rates_keep_the_kernel_small(rate):
    ratio = rate_ratio(rate, 16_000)
    assert max(ratio.numerator, ratio.denominator) <= MAX_TERM
    assert abs(float(ratio) * rate / 16_000 - 1) < 2.6e-4
    assert _kernel(ratio)[0].numel() * 4 < 40e6


def test_batches_keep_their_leading_dimensions():
    assert resample(torch.randn(2, 3, 4410), 44_100, 16_000).shape == (2, 3, 1600)


@pytest.mark.parametrize("rate", [0, -5, 10, 2_000_000_000])
def test_absurd_rates_are_refused(rate):
    with pytest.raises(AudioLimitError):
        resample(torch.zeros(10), rate, 16_000)


@pytest.mark.parametrize("speed", [0.87, 0.9, 0.9091, 1.0, 1.1, 1.25])
@pytest.mark.parametrize("length", [1, 640, 6_401])
def test_how_many_samples_a_speed_makes_is_known_before(speed, length):
    assert at_speed(torch.zeros(length), speed).shape[-1] == length_at_speed(length, speed)
    fewest = least_length_for(length, speed)
    assert length_at_speed(fewest, speed) >= length > length_at_speed(fewest - 1, speed)
