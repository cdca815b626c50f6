"""Clusters that were moved for the phones' sake tell more of them, and stay clusters of the features."""

import pytest
import torch

from audiolm.data.phones import UNKNOWN
from audiolm.errors import DataError
from audiolm.semantic.kmeans import assign, fit_kmeans
from audiolm.training.phone_clusters import around, move_to_phones


def heard(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points whose widest directions say nothing and whose narrow one says which of two phones is heard."""
    generator = torch.Generator().manual_seed(seed)
    phones = torch.randint(2, (count,), generator=generator)
    points = torch.randn(count, 4, generator=generator)
    points[:, 3] = 0.3 * points[:, 3] + 0.6 * (2 * phones - 1)
    return points, 2 + phones


def told(points: torch.Tensor, labels: torch.Tensor, centroids: torch.Tensor) -> float:
    """Share of positions whose phone is the commonest one of their cluster."""
    counts = torch.zeros(len(centroids), 4)
    counts.index_put_((assign(points, centroids)[0], labels), torch.ones(len(points)), accumulate=True)
    return float(counts.amax(dim=1).sum() / len(points))


def test_centroids_move_to_where_phones_differ() -> None:
    points, labels = heard(8_000, 0)
    others, their_labels = heard(4_000, 1)
    centroids = fit_kmeans(points, 6, torch.Generator().manual_seed(0))
    context = torch.stack([torch.full_like(labels, UNKNOWN), labels, torch.full_like(labels, UNKNOWN)], dim=1)
    context[::2] = UNKNOWN  # half of it is not aligned
    moved = move_to_phones(points, context, centroids, torch.Generator().manual_seed(0))
    again = move_to_phones(points, context, centroids, torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)
    assert told(others, their_labels, moved) > told(others, their_labels, centroids) + 0.1
    before, after = (float(assign(others, one)[1].mean()) for one in (centroids, moved))
    assert after < 1.5 * before  # still clusters of what is heard


@pytest.mark.parametrize("column", [0, 2])
def test_what_comes_before_and_after_counts_too(column: int) -> None:
    points, labels = heard(8_000, 0)
    others, their_labels = heard(4_000, 1)
    context = torch.full((len(points), 3), UNKNOWN)
    context[:, 1], context[:, column] = 3, labels  # the position's own phone is always the same
    centroids = fit_kmeans(points, 6, torch.Generator().manual_seed(0))
    moved = move_to_phones(points, context, centroids, torch.Generator().manual_seed(0))
    assert told(others, their_labels, moved) > told(others, their_labels, centroids) + 0.05


def test_points_that_are_their_own_clusters_stay_finite() -> None:
    points, labels = heard(6, 0)
    assert move_to_phones(points, around(labels), points.clone(), torch.Generator()).isfinite().all()


def test_what_is_heard_around_a_position_ends_with_the_sound() -> None:
    assert around(torch.tensor([4, 5, 6])).tolist() == [[UNKNOWN, 4, 5], [4, 5, 6], [5, 6, UNKNOWN]]


def test_clusters_cannot_be_moved_where_no_phone_is_known() -> None:
    points, labels = heard(100, 0)
    with pytest.raises(DataError, match=r"no phone of these recordings is known"):
        move_to_phones(points, around(torch.full_like(labels, UNKNOWN)), points[:5], torch.Generator())
