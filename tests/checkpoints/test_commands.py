import argparse
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from audiolm.checkpoints import commands, load_checkpoint, read_info
from audiolm.checkpoints.components import MADE_FOR
from audiolm.checkpoints.tensors import component_hash, token_hash
from audiolm.config import USUAL_SAMPLING
from audiolm.errors import CheckpointError
from tests.checkpoints.test_card import FACTS
from tests.tiny import CARD, tiny_modules


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    return commands.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Run folders of a whole set, as training leaves them."""
    modules = tiny_modules(seed=3)
    tokens = {name: token_hash(modules[name].state_dict()) for name in ("codec", "semantic")}
    folders = {}
    for name, module in modules.items():
        folders[name] = tmp_path / "runs" / name
        folders[name].mkdir(parents=True)
        made_for = {} if name in tokens else tokens
        if name == "detector":
            made_for = {part: component_hash(modules[part].state_dict()) for part in MADE_FOR["detector"]}
        config = {"component": name, "config": module.config.to_dict(), "made_for": made_for}
        (folders[name] / "config.json").write_text(json.dumps(config))
        save_file(module.state_dict(), folders[name] / "weights.safetensors")
    return folders


def options(folders: dict[str, Path]) -> list[object]:
    return [part for name, folder in folders.items() for part in ("--" + name.replace("_", "-"), folder)]


def test_runs_are_assembled_into_a_checkpoint_with_a_card(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "card.json").write_text(json.dumps(FACTS))
    assert run("assemble", tmp_path / "out", "--card", tmp_path / "card.json", *options(runs)) == 0
    info = load_checkpoint(tmp_path / "out").info
    assert (info.name, info.domain, info.summary) == (FACTS["name"], FACTS["domain"], FACTS["summary"])
    assert "## Limits" in info.card
    assert info.components["codec"].hash == component_hash(tiny_modules(seed=3)["codec"].state_dict())
    assert "English read speech, 9 hours." in capsys.readouterr().out


def test_what_the_runs_lack_comes_from_an_older_checkpoint(runs: dict[str, Path], tmp_path: Path):
    (tmp_path / "card.md").write_text(CARD)
    labels = ["--name", "first", "--domain", "piano", "--summary", "first", "--card", tmp_path / "card.md"]
    run("assemble", tmp_path / "out", *labels, *options(runs))
    before = read_info(tmp_path / "out")
    run(
        "assemble", tmp_path / "out", "--from", tmp_path / "out", "--name", "second", "--stage-fine", runs["stage_fine"]
    )
    after = load_checkpoint(tmp_path / "out").info
    assert (after.name, after.domain, after.card) == ("second", "piano", CARD)
    assert after.components == before.components
    run("assemble", tmp_path / "out", "--from", tmp_path / "out", "--without-detector")
    assert "detector" not in read_info(tmp_path / "out").components


def test_runs_for_other_tokenizers_are_refused(runs: dict[str, Path], checkpoint: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="mixed set: stage_coarse was made for"):
        run("assemble", tmp_path / "out", "--from", checkpoint, "--stage-coarse", runs["stage_coarse"])
    assert not (tmp_path / "out").exists()


def test_a_detector_of_other_stages_is_refused(runs: dict[str, Path], checkpoint: Path, tmp_path: Path):
    labels = ["--name", "x", "--domain", "speech", "--summary", "x", "--card", tmp_path / "card.md"]
    (tmp_path / "card.md").write_text(CARD)
    run("assemble", tmp_path / "out", *labels, *options(runs))
    weights = load_file(runs["stage_coarse"] / "weights.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, runs["stage_coarse"] / "weights.safetensors")
    retrained = ["assemble", tmp_path / "out", "--from", tmp_path / "out", "--stage-coarse", runs["stage_coarse"]]
    with pytest.raises(CheckpointError, match="mixed set: detector was made for stage_coarse"):
        run(*retrained)
    assert run(*retrained, "--without-detector") == 0


def test_a_detector_run_that_names_no_stages_is_refused(runs: dict[str, Path], tmp_path: Path):
    path = runs["detector"] / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"made_for": {"codec": config["made_for"]["codec"]}}))
    labels = ["--name", "x", "--domain", "speech", "--summary", "x", "--card", tmp_path / "card.md"]
    (tmp_path / "card.md").write_text(CARD)
    names = "codec, stage_semantic, stage_coarse, stage_fine"
    with pytest.raises(CheckpointError, match=f"detector must say which {names} it was made for.*train it again"):
        run("assemble", tmp_path / "out", *labels, *options(runs))


def test_a_run_of_another_component_is_refused(runs: dict[str, Path], checkpoint: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="a run of 'stage_fine', not of 'stage_coarse'"):
        run("assemble", tmp_path / "out", "--from", checkpoint, "--stage-coarse", runs["stage_fine"])


def test_assemble_says_what_it_lacks(runs: dict[str, Path], tmp_path: Path):
    (tmp_path / "card.md").write_text(CARD)
    with pytest.raises(CheckpointError, match="assemble needs --card"):
        run("assemble", tmp_path / "out", *options(runs))
    with pytest.raises(CheckpointError, match="assemble needs --name"):
        run("assemble", tmp_path / "out", "--card", tmp_path / "card.md", *options(runs))
    labels = ["--name", "x", "--domain", "speech", "--summary", "x", "--card", tmp_path / "card.md"]
    with pytest.raises(CheckpointError, match=r"lacks component\(s\) stage_fine"):
        run("assemble", tmp_path / "out", *labels, *options({k: v for k, v in runs.items() if k != "stage_fine"}))


def test_verify_prints_every_component_and_refuses_a_damaged_one(checkpoint: Path, capsys: pytest.CaptureFixture[str]):
    assert run("verify", checkpoint) == 0
    printed = capsys.readouterr().out
    for name, entry in read_info(checkpoint).components.items():
        assert name in printed
        assert entry.hash in printed
    path = checkpoint / "semantic.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"semantic\.safetensors: truncated"):
        run("verify", checkpoint)


def test_list_runs_whatever_is_embedded():
    assert run("list") == 0


SAMPLING = {
    "semantic": {"temperature": 0.8, "top_k": 0, "top_p": 0.95},
    "coarse": {"temperature": 0.7, "top_k": 50, "top_p": 1.0},
    "fine": {"temperature": 0.4, "top_k": 0, "top_p": 1.0},
}


def test_a_checkpoint_brings_its_own_sampling(checkpoint: Path, tmp_path: Path):
    assert read_info(checkpoint).sampling == USUAL_SAMPLING
    (tmp_path / "sampling.json").write_text(json.dumps(SAMPLING))
    run("assemble", tmp_path / "out", "--from", checkpoint, "--sampling", tmp_path / "sampling.json")
    assert {
        stage: value.to_dict() for stage, value in load_checkpoint(tmp_path / "out").info.sampling.items()
    } == SAMPLING
    run("assemble", tmp_path / "again", "--from", tmp_path / "out", "--name", "again")
    assert read_info(tmp_path / "again").sampling == read_info(tmp_path / "out").sampling


def test_a_checkpoint_without_its_own_sampling_keeps_its_hash(checkpoint: Path, tmp_path: Path):
    run("assemble", tmp_path / "out", "--from", checkpoint)
    assert read_info(tmp_path / "out").sha256 == read_info(checkpoint).sha256
    assert "sampling" not in json.loads((tmp_path / "out" / "config.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loud": {}}, "unknown field"),
        ({"fine": 0.6}, "field fine must be dict"),
        ({"fine": {"temperature": 9}}, "temperature must be 0..5, found 9"),
        ({"fine": {"top_q": 1}}, "top_q"),
    ],
)
def test_unusable_sampling_is_refused(change: dict, message: str, checkpoint: Path, tmp_path: Path):
    (tmp_path / "sampling.json").write_text(json.dumps(SAMPLING | change))
    with pytest.raises(CheckpointError, match=message):
        run("assemble", tmp_path / "out", "--from", checkpoint, "--sampling", tmp_path / "sampling.json")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"sampling": SAMPLING | change}))
    with pytest.raises(CheckpointError, match=message):
        read_info(checkpoint)


def test_a_cards_pictures_go_where_the_checkpoint_goes(checkpoint: Path, tmp_path: Path):
    facts = FACTS | {"pictures": [{"file": "drawn/losses.png", "caption": "Losses"}]}
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "losses.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "card.json").write_text(json.dumps(facts))
    run("assemble", tmp_path / "out", "--from", checkpoint, "--card", tmp_path / "card.json")
    assert "![Losses](losses.png)" in read_info(tmp_path / "out").card
    run("assemble", tmp_path / "again", "--from", tmp_path / "out", "--name", "again")
    assert (tmp_path / "again" / "losses.png").read_bytes() == (tmp_path / "drawn" / "losses.png").read_bytes()
    (tmp_path / "card.md").write_text(CARD)
    run("assemble", tmp_path / "again", "--from", tmp_path / "again", "--card", tmp_path / "card.md")
    assert not (tmp_path / "again" / "losses.png").exists()
    (tmp_path / "card.md").write_text(CARD + "![Losses](losses.png)")
    with pytest.raises(CheckpointError, match=r"losses\.png: missing"):
        run("assemble", tmp_path / "again", "--from", tmp_path / "again", "--card", tmp_path / "card.md")
