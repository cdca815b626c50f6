import torch

from audiolm.detector.scope import fit_scope, scope_distances, scope_limit


def clips(count: int, seed: int) -> torch.Tensor:
    """[count, 6] of directions that go together, on scales from 0.3 to 3."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, 6, generator=generator)
    mixed[:, 1] += 3 * mixed[:, 0]
    return mixed * torch.logspace(-0.5, 0.5, 6) + 5


def test_distances_are_about_one_for_clips_like_those_of_the_fit_and_large_off_their_directions():
    fitted = fit_scope(clips(4_000, 0))
    assert abs(float(scope_distances(clips(4_000, 1), *fitted).square().mean()) - 1) < 0.1
    unlike = fitted[0].clone()
    unlike[0] += 0.9  # as large as usual for either alone, but the second should have followed
    unlike[1] -= 4.5
    assert float(scope_distances(unlike[None], *fitted)[0]) > 3


def test_nearly_all_other_clips_lie_within_the_limit():
    fitted = fit_scope(clips(1_000, 0))
    limit = scope_limit(scope_distances(clips(1_000, 1), *fitted))
    within = scope_distances(clips(4_000, 2), *fitted) <= limit
    assert 0.92 < float(within.float().mean()) < 0.96
