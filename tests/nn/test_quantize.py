import torch

from audiolm.config import QuantizerConfig
from audiolm.nn.quantize import ResidualQuantizer, draw_levels, perplexity

CONFIG = QuantizerConfig(num_levels=4, codebook_size=32, dimension=8)


def _trained(generator: torch.Generator) -> tuple[ResidualQuantizer, torch.Tensor]:
    latents = torch.randn(2000, 8, generator=generator)
    quantizer = ResidualQuantizer(CONFIG)
    quantizer.initialise(latents, generator)
    return quantizer, latents.reshape(4, 500, 8)


def test_every_further_level_lowers_the_error_after_kmeans_start():
    quantizer, latents = _trained(torch.Generator().manual_seed(0))
    codes = quantizer.encode(latents)
    errors = [float((quantizer.decode(codes[..., :q]) - latents).square().mean()) for q in range(1, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.3 * errors[0]


def test_fewer_levels_are_a_prefix_of_more_levels():
    quantizer, latents = _trained(torch.Generator().manual_seed(1))
    assert torch.equal(quantizer.encode(latents, 2), quantizer.encode(latents)[..., :2])


def test_straight_through_passes_the_gradient_unchanged():
    quantizer, latents = _trained(torch.Generator().manual_seed(2))
    latents = latents.clone().requires_grad_()
    quantised, _, _ = quantizer.eval()(latents)
    quantised.sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))


def test_rows_with_fewer_levels_use_only_these():
    quantizer, latents = _trained(torch.Generator().manual_seed(3))
    quantised, codes, _ = quantizer.eval()(latents, torch.tensor([1, 2, 3, 4]))
    for row, levels in enumerate((1, 2, 3, 4)):
        expected = quantizer.decode(codes[row : row + 1, :, :levels])[0]
        assert torch.allclose(quantised[row], expected, atol=1e-5)


def test_rows_of_depth_0_pass_unchanged_and_cost_nothing():
    quantizer, latents = _trained(torch.Generator().manual_seed(6))
    quantizer.eval()
    quantised, _, commitment = quantizer(latents, torch.tensor([0, 4, 0, 4]))
    assert torch.equal(quantised[[0, 2]], latents[[0, 2]])
    assert not torch.equal(quantised[1], latents[1])
    assert torch.allclose(commitment, quantizer(latents[[1, 3]])[2])
    assert quantizer(latents, torch.zeros(4))[2] == 0


def test_dead_codes_are_revived_from_the_batch():
    quantizer, latents = _trained(torch.Generator().manual_seed(4))
    quantizer.codebooks[0, 5] = 1000.0
    quantizer.reset_statistics()
    quantizer.train()
    for _ in range(400):
        quantizer(latents)
    assert quantizer.codebooks[0, 5].abs().max() < 10.0
    assert 5 in quantizer.encode(latents, 1)


def test_moving_average_follows_a_shifted_distribution():
    quantizer, latents = _trained(torch.Generator().manual_seed(5))
    before = float((quantizer.decode(quantizer.encode(latents + 3)) - latents - 3).square().mean())
    quantizer.train()
    for _ in range(500):
        quantizer(latents + 3)
    after = float((quantizer.decode(quantizer.encode(latents + 3)) - latents - 3).square().mean())
    assert after < 0.5 * before


def test_levels_are_drawn_in_the_shares_of_the_config():
    levels = draw_levels(20_000, CONFIG, torch.Generator().manual_seed(0))
    shares = torch.bincount(levels, minlength=5) / len(levels)
    # 0.2 are not quantised, 0.4 have all levels, and what remains is spread over 1..4.
    assert torch.allclose(shares, torch.tensor([0.2, 0.1, 0.1, 0.1, 0.5]), atol=0.02)


def test_perplexity_of_uniform_use_is_the_codebook_size():
    codes = torch.arange(32).repeat(3)[:, None]
    assert torch.allclose(perplexity(codes, 32), torch.tensor([32.0]), rtol=1e-5)
    assert torch.allclose(perplexity(torch.zeros(9, 1, dtype=torch.long), 32), torch.tensor([1.0]))
