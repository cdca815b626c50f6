"""The folder of studies, its pre-flight (acceptance S6), backups, and the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.study import archive, headphones
from app.study.commands import main
from app.study.errors import ConflictError, NoSessionError, PreflightError, StoreError, UnknownStudyError
from app.study.library import Library
from app.study.preflight import loudness_of, preflight
from tests.app.study.studies import OWNER_TOKEN, make_study, take_part

ROOT = Path(__file__).resolve().parents[3]
NUM_SAMPLES = 8000


@pytest.fixture(scope="module")
def fit():
    """A study that passes, with its files: noise of one length, loud alike to within 0.05 LU."""
    study, _ = make_study(items=2)
    generator = np.random.default_rng(1)
    files, clips = {}, []
    for clip in study.clips:
        noise = generator.standard_normal((NUM_SAMPLES, 1))
        content = wav(noise, 0.1)
        content = wav(noise, 0.1 * 10 ** ((-23.0 - loudness_of(content)) / 20))
        files[clip.id] = content
        clips.append(described(clip, content))
    return dataclasses.replace(study, clips=tuple(clips)), files


def wav(noise, gain):
    return headphones.wav(np.round(32767 * gain * noise).astype(np.int16))


def described(clip, content):
    """The clip as its file is."""
    channels, rate = struct.unpack("<HI", content[22:28])
    return dataclasses.replace(
        clip,
        sha256=hashlib.sha256(content).hexdigest(),
        num_samples=(len(content) - 44) // (2 * channels),
        sample_rate_hz=rate,
        num_channels=channels,
    )


def with_file(fit, content, describe=True):
    """The study with another file for its second clip; its description follows it, or stays."""
    study, files = fit
    clip = study.clips[1]
    if describe:
        clips = tuple(described(one, content) if one is clip else one for one in study.clips)
        study = dataclasses.replace(study, clips=clips)
    return study, {**files, clip.id: content}


def samples_of(fit):
    study, files = fit
    return np.frombuffer(files[study.clips[1].id], "<i2", offset=44)[:, None]


def test_a_fit_study_passes_and_its_ranges_are_told(fit):
    report = preflight(*fit)
    assert report.problems == ()
    assert report.num_samples == (NUM_SAMPLES, NUM_SAMPLES)
    low, high = report.loudness_lufs
    assert -23.05 < low <= high < -22.95


def test_other_lengths_are_refused(fit):
    changed = with_file(fit, headphones.wav(samples_of(fit)[:-1]))
    assert any("differ in length: 7999 to 8000" in problem for problem in preflight(*changed).problems)


@pytest.mark.parametrize(("step_lu", "refused"), [(0.15, True), (-0.15, True), (0.05, False)])
def test_loudness_may_differ_by_a_tenth(fit, step_lu, refused):
    louder = np.round(samples_of(fit) * 10 ** (step_lu / 20)).astype(np.int16)
    problems = preflight(*with_file(fit, headphones.wav(louder))).problems
    assert any("differ in loudness" in problem for problem in problems) == refused


def test_metadata_other_rates_and_other_headers_are_refused(fit):
    content = headphones.wav(samples_of(fit))
    tagged = content + b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert any("metadata" in problem for problem in preflight(*with_file(fit, tagged, describe=False)).problems)
    other = content[:24] + struct.pack("<II", 22050, 44100) + content[32:]
    assert any("differ in sample rate" in problem for problem in preflight(*with_file(fit, other)).problems)
    lying = content[:40] + struct.pack("<I", 2) + content[44:]
    assert any("header" in problem for problem in preflight(*with_file(fit, lying, describe=False)).problems)


def test_silence_clipping_wrong_missing_foreign_and_equal_files_are_refused(fit):
    study, files = fit
    first, second = study.clips[:2]
    loud = samples_of(fit).copy()
    loud[5] = 32767
    for changed, problem in (
        (with_file(fit, headphones.wav(np.zeros((NUM_SAMPLES, 1), np.int16))), "silent"),
        (with_file(fit, headphones.wav(loud)), "clipped"),
        (with_file(fit, files[first.id], describe=False), "SHA-256 differs"),
        (with_file(fit, files[first.id]), "are the same file"),
        ((study, {name: file for name, file in files.items() if name != second.id}), "has no file"),
        ((study, {**files, "more": b""}), "belongs to no clip"),
    ):
        assert any(problem in one for one in preflight(*changed).problems), problem


def test_too_few_sessions_for_the_lists_are_refused(fit):
    study, files = fit
    few = dataclasses.replace(study, plan=dataclasses.replace(study.plan, target_sessions=1))
    assert preflight(few, files).problems == ("2 lists of trials, but only 1 sessions are wanted",)


# the folder


@pytest.fixture
def library(quick_folder):
    return Library(quick_folder / "studies")


def test_a_study_is_kept_whole_or_not_at_all(library, fit):
    study, files = fit
    with pytest.raises(PreflightError, match="has no file"):
        library.add(study, {}, OWNER_TOKEN)
    assert [path.name for path in library.folder.iterdir() if path.is_dir()] == []
    assert library.store.studies() == ()
    library.add(study, files, OWNER_TOKEN)
    assert library.clip_files(study.id) == files
    assert library.owner_token(study.id) == OWNER_TOKEN
    with pytest.raises(ConflictError):
        library.add(study, files, OWNER_TOKEN)


def test_no_files_name_or_date_tells_a_condition(library, fit):
    study, files = fit
    folder = library.add(study, files, OWNER_TOKEN)
    paths = sorted((folder / "clips").iterdir())
    assert {path.stat().st_mtime for path in paths} == {1_577_836_800}
    assert len({path.stat().st_size for path in paths}) == 1
    assert len({path.read_bytes()[:44] for path in paths}) == 1


def test_what_is_kept_is_its_owners_alone_whatever_others_may_be_given(library, fit, tmp_path, quick_folder):
    before = os.umask(0)
    try:
        made = Library(quick_folder / "more" / "studies")
        made.add(*fit, OWNER_TOKEN)
        archive.backup(made, tmp_path / "all.zip")
        made.store.backup(tmp_path / "copy.sqlite3")
        archive.restore(library, tmp_path / "all.zip")
    finally:
        os.umask(before)
    kept = [made.folder, *made.folder.rglob("*"), *library.folder.rglob("*"), *tmp_path.iterdir()]
    assert len(kept) > 2 * len(fit[1])
    assert [path.name for path in kept if path.stat().st_mode & 0o777 != (0o700 if path.is_dir() else 0o600)] == []
    made.store.close()


def test_only_clips_of_the_study_are_files(library, fit):
    study, files = fit
    library.add(study, files, OWNER_TOKEN)
    for name in ("../study.json", "", "owner-token", "nothing"):
        with pytest.raises(NoSessionError):
            library.clip_file(study.id, name)
    with pytest.raises(UnknownStudyError):
        library.clip_file("..", study.clips[0].id)


def test_studies_of_other_processes_are_found_and_broken_ones_left_out(library, fit, caplog):
    study, files = fit
    Library(library.folder).add(study, files, OWNER_TOKEN)
    (library.folder / "broken").mkdir()
    (library.folder / "broken" / "study.json").write_text("{}")
    library.register()
    assert library.store.studies() == (study.id,)
    assert "broken" in caplog.text


# backups


def test_a_backup_brings_everything_back_on_another_machine(library, fit, tmp_path, quick_folder):
    study, files = fit
    library.add(study, files, OWNER_TOKEN)
    token = take_part(library.store, study, "someone", steps=1)
    gone = take_part(library.store, study, "gone", steps=1)
    archive.backup(library, tmp_path / "all.zip")
    assert (tmp_path / "all.zip").stat().st_mode & 0o077 == 0
    other = Library(quick_folder / "elsewhere")
    archive.restore(other, tmp_path / "all.zip")
    assert other.clip_files(study.id) == files
    assert other.store.next_trial(token) == library.store.next_trial(token)
    library.store.withdraw(gone)
    archive.restore(library, tmp_path / "all.zip")
    assert len(library.store.results(study.id).sessions) == 1
    with pytest.raises(StoreError, match="exists already"):
        archive.backup(library, tmp_path / "all.zip")


def test_damaged_and_hostile_archives_change_nothing(library, fit, tmp_path):
    study, files = fit
    library.add(study, files, OWNER_TOKEN)
    take_part(library.store, study, "someone")
    before = library.store.results(study.id)
    whole = tmp_path / "whole.zip"
    archive.backup(library, whole)
    clip = f"{study.id}/clips/{study.clips[0].id}.wav"
    (tmp_path / "text.zip").write_text("no archive")
    rewritten(whole, tmp_path / "slip.zip", {"../outside.txt": b"x"})
    rewritten(whole, tmp_path / "clip.zip", {clip: b"another sound"})
    rewritten(whole, tmp_path / "no-database.zip", {"studies.sqlite3": None})
    rewritten(whole, tmp_path / "bad-database.zip", {"studies.sqlite3": b"none"})
    for name in ("text", "slip", "clip", "no-database", "bad-database", "missing"):
        with pytest.raises(StoreError):
            archive.restore(library, tmp_path / f"{name}.zip")
    other = dataclasses.replace(study, seed=99)
    rewritten(whole, tmp_path / "other.zip", {f"{study.id}/study.json": other.to_json().encode()})
    with pytest.raises(ConflictError, match="another definition"):
        archive.restore(library, tmp_path / "other.zip")
    assert library.store.results(study.id) == before
    assert not (library.folder.parent / "outside.txt").exists()
    assert [path.name for path in library.folder.iterdir() if path.name.startswith(".")] == []


def rewritten(source, target, changes):
    """The archive with files put in, or taken out where they are None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        kept = {name: old.read(name) for name in old.namelist()}
        for name, content in {**kept, **changes}.items():
            if content is not None:
                new.writestr(name, content)


