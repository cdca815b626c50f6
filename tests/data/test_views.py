from pathlib import Path

import pytest
import torch

from audiolm.data.views import ViewSet, ViewWriter, num_figure_frames, num_mel_frames
from audiolm.errors import DataError


def frames(length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mels = torch.randn(2, 5, num_mel_frames(length), generator=generator)
    return mels.half().float(), torch.randn(2, 3, num_figure_frames(length), generator=generator).half().float()


def write(folder: Path) -> ViewWriter:
    (folder / "train").mkdir(parents=True, exist_ok=True)
    writer = ViewWriter(folder, "train", 5, 3, 1)
    for seed, length in enumerate((16_000, 40_000)):
        writer.add(*frames(length, seed), [{"length": length, "row": row} for row in range(2)])
    return writer


def test_crops_of_views_are_what_was_written(tmp_path):
    write(tmp_path)
    views = ViewSet(tmp_path, "train")
    assert [note["length"] for note in views.notes] == [16_000, 16_000, 40_000, 40_000]
    mels, figures = views.crop(3, 16_000, 24_000)
    all_mels, all_figures = frames(40_000, 1)
    assert torch.equal(mels, all_mels[1, :, 128 : 128 + 193])
    assert torch.equal(figures, all_figures[1, :, 25 : 25 + 37])


def test_writing_goes_on_after_what_was_noted(tmp_path):
    write(tmp_path)
    with open(tmp_path / "train/mels.float16", "ab") as file:
        file.write(b"frames whose line was never written")
    with open(tmp_path / "train/views.jsonl", "a") as file:
        file.write('{"length": 16000, "ro')
    assert len(write(tmp_path).notes) == 8
    views = ViewSet(tmp_path, "train")
    for ours, theirs in zip(views.crop(7, 0, 40_000), views.crop(3, 0, 40_000), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", [(6, 3, 1), (5, 4, 1), (5, 3, 2)])
def test_views_of_another_kind_are_refused(tmp_path, kind):
    write(tmp_path)
    with pytest.raises(DataError, match="views of another kind"):
        ViewWriter(tmp_path, "train", *kind)


def test_views_of_an_unknown_kind_are_not_added_to(tmp_path):
    write(tmp_path)
    (tmp_path / "train/views.json").unlink()
    with pytest.raises(DataError, match="views of another kind"):
        write(tmp_path)


def test_missing_views_are_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match="split test: no usable views"):
        ViewSet(tmp_path, "test")
    (tmp_path / "train/figures.float16").write_bytes(b"\0\0")
    with pytest.raises(DataError, match="split train: no usable views"):
        ViewSet(tmp_path, "train")
