import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from audiolm.checkpoints import hub, load_checkpoint, read_info
from audiolm.errors import CheckpointError
from tests.checkpoints.fake_hub import TOKEN, FakeHub, serve
from tests.tiny import CARD, make_tiny_checkpoint


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    with serve() as running:
        yield running


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_hub_checkpoint_is_fetched_and_loads(server: FakeHub, checkpoint: Path, tmp_path: Path):
    server.create("someone/tiny", content_of(checkpoint))
    folder = hub.fetch("someone/tiny", cache_dir=tmp_path / "cache", endpoint=server.url)
    assert load_checkpoint(folder).info.sha256 == read_info(checkpoint).sha256


def test_only_config_weights_and_card_are_downloaded(server: FakeHub, checkpoint: Path, tmp_path: Path):
    others = {"model.pt": b"pickle", "train.py": b"print()", "old/codec.safetensors": b"old", ".gitattributes": b"x"}
    server.create("someone/tiny", content_of(checkpoint) | others)
    hub.fetch("someone/tiny", cache_dir=tmp_path / "cache", endpoint=server.url)
    assert sorted(server.downloads()) == sorted(content_of(checkpoint))


def test_what_is_cached_is_not_downloaded_again_and_serves_offline(checkpoint: Path, tmp_path: Path):
    with serve() as server:
        sha = server.create("someone/tiny", content_of(checkpoint)).refs["main"]
        where = {"cache_dir": tmp_path / "cache", "endpoint": server.url}
        folder = hub.fetch("someone/tiny", **where)
        server.requests.clear()
        assert hub.fetch("someone/tiny", **where) == folder
        assert server.downloads() == []
    assert hub.fetch("someone/tiny", **where) == folder
    assert hub.fetch("someone/tiny", sha, **where) == folder
    load_checkpoint(folder)


def test_a_revision_is_a_branch_or_a_commit(server: FakeHub, checkpoint: Path, tmp_path: Path):
    repository = server.create("someone/tiny", content_of(checkpoint))
    first = repository.refs["main"]
    other = make_tiny_checkpoint(tmp_path / "other", domain="piano", seed=1)
    repository.commit(content_of(other.folder), "piano")
    repository.commit(content_of(other.folder), "main")
    where = {"cache_dir": tmp_path / "cache", "endpoint": server.url}
    assert read_info(hub.fetch("someone/tiny", **where)).domain == "piano"
    assert read_info(hub.fetch("someone/tiny", "piano", **where)).domain == "piano"
    assert read_info(hub.fetch("someone/tiny", first, **where)).domain == "speech"
    with pytest.raises(CheckpointError, match="someone/tiny at v9: the repository has no such revision"):
        hub.fetch("someone/tiny", "v9", **where)


def test_an_unknown_or_gated_repository_is_refused(server: FakeHub, checkpoint: Path, tmp_path: Path):
    where = {"cache_dir": tmp_path / "cache", "endpoint": server.url}
    with pytest.raises(CheckpointError, match="someone/none: no such repository on the Hub"):
        hub.fetch("someone/none", **where)
    server.create("someone/gated", content_of(checkpoint)).gated = True
    with pytest.raises(CheckpointError, match="someone/gated: access must be asked for"):
        hub.fetch("someone/gated", **where)


def test_an_unreachable_hub_without_a_copy_is_said_plainly(tmp_path: Path):
    with serve() as server:
        url = server.url
    with pytest.raises(CheckpointError, match="the Hub cannot be reached, and no complete copy is cached"):
        hub.fetch("someone/tiny", cache_dir=tmp_path / "cache", endpoint=url)


def test_a_repository_over_the_limit_is_not_downloaded(server: FakeHub, checkpoint: Path, tmp_path: Path):
    server.create("someone/large", content_of(checkpoint))
    with pytest.raises(CheckpointError, match="the limits are 1024 files and 1000 bytes"):
        hub.fetch("someone/large", cache_dir=tmp_path / "cache", endpoint=server.url, max_bytes=1000)
    assert server.downloads() == []


