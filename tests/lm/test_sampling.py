import pytest
import torch

from audiolm.config import SamplingConfig
from audiolm.lm.sampling import BLOCK_STEPS, RowSampling, sample, truncate

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 3.0, float("-inf"), 1.0]])


def test_temperature_zero_takes_the_likeliest():
    assert sample(LOGITS, torch.tensor([0.9, 0.9]), SamplingConfig(temperature=0.0)).tolist() == [0, 1]


def test_samples_follow_the_softmax():
    count = 20_000
    uniforms = torch.rand(count, generator=torch.Generator().manual_seed(0))
    drawn = sample(LOGITS[:1].expand(count, -1), uniforms, SamplingConfig())
    shares = torch.bincount(drawn, minlength=4) / count
    assert torch.allclose(shares, LOGITS[0].softmax(0), atol=0.015)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
def test_ids_of_probability_zero_are_never_taken(uniform):
    closed = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]])
    assert sample(closed, torch.tensor([uniform]), SamplingConfig()).item() in (1, 2)


def test_top_k_keeps_the_k_largest():
    assert torch.isfinite(truncate(LOGITS, 2, 1.0)).tolist() == [[True, True, False, False], [False, True, False, True]]


def test_top_p_keeps_the_smallest_set_that_reaches_p_and_at_least_one():
    probabilities = torch.tensor([[0.2, 0.5, 0.3]]).log()
    assert torch.isfinite(truncate(probabilities, 0, 0.6)).tolist() == [[False, True, True]]
    assert torch.isfinite(truncate(probabilities, 0, 1e-6)).tolist() == [[False, True, False]]


def test_a_row_draws_the_same_numbers_alone_and_in_a_batch():
    def draw(*seeds):
        rows = RowSampling(len(seeds), 3, torch.device("cpu"))
        for row, seed in enumerate(seeds):
            rows.join(row, SamplingConfig(), torch.Generator().manual_seed(seed))
        return torch.stack([rows.draw([*range(len(seeds))], len(seeds)) for _ in range(BLOCK_STEPS + 5)], dim=1)

    assert torch.equal(draw(5, 7)[1], draw(7)[0])


def test_rows_of_other_settings_are_sampled_as_alone():
    configs = [
        SamplingConfig(temperature=0.0),
        SamplingConfig(top_k=2),
        SamplingConfig(2.0, top_p=0.6),
        SamplingConfig(),
    ]
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    uniforms = torch.tensor([0.3, 0.99, 0.7, 0.5])
    rows = RowSampling(4, 1, torch.device("cpu"))
    for row, config in enumerate(configs):
        rows.join(row, config, torch.Generator())
    alone = [sample(logits[row, None], uniforms[row, None], config).item() for row, config in enumerate(configs)]
    assert rows.choose(logits, uniforms).tolist() == alone
