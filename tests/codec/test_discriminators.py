import pytest
import torch

from audiolm.codec.discriminators import StftDiscriminator, discriminator_loss, generator_losses


@pytest.fixture
def discriminator() -> StftDiscriminator:
    torch.manual_seed(0)
    return StftDiscriminator(channels=2, n_ffts=(128, 64))


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


def test_discriminator_learns_to_tell_noise_from_tones(discriminator):
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-2)
    times = torch.arange(800) / 16_000
    tones, noise = torch.sin(2 * torch.pi * torch.tensor([[300.0], [900.0]]) * times), torch.randn(2, 800)
    losses = []
    for _ in range(30):
        loss = discriminator_loss(discriminator(tones), discriminator(noise))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 < losses[0]
