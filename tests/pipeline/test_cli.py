from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from audiolm.audio import files
from audiolm.checkpoints.format import read_info
from audiolm.cli import _sentence, main
from audiolm.detector import Verdict
from audiolm.outputs import read_receipt
from tests.pipeline.material import recording

SHORT = ["--seconds", "0.4", "--prompt-seconds", "1"]


@pytest.fixture
def prompt(tmp_path):
    path = tmp_path / "hello.wav"
    files.write_wav(path, recording(1.5))
    return path


@pytest.fixture
def options(tiny_folder, tmp_path):
    return ["--checkpoint", str(tiny_folder), "--device", "cpu", "--out", str(tmp_path / "out")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_continue_writes_audio_tokens_and_receipt_of_every_continuation(prompt, options, tmp_path, capsys):
    assert main(["continue", str(prompt), *SHORT, "--seed", "3", "--count", "2", *options]) == 0
    parts = ("receipt.json", "tokens.safetensors", "wav")
    assert names(tmp_path / "out") == [f"hello_{row}.{part}" for row in (1, 2) for part in parts]
    assert load_file(tmp_path / "out/hello_1.tokens.safetensors")["codes"].shape == (70, 4)
    printed = capsys.readouterr().out
    assert "seed 3" in printed
    assert "detector: " in printed
    assert "s for a second of sound" in printed


def test_replay_from_the_wav_gives_the_same_files(prompt, options, tmp_path, capsys):
    main(["continue", str(prompt), *SHORT, "--seed", "3", *options])
    again = [*options[:-1], str(tmp_path / "again")]
    assert main(["replay", str(tmp_path / "out/hello_2.wav"), str(prompt), *again]) == 0
    assert "identical tokens" in capsys.readouterr().out
    assert names(tmp_path / "again") == ["hello_2.receipt.json", "hello_2.tokens.safetensors", "hello_2.wav"]
    tokens, sound = (
        [read(tmp_path / folder / f"hello_2.{suffix}") for folder in ("out", "again")]
        for read, suffix in ((load_file, "tokens.safetensors"), (files.read_waveform, "wav"))
    )
    assert tokens[0]["codes"].shape == (70, 4)
    assert all(torch.equal(tokens[0][name], tokens[1][name]) for name in ("semantic", "codes"))
    assert sound[0].samples.abs().max() > 0
    assert torch.equal(sound[0].samples, sound[1].samples)


def test_replay_says_which_checkpoint_a_receipt_asks_for(prompt, options, tiny_folder, tmp_path, capsys):
    main(["continue", str(prompt), *SHORT, "--seed", "3", "--count", "1", *options])
    assert main(["replay", str(tmp_path / "out/hello_1.receipt.json"), str(prompt)]) == 2
    said = capsys.readouterr().err
    assert f"give --checkpoint: it must have sha256 {read_info(tiny_folder).sha256}" in said
    assert "tiny-speech" in said


def test_sampling_options_reach_the_receipt(prompt, options, tmp_path):
    chosen = ["--temperature-semantic", "0.5", "--top-k-coarse", "7", "--top-p-fine", "0.9", "--count", "1"]
    assert main(["continue", str(prompt), *SHORT, *chosen, "--prompt-part", "original", *options]) == 0
    asked = json.loads((tmp_path / "out/hello_1.receipt.json").read_text())["request"]
    assert asked["semantic"]["temperature"] == 0.5
    assert asked["coarse"]["top_k"] == 7
    assert asked["fine"]["top_p"] == 0.9
    assert asked["prompt_part"] == "original"


def test_without_a_seed_each_run_has_a_new_one(options, tmp_path):
    seeds = set()
    for _ in range(2):
        assert main(["generate", "--seconds", "0.2", "--count", "1", *options]) == 0
        seeds.add(json.loads((tmp_path / "out/generated_1.receipt.json").read_text())["request"]["seed"])
    assert len(seeds) == 2


def test_acoustic_and_its_replay(prompt, options, tmp_path):
    voice = tmp_path / "voice.wav"
    files.write_wav(voice, recording(1.2, seed=4))
    command = [
        "acoustic",
        str(prompt),
        "--voice",
        str(voice),
        "--prompt-seconds",
        "1",
        "--seconds",
        "1",
        "--count",
        "1",
    ]
    assert main([*command, *options]) == 0
    receipt = str(tmp_path / "out/hello_1.receipt.json")
    assert main(["replay", receipt, str(voice), "--source", str(prompt), *options]) == 0


def test_inspect_writes_the_timeline_of_a_recording_or_of_its_continuation(prompt, options, tmp_path, capsys):
    assert main(["inspect", str(prompt), *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out/timeline.png")
    assert json.loads((tmp_path / "out/numbers.json").read_text())["prompt_s"] == 0
    continued = ["--continue-seconds", "0.4", "--prompt-seconds", "1", "--seed", "3", "--top-k-fine", "2"]
    voices = ["--voices", "1", "--voice", str(prompt)]
    assert main(["inspect", str(prompt), *continued, *voices, *options]) == 0
    assert "voices/voice_1.wav" in (tmp_path / "out/numbers.json").read_text()
    asked = read_receipt(tmp_path / "out/audio.wav").request
    assert (asked.prompt_s, asked.continuation_s, asked.seed, asked.fine.top_k) == (1.0, 0.4, 3, 2)


def test_reconstruct_writes_the_levels_asked_for(prompt, options, tmp_path):
    assert main(["reconstruct", str(prompt), "--levels", "2", *options]) == 0
    assert names(tmp_path / "out") == ["hello_levels2.wav"]
    assert files.read_waveform(tmp_path / "out/hello_levels2.wav").samples.shape == (24_000,)


def test_detect_prints_the_verdict_with_its_scope(prompt, options, capsys):
    assert main(["detect", str(prompt), "--json", *options[:-2]]) == 0
    assert "label" in json.loads(capsys.readouterr().out)
    assert main(["detect", str(prompt), *options[:-2]]) == 0
    assert capsys.readouterr().out.startswith("detector: ")


def test_what_a_score_is_worth_stands_beside_it():
    band = {"uncertain_low": 0.1, "uncertain_high": 0.9, "wrong_rate": 0.004, "num_answers": 1400, "measured_s": 6.0}
    verdict = Verdict(
        "generated", 0.97, 0.5, 0.01, 0.02, 300, 1200, model_sha256="abcdef012345", boundary_s=2.5, **band
    )
    assert _sentence(verdict) == (
        "detector: generated, 0.970 against a threshold of 0.50, uncertain between 0.100 and 0.900 (likely boundary at "
        "2.5 s; held-out clips of 6 s: 0.4 % of 1,400 answers wrong (both kinds count the same), by the threshold "
        "alone 1.0 % of 300 originals, 2.0 % of 1,200 generated; holds only for audio of these checkpoints; "
        "detector abcdef012345)"
    )


def test_the_watermark_is_found_by_the_command_line_unless_it_was_switched_off(prompt, options, tmp_path, capsys):
    asked = ["continue", str(prompt), "--prompt-seconds", "1", "--seconds", "3", "--seed", "3", "--count", "1"]
    made = tmp_path / "out/hello_1"
    for extra, name in (([], "resemble-perth 1.0.1"), (["--no-watermark"], "")):
        assert main([*asked, *extra, *options]) == 0
        assert json.loads(made.with_suffix(".receipt.json").read_text())["watermark"] == name
        assert main(["watermark", "check", str(made.with_suffix(".wav")), "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])[0]["found"] is False


def test_checkpoints_is_part_of_the_command_line(tiny_folder, capsys):
    assert main(["checkpoints", "verify", str(tiny_folder)]) == 0
    assert "tiny-speech" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["continue", "{prompt}", "--seconds", "0"], "continuation length"),
        (["continue", "{prompt}", "--count", "99"], "number of continuations must be 1..16, found 99"),
        (["continue", "{prompt}", "--temperature-fine", "9"], "temperature must be 0..5, found 9"),
        (["continue", "{folder}/missing.wav"], "cannot be opened"),
        (["continue", "{folder}/text.wav"], ""),
        (["continue", "{folder}/empty.wav"], ""),
        (["continue", "{prompt}", "--checkpoint", "no-such"], "no embedded checkpoint"),
        (["continue", "{prompt}", "--device", "abacus"], "device 'abacus'"),
        (["continue", "{prompt}", "--threads", "0"], "--threads must be at least 1"),
        (["reconstruct", "{prompt}", "--levels", "9"], "1..4 levels, found 9"),
        (["inspect", "{prompt}", "--ablations"], "say how many seconds to continue"),
        (["inspect", "{prompt}", "--voices", "-1"], "number of continuations must be 1..16, found -1"),
        (["replay", "{folder}/text.wav", "{prompt}"], "text.wav"),
        (["detect", "{folder}/empty.wav"], ""),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments, said, prompt, tiny_folder, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("this is no audio")
    (tmp_path / "empty.wav").touch()
    filled = [argument.format(prompt=prompt, folder=tmp_path) for argument in arguments]
    given = [] if "--checkpoint" in filled else ["--checkpoint", str(tiny_folder)]
    assert main([*filled, *given]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("audiolm: ")
    assert said in lines[0]


def test_the_module_runs_and_a_wrong_command_is_explained():
    done = subprocess.run([sys.executable, "-m", "audiolm", "sing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "continue" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_is_exit_code_130(prompt, options, monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("audiolm.cli.follow", interrupted)
    assert main(["continue", str(prompt), *SHORT, *options]) == 130
    assert "stopped" in capsys.readouterr().err


def test_sampling_that_is_not_given_is_the_checkpoints(tiny_folder, prompt, tmp_path):
    own = {stage: {"temperature": 0.9, "top_k": 7, "top_p": 0.8} for stage in ("semantic", "coarse", "fine")}
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "checkpoint"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sampling": own}))
    given = ["--checkpoint", str(folder), "--device", "cpu", "--out", str(tmp_path / "out"), "--top-k-fine", "3"]
    assert main(["continue", str(prompt), *SHORT, "--count", "1", *given]) == 0
    request = json.loads((tmp_path / "out/hello_1.receipt.json").read_text())["request"]
    assert request["semantic"] == own["semantic"]
    assert request["fine"] == {"temperature": 0.9, "top_k": 3, "top_p": 0.8}