def test_a_repository_without_a_checkpoint_is_refused(server: FakeHub, tmp_path: Path):
    server.create("someone/else", {"README.md": b"# other", "pytorch_model.bin": b"x"})
    with pytest.raises(CheckpointError, match=r"no config\.json in it"):
        hub.fetch("someone/else", cache_dir=tmp_path / "cache", endpoint=server.url)


def test_a_file_changed_on_the_hub_is_refused_when_loaded(server: FakeHub, checkpoint: Path, tmp_path: Path):
    files = content_of(checkpoint)
    files["codec.safetensors"] = files["codec.safetensors"][:-1] + b"\x7f"
    server.create("someone/tampered", files)
    folder = hub.fetch("someone/tampered", cache_dir=tmp_path / "cache", endpoint=server.url)
    with pytest.raises(CheckpointError, match=r"codec\.safetensors: its SHA-256"):
        load_checkpoint(folder)


def test_what_is_pushed_comes_back_the_same(server: FakeHub, checkpoint: Path, tmp_path: Path):
    (checkpoint / "private-notes.txt").write_text("not part of it")
    (checkpoint / "README.md").write_text(f"{CARD}![Losses](losses.png)")
    (checkpoint / "losses.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    url = hub.push(checkpoint, "someone/new", endpoint=server.url, token=TOKEN)
    repository = server.repositories["someone/new"]
    assert url.endswith(repository.refs["main"])
    assert "private-notes.txt" not in repository.commits[repository.refs["main"]]
    assert hashlib.sha256((checkpoint / "codec.safetensors").read_bytes()).hexdigest() in server.stored
    folder = hub.fetch("someone/new", cache_dir=tmp_path / "cache", endpoint=server.url)
    assert load_checkpoint(folder).info.sha256 == read_info(checkpoint).sha256
    assert (folder / "losses.png").read_bytes() == (checkpoint / "losses.png").read_bytes()


def test_a_push_is_one_commit_that_takes_stale_weights_away(server: FakeHub, checkpoint: Path):
    repository = server.create("someone/old", {"codec-00001-of-00002.safetensors": b"old", "sample.wav": b"kept"})
    hub.push(checkpoint, "someone/old", endpoint=server.url, token=TOKEN)
    assert len(repository.commits) == 2
    assert set(repository.commits[repository.refs["main"]]) == {*content_of(checkpoint), "sample.wav"}


def test_a_push_without_a_token_is_refused_plainly(server: FakeHub, checkpoint: Path):
    with pytest.raises(CheckpointError, match="someone/new: the Hub refuses this token"):
        hub.push(checkpoint, "someone/new", endpoint=server.url, token="wrong")
    assert not server.repositories


def test_a_broken_checkpoint_is_not_pushed(server: FakeHub, checkpoint: Path):
    (checkpoint / "codec.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"codec\.safetensors: truncated"):
        hub.push(checkpoint, "someone/new", endpoint=server.url, token=TOKEN)
    assert not server.requests


def test_a_card_the_hub_does_not_take_is_not_pushed(server: FakeHub, checkpoint: Path):
    (checkpoint / "README.md").write_text("# no front matter")
    with pytest.raises(CheckpointError, match=r"Invalid metadata in README\.md\. - front matter"):
        hub.push(checkpoint, "someone/new", endpoint=server.url, token=TOKEN)


def test_the_command_line_pushes_and_pulls_at_hf_endpoint(checkpoint: Path, tmp_path: Path):
    script = (
        "import sys; from audiolm.cli import main\n"
        "sys.exit(main(['checkpoints', 'push', sys.argv[1], 'someone/new'])"
        " or main(['checkpoints', 'pull', 'someone/new', '--revision', 'main'])"
        " or main(['checkpoints', 'verify', 'someone/new']))"
    )
    with serve() as server:
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-c", script, str(checkpoint)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"sha256 {read_info(checkpoint).sha256[:16]}") == 2
