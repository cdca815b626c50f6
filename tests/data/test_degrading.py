import pytest
import torch

from audiolm.data import degrading


def clip() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.sin(torch.arange(32_000) * 0.1) + 0.02 * torch.randn(32_000, generator=generator)


@pytest.mark.parametrize("name", ["mp3", "opus", "noise", "narrow", "overdrive", "room", "tone"])
def test_every_change_keeps_length_and_sense_and_repeats_with_its_generator(name):
    change, waveform = getattr(degrading, name), clip()
    changed = change(waveform, torch.Generator().manual_seed(1))
    assert changed.shape == waveform.shape
    assert torch.equal(changed, change(waveform, torch.Generator().manual_seed(1)))
    assert not torch.allclose(changed, waveform, atol=1e-3)
    similarity = torch.cosine_similarity(changed[500:-500], waveform[500:-500], dim=0)
    assert 0.3 < float(similarity) < 0.99999


def test_another_speed_changes_the_length_by_at_most_what_is_said():
    lengths = {len(degrading.speed(clip(), torch.Generator().manual_seed(seed))) / 32_000 for seed in range(40)}
    assert 1 / degrading.MOST_FASTER < min(lengths) < 0.95
    assert 1.05 < max(lengths) < 1.08


def test_drawn_changes_are_named_and_some_come_in_twos():
    names = [degrading.degrade(clip(), torch.Generator().manual_seed(seed))[1] for seed in range(60)]
    assert {part for name in names for part in name.split(" + ")} == set(degrading._CHANGES)
    assert 0.15 < sum(" + " in name for name in names) / 60 < 0.5


def test_loud_clips_pass_through_files_unclipped():
    loud = 8 * clip()
    assert float(degrading.mp3(loud, torch.Generator().manual_seed(3)).abs().max()) > 0.9 * float(loud.abs().max())
