from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from audiolm.codec.discriminators import (
    MagnitudeDiscriminator,
    Patches,
    StftDiscriminator,
    discriminator_loss,
    generator_losses,
)


@pytest.fixture
def discriminator() -> StftDiscriminator:
    torch.manual_seed(0)
    return StftDiscriminator(channels=2, n_ffts=(128, 64))


@pytest.fixture
def of_magnitudes() -> MagnitudeDiscriminator:
    torch.manual_seed(0)
    return MagnitudeDiscriminator(n_fft=640, channels=2)


def _constant(value: float) -> list:
    return [(torch.full((1, 2, 3), value), [torch.full((1, 2, 2, 2), value)]) for _ in range(2)]


def test_every_scale_gives_logits_and_features(discriminator):
    outputs = discriminator(torch.randn(3, 1000))
    assert len(outputs) == 2
    for logits, features in outputs:
        assert logits.ndim == 3
        assert logits.shape[0] == 3
        assert len(features) == 4
        assert all(feature.ndim == 4 and feature.shape[0] == 3 for feature in features)


def test_crops_shorter_than_a_window_are_judged(discriminator):
    assert all(torch.isfinite(logits).all() for logits, _ in discriminator(torch.randn(1, 10)))


def test_half_precision_reconstructions_are_judged_under_autocast(discriminator):
    reconstruction = torch.randn(1, 700, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = discriminator(reconstruction)
        sum(generator_losses(outputs, outputs)).backward()
    assert all(logits.dtype == torch.float32 for logits, _ in outputs)
    assert reconstruction.grad.dtype == torch.bfloat16


def test_rows_are_judged_independently(discriminator):
    waveforms = torch.randn(2, 700)
    for (together, _), (alone, _) in zip(discriminator(waveforms), discriminator(waveforms[1:]), strict=True):
        torch.testing.assert_close(together[1:], alone)


def test_phase_is_seen(discriminator):
    waveforms = torch.randn(1, 700)
    assert not torch.allclose(discriminator(waveforms)[0][0], discriminator(-waveforms)[0][0])


def test_hinge_loss_is_two_for_zero_logits_and_zero_beyond_the_margin():
    assert discriminator_loss(_constant(0.0), _constant(0.0)).item() == 2.0
    assert discriminator_loss(_constant(1.5), _constant(-1.5)).item() == 0.0
    assert discriminator_loss(_constant(-1.0), _constant(1.0)).item() == 4.0


def test_generator_losses_vanish_for_a_copy_that_passes_as_real():
    adversarial, matching = generator_losses(_constant(2.0), _constant(2.0))
    assert (adversarial.item(), matching.item()) == (0.0, 0.0)


def test_feature_matching_is_relative_to_the_size_of_real_features():
    small, large = (generator_losses(_constant(v), _constant(1.5 * v))[1].item() for v in (0.01, 100.0))
    assert small == pytest.approx(large) == pytest.approx(0.5)


def test_generator_losses_send_gradients_to_the_reconstruction_only(discriminator):
    original = torch.randn(1, 600, requires_grad=True)
    reconstruction = torch.randn(1, 600, requires_grad=True)
    adversarial, matching = generator_losses(discriminator(original), discriminator(reconstruction))
    (adversarial + matching).backward()
    assert original.grad is None
    assert reconstruction.grad.any()


def learnt(
    discriminator: nn.Module, draw: Callable[[], tuple[torch.Tensor, torch.Tensor]], lr: float
) -> tuple[float, float]:
    """The discriminator's loss before and after 30 steps on what `draw` gives: real, fake."""
    optimizer, losses = torch.optim.Adam(discriminator.parameters(), lr), []
    for _ in range(30):
        real, fake = draw()
        loss = discriminator_loss(discriminator(real), discriminator(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


def test_discriminator_learns_to_tell_noise_from_tones(discriminator):
    times = torch.arange(800) / 16_000
    tones, noise = torch.sin(2 * torch.pi * torch.tensor([[300.0], [900.0]]) * times), torch.randn(2, 800)
    before, after = learnt(discriminator, lambda: (tones, noise), lr=2e-2)
    assert after < 0.5 < before


def rough_and_smooth() -> tuple[torch.Tensor, torch.Tensor]:
    """Log magnitudes [2, 321, 40] of equal means: as noise is, and as distances leave it."""
    smooth = torch.zeros(2, 321, 40)
    return smooth + 1.8 * F.avg_pool2d(torch.randn(2, 323, 42), 3, 1), smooth


def test_every_view_of_magnitudes_gives_logits_and_features(of_magnitudes):
    outputs = of_magnitudes(torch.randn(3, 321, 20))
    assert len(outputs) == 3
    for logits, features in outputs:
        assert logits.ndim == 3
        assert logits.shape[0] == 3
        assert len(features) == 4


def test_one_view_of_magnitudes_is_of_those_above_3_khz_alone(of_magnitudes):
    low, both = torch.zeros(1, 321, 20), torch.zeros(1, 321, 20)
    low[:, :120], both[:, 120:] = 2.0, 2.0
    silent, high = of_magnitudes(torch.zeros(1, 321, 20)), 1
    assert [torch.equal(a, b) for (a, _), (b, _) in zip(silent, of_magnitudes(low), strict=True)] == [
        False,
        True,
        False,
    ]
    assert not torch.equal(silent[high][0], of_magnitudes(both)[high][0])


def test_magnitudes_below_the_background_of_a_room_are_all_alike(of_magnitudes):
    faint, silent = torch.full((1, 321, 20), -12.0), torch.full((1, 321, 20), -20.0)
    for (one, _), (other, _) in zip(of_magnitudes(faint), of_magnitudes(silent), strict=True):
        torch.testing.assert_close(one, other, atol=1e-2, rtol=0)


@pytest.mark.parametrize("axis", [2, 3])
def test_a_comb_of_every_second_frame_or_bin_is_not_seen_and_so_not_taught(axis):
    torch.manual_seed(0)
    picture, patches = torch.randn(1, 1, 40, 80), Patches(1, 2)
    comb = torch.ones(picture.shape[axis])
    comb[1::2] = -1.0
    comb = comb.reshape([-1 if axis == along else 1 for along in range(4)])
    plain, combed = (patches(one)[1][0][..., 4:-4, 4:-4] for one in (picture, picture + comb))
    torch.testing.assert_close(plain, combed)


def test_a_discriminator_of_magnitudes_learns_to_tell_smooth_from_rough():
    torch.manual_seed(0)
    before, after = learnt(MagnitudeDiscriminator(n_fft=640, channels=8), rough_and_smooth, lr=3e-3)
    assert after < 1.5 < before
