import pytest
import torch

from audiolm.errors import ConfigError
from audiolm.semantic.kmeans import assign, fit_kmeans, seed_centroids, usage


def blobs(num_blobs: int, per_blob: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    centres = 10 * torch.randn(num_blobs, 6, generator=generator)
    noise = 0.1 * torch.randn(num_blobs, per_blob, 6, generator=generator)
    return (centres[:, None] + noise).flatten(0, 1), centres


def test_well_separated_clusters_are_found() -> None:
    points, centres = blobs(8, 50)
    centroids = fit_kmeans(points, 8, torch.Generator().manual_seed(0), batch_size=64)
    assert torch.cdist(centres, centroids).amin(dim=1).max() < 0.2


def test_the_same_generator_state_gives_the_same_centroids() -> None:
    points, _ = blobs(5, 40)
    first, second = (fit_kmeans(points, 7, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_assignment_is_the_nearest_centroid() -> None:
    torch.manual_seed(0)
    points, centroids = torch.randn(3, 40, 6), torch.randn(9, 6)
    ids, distances = assign(points, centroids)
    expected = torch.cdist(points, centroids.expand(3, -1, -1))
    assert torch.equal(ids, expected.argmin(dim=-1))
    torch.testing.assert_close(distances, expected.amin(dim=-1).square(), atol=1e-4, rtol=1e-4)


def test_no_cluster_is_left_dead_on_spread_points() -> None:
    points = torch.rand(4000, 4, generator=torch.Generator().manual_seed(1))
    centroids = fit_kmeans(points, 50, torch.Generator().manual_seed(0), batch_size=512)
    perplexity, _ = usage(assign(points, centroids)[0], 50)
    assert perplexity > 42


def test_identical_points_do_not_break_the_start() -> None:
    assert seed_centroids(torch.ones(20, 3), 4, torch.Generator().manual_seed(0)).shape == (4, 3)


def test_fewer_points_than_clusters_are_refused() -> None:
    with pytest.raises(ConfigError, match="found 3"):
        fit_kmeans(torch.randn(3, 2), 4, torch.Generator())


def test_usage_of_uniform_and_constant_ids() -> None:
    assert usage(torch.arange(8), 8) == (pytest.approx(8.0), 0.0)
    assert usage(torch.zeros(8, dtype=torch.long), 8) == (pytest.approx(1.0, abs=1e-4), 1.0)
