import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from audiolm.data.pairs import GAP_SIZES, MOST_SURPLUS, PairBalance, PairSet, PairWriter, pair_gaps
from audiolm.errors import DataError
from audiolm.evaluation.detection.shortcuts import best_threshold

META = {"length": 800, "join": 300, "made_for": {}}


def rows(count: int, length: int = 1_100, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, length, generator=torch.Generator().manual_seed(seed)) - 0.5


def notes(count: int) -> list[dict]:
    return [{"item": str(n), "group": "a"} for n in range(count)]


def levelled(clips: torch.Tensor) -> torch.Tensor:
    """Generated and original [2, T] without offset, both at the original's level."""
    centred = clips - clips.mean(dim=1, keepdim=True)
    return centred * (centred[1].std() / centred.std(dim=1, keepdim=True))


def write(folder: Path, split: str = "train") -> PairWriter:
    writer = PairWriter(folder, split, META)
    writer.add(rows(2), rows(2, seed=1), notes(2))
    writer.add_unpaired(rows(3, 800, seed=2), [note | {"levels": 4} for note in notes(3)])
    return writer


def test_pairs_start_after_their_prompt_and_spliced_clips_before_it(tmp_path):
    write(tmp_path)
    pairs = PairSet(tmp_path, "train")
    assert (pairs.num_rows, pairs.num_unpaired, pairs.length, pairs.join) == (2, 3, 800, 300)
    assert torch.allclose(pairs.spliced(1), torch.stack([rows(2)[1], rows(2, seed=1)[1]]), atol=1e-4)
    torch.testing.assert_close(pairs.pair(1, 100, 50), levelled(pairs.spliced(1)[:, 400:450]))
    assert torch.allclose(pairs.original(2, 10, 20), rows(3, 800, seed=2)[2, 10:30], atol=1e-4)
    assert pairs.unpaired[2]["levels"] == 4


def test_writing_goes_on_after_what_was_noted(tmp_path):
    write(tmp_path)
    for name in ("generated", "original", "unpaired"):
        with open(tmp_path / f"train/{name}.int16", "ab") as file:
            file.write(b"audio whose line was never written")
    writer = write(tmp_path)
    assert (writer.num_rows, writer.num_unpaired) == (4, 6)
    pairs = PairSet(tmp_path, "train")
    assert torch.equal(pairs.spliced(2), pairs.spliced(0))
    assert torch.equal(pairs.original(5, 0, 800), pairs.original(2, 0, 800))


def test_folders_of_the_first_format_have_no_prompts_and_no_further_originals(tmp_path):
    writer = PairWriter(tmp_path, "valid", {"length": 1_100})
    writer.add(rows(1), rows(1, seed=1), notes(1))
    (tmp_path / "valid/unpaired.int16").unlink()
    pairs = PairSet(tmp_path, "valid")
    assert (pairs.join, pairs.num_unpaired) == (0, 0)
    torch.testing.assert_close(pairs.pair(0, 0, 1_100), levelled(pairs.spliced(0)))


