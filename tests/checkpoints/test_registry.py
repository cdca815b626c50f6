from pathlib import Path

import pytest

from audiolm.checkpoints import embedded, registry
from audiolm.errors import CheckpointError
from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    make_tiny_checkpoint(folder / "a-piano", domain="piano")
    make_tiny_checkpoint(folder / "b-speech", domain="speech")
    (folder / "notes").mkdir()
    return folder


def test_embedded_checkpoints_are_listed_speech_first(assets: Path):
    assert [info.folder.name for info in registry.available(assets)] == ["b-speech", "a-piano"]


def test_a_broken_embedded_checkpoint_is_logged_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    make_tiny_checkpoint(tmp_path / "good")
    make_tiny_checkpoint(tmp_path / "broken")
    (tmp_path / "broken" / "codec.safetensors").unlink()
    assert [info.folder.name for info in registry.available(tmp_path)] == ["good"]
    assert "codec.safetensors: missing" in caplog.text


def test_a_name_and_a_folder_load_the_same_checkpoint(assets: Path):
    by_name = registry.load("a-piano", assets=assets)
    by_folder = registry.load(str(assets / "a-piano"))
    assert by_name.info.sha256 == by_folder.info.sha256
    assert by_name.info.domain == "piano"


def test_a_relative_folder_that_looks_like_a_hub_id_is_a_folder(assets: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(assets.parent)
    assert registry.resolve(f"{assets.name}/a-piano") == Path(assets.name) / "a-piano"


@pytest.mark.parametrize("source", ["nothing-here", "", "/nowhere/at/all", "a/b/c", "http://127.0.0.1/x"])
def test_what_is_neither_name_nor_folder_nor_id_is_refused_with_the_known_names(assets: Path, source: str):
    with pytest.raises(CheckpointError, match=r"no embedded checkpoint \(a-piano, b-speech\)"):
        registry.resolve(source, assets=assets)


def test_a_revision_goes_with_hub_ids_only(assets: Path):
    with pytest.raises(CheckpointError, match="a revision goes with a Hub id"):
        registry.resolve("a-piano", revision="main", assets=assets)


def test_embedded_checkpoints_of_the_repository_can_be_read():
    assert [info.folder.name for info in registry.available()] == sorted(
        embedded.names(), key=lambda name: (not name.startswith("speech"), name)
    )