# the command line


def test_the_commands_tell_how_a_study_stands(library, fit, tmp_path, capsys):
    study, files = fit
    library.add(study, files, OWNER_TOKEN)
    take_part(library.store, study, "someone")
    studies = ["--studies", str(library.folder)]
    assert main([*studies, "preflight", study.id]) == 0
    assert "4 clips of 8000 to 8000 samples" in capsys.readouterr().out
    assert main([*studies, "status"]) == 0
    assert "1 of 24 sessions complete" in capsys.readouterr().out
    assert main([*studies, "status", study.id]) == 0
    assert "exact binomial, two-sided: p = " in capsys.readouterr().out
    assert main([*studies, "export", study.id, "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"answers.csv", "methods.txt", "dictionary.csv"}
    assert main([*studies, "backup", str(tmp_path / "all.zip")]) == 0
    assert main([*studies, "restore", str(tmp_path / "all.zip")]) == 0
    assert main([*studies, "close", study.id]) == 0
    assert library.store.results(study.id).closed
    assert main([*studies, "open", study.id]) == 0
    assert main([*studies, "status", "nothing"]) == 2
    assert "there is no study 'nothing'" in capsys.readouterr().err


def test_a_study_whose_folder_was_deleted_does_not_keep_others_from_being_served(library, fit, capsys, monkeypatch):
    study, files = fit
    library.add(study, files, OWNER_TOKEN)
    library.add(replace(study, id="another"), files, OWNER_TOKEN)
    shutil.rmtree(library.folder / study.id)
    served = []
    monkeypatch.setattr("uvicorn.run", lambda app, **options: served.append(app))
    assert main(["--studies", str(library.folder), "serve"]) == 0
    assert served
    told = capsys.readouterr().out
    assert f"study {study.id} has no owner's secret" in told
    assert f"/study/another/results#{OWNER_TOKEN}" in told


def test_a_changed_file_fails_the_preflight_command(library, fit, capsys):
    study, files = fit
    folder = library.add(study, files, OWNER_TOKEN)
    path = folder / "clips" / f"{study.clips[0].id}.wav"
    path.write_bytes(path.read_bytes()[:-2])
    assert main(["--studies", str(library.folder), "preflight", study.id]) == 1
    assert "refused: clip" in capsys.readouterr().out


def test_the_planner_command_says_1082(capsys):
    assert main(["plan"]) == 0
    assert "1082 ratings show equivalence within 5 points" in capsys.readouterr().out


def test_the_other_program_hands_the_words_over(tmp_path):
    command = [sys.executable, "-m", "audiolm", "study", "--studies", str(tmp_path), "schema"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["$defs"]["Study"]