def low_passed(waveforms: torch.Tensor) -> torch.Tensor:
    spectra = torch.fft.rfft(waveforms)
    spectra[:, spectra.shape[1] // 2 :] = 0
    return torch.fft.irfft(spectra, waveforms.shape[1])


def of(gaps: list[dict[str, float]], name: str) -> list[float]:
    return [gap[name] for gap in gaps]


def test_the_gaps_of_a_pair_are_what_the_generated_one_is_wider_and_more_silent_whatever_the_offsets():
    wide = rows(2, 16_000)
    narrow, quiet = low_passed(wide), wide.clone()
    quiet[:, :4_000] = 0.0
    assert pair_gaps(wide, wide) == [{"wider": 0, "more_silent": 0.0}] * 2
    gaps = pair_gaps(wide + 0.3, narrow)
    assert min(of(gaps, "wider")) > 10
    assert of(pair_gaps(narrow, wide), "wider") == [-gap for gap in of(gaps, "wider")]
    centred = quiet - quiet.mean(dim=1, keepdim=True)  # what an offset leaves of a pause
    assert of(pair_gaps(centred, wide), "more_silent") == [0.24, 0.24]
    assert of(pair_gaps(wide, centred + 0.3), "more_silent") == [-0.24, -0.24]


def test_neither_kind_ends_up_wider_or_more_silent_however_often_one_is():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 6_000, generator=generator)
    wider, more_silent = (2 + 4 * noise[0]).round().int().tolist(), (0.02 + 0.05 * noise[1]).tolist()
    gaps = [{"wider": w, "more_silent": m} for w, m in zip(wider, more_silent, strict=True)]
    balance = PairBalance()
    kept = [gap for gap in gaps if balance.takes(gap)]
    assert len(kept) > 0.25 * len(gaps)
    for name, sizes in GAP_SIZES.items():
        for first, after in itertools.pairwise((*sizes, 1_000)):
            of_size = [gap for gap in of(kept, name) if first <= abs(gap) < after]
            assert abs(sum(gap > 0 for gap in of_size) - sum(gap < 0 for gap in of_size)) <= MOST_SURPLUS
    for name, mean, spread in (("wider", 72, 6), ("more_silent", 0.2, 0.08)):
        originals = mean + spread * torch.randn(len(kept), generator=generator).numpy()
        values = np.concatenate([originals + np.array(of(kept, name)), originals])
        generated = np.arange(len(values)) < len(kept)
        edge, above = best_threshold(values, generated)
        assert (((values >= edge) == above) == generated).mean() < 0.55  # all of them: .64 and .60


def test_the_balance_goes_on_from_what_the_folder_has(tmp_path):
    wide = rows(6)
    narrow = torch.cat([wide[:, :300], low_passed(wide[:, 300:])], dim=1)
    assert PairWriter(tmp_path, "train", META).add_balanced(wide, narrow, notes(6)) == 2
    with open(tmp_path / "train/rows.jsonl", "a") as file:
        file.write('{"item": "a line that a run was kil')
    writer = PairWriter(tmp_path, "train", META)
    assert writer.add_balanced(wide, narrow, notes(6)) == 0
    assert writer.add_balanced(narrow, wide, notes(6), most=3) == 3
    assert writer.add_balanced(narrow, wide, notes(6)) == 1
    pairs = PairSet(tmp_path, "train")
    assert [row["wider"] > 0 for row in pairs.rows] == [True] * 2 + [False] * 4
    assert (writer.num_left_out, pairs.num_left_out) == (15, 15)


def test_pairs_that_were_not_balanced_are_not_added_to(tmp_path):
    writer = write(tmp_path)
    with pytest.raises(DataError, match="not balanced \\(wider, more_silent\\)"):
        writer.add_balanced(rows(1), rows(1, seed=1), notes(1))
    writer = PairWriter(tmp_path / "bands", "train", META)
    writer.add(rows(1), rows(1, seed=1), [{"item": "0", "group": "a", "wider": 0}])
    assert PairSet(tmp_path / "bands", "train").balanced == ["wider"]
    with pytest.raises(DataError, match="not balanced \\(more_silent\\)"):
        writer.add_balanced(rows(1), rows(1, seed=1), notes(1))


def test_foreign_and_damaged_folders_are_refused(tmp_path):
    writer = write(tmp_path)
    with pytest.raises(DataError, match="another checkpoint or length"):
        PairWriter(tmp_path, "train", META | {"join": 0})
    with pytest.raises(DataError, match="1100 samples, found 800"):
        writer.add(rows(1, 800), rows(1), notes(1))
    with pytest.raises(DataError, match="split valid"):
        PairSet(tmp_path, "valid")
    (tmp_path / "train/original.int16").write_bytes(b"\0\0")
    with pytest.raises(DataError, match="split train"):
        PairSet(tmp_path, "train")
    (tmp_path / "meta.json").write_text(json.dumps({"length": "long"}))
    with pytest.raises(DataError, match="not a folder of detector data"):
        PairSet(tmp_path, "train")
