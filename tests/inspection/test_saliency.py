"""Saliency in colours: a hue for each side, see-through where weak, never lost among neighbours."""

from __future__ import annotations

import torch

from audiolm.inspection.saliency import AGAINST, FOR, painted


def test_each_side_has_its_colour_high_bands_are_on_top_and_the_rest_is_seen_through():
    saliency = torch.zeros(4, 10)
    saliency[0, 2], saliency[3, 7] = 1.0, -1.0
    picture = painted(saliency, 100)
    assert picture.shape == (4, 10, 4)
    assert tuple(picture[3, 2]) == (*FOR, 255)
    assert tuple(picture[0, 7]) == (*AGAINST, 255)
    assert int((picture[..., 3] > 0).sum()) == 2


def test_weaker_cells_are_paler_and_a_few_strong_ones_do_not_pale_the_rest():
    saliency = torch.full((10, 100), 0.5)
    saliency[:5] = 1.0
    saliency[0, 0] = 1000.0
    alpha = painted(saliency, 100)[..., 3]
    assert set(alpha[5:].flatten().tolist()) == {255}
    assert set(alpha[:5].flatten().tolist()) == {128}


def test_of_many_frames_the_strongest_of_neighbours_is_kept_with_its_sign():
    saliency = torch.full((1, 1000), 0.1)
    saliency[0, 503] = -1.0
    picture = painted(saliency, 100)
    assert picture.shape == (1, 100, 4)
    assert tuple(picture[0, 50, :3]) == AGAINST
    assert tuple(picture[0, 49, :3]) == FOR


def test_nothing_that_spoke_is_nothing_to_see():
    assert painted(torch.zeros(4, 10), 100)[..., 3].max() == 0
