"""Uploads and results are their visitor's alone, cannot be guessed, and go: by age, and when asked."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.visitors import COOKIE
from tests.app.site.conftest import TINY, call, recorded, upload


def fetched(client, path: str) -> int:
    return client.get(f"/gradio_api/file={path}").status_code


def test_one_visitor_cannot_reach_anothers_upload_or_result(app, recording):
    with app.visitor() as one, app.visitor() as other, app.program() as program:
        path = upload(one, recording)
        kind, (_, files) = call(one, "reconstruct", [recorded(path), TINY, [1]])
        assert kind == "complete"
        for found in (path, *(file["path"] for file in files)):
            assert re.search(r"/[0-9a-f]{64}/", found)
            assert fetched(one, found) == 200
            assert fetched(other, found) == fetched(program, found) == 404
            for stranger in (other, program):
                assert call(stranger, "detect", [recorded(found), TINY])[0] == "403"


def test_a_name_that_is_told_to_the_server_does_not_become_ones_own(app, recording, own_recording):
    """An answer that repeats what was asked for would name it: "Loading …"."""
    with app.visitor() as one, app.visitor() as other:
        path, mine = upload(one, own_recording), upload(other, recording)
        for text in (str(Path(path).parent), f"x {path} x", path.replace("/", "\\/")):
            kind, _ = call(other, "reconstruct", [recorded(mine), text, [1]])
            assert kind in ("403", "error")
            assert fetched(other, path) == 404


def test_a_program_without_cookies_gets_its_results(app, recording):
    with app.program() as program:
        kind, (_, files) = call(program, "reconstruct", [recorded(upload(program, recording)), TINY, [1]])
        assert kind == "complete"
        assert fetched(program, files[0]["path"]) == 200


def test_a_run_counts_for_the_visitor_who_asked_for_it(app, recording, monkeypatch):
    asked = []
    monkeypatch.setattr(app.site.guard.admission, "enter", asked.append)
    monkeypatch.setattr(app.site.guard.admission, "leave", lambda *_: None)
    with app.visitor() as one, app.program() as program:
        for client in (one, program):
            assert call(client, "reconstruct", [recorded(upload(client, recording)), TINY, [1]])[0] == "complete"
        assert [visitor.cookie for visitor in asked] == [one.cookies[COOKIE], ""]
        assert asked[0].address == asked[1].address != ""


def test_a_full_line_is_told_in_words_and_nothing_that_was_taken_is_lost(app, recording):
    """The line takes two (see `app`)."""
    with app.visitor() as one:
        inputs = [recorded(upload(one, recording)), TINY, [1]]
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: call(one, "reconstruct", inputs), range(20)))
    done = [told for kind, told in answers if kind == "complete"]
    in_the_page = [told["error"] for kind, told in answers if kind == "error"]
    at_the_door = [told["detail"] for kind, told in answers if kind == "429"]
    refused = in_the_page + at_the_door
    assert len(done) >= 2
    assert len(done) + len(refused) == 20
    assert len(at_the_door) >= 1
    for told in refused:
        assert "runs are under way or waiting, and no more are taken. Please try again in about" in told


def test_names_cannot_be_told_from_contents(app, recording):
    from gradio import processing_utils

    with app.visitor() as one:
        path = upload(one, recording)
    assert len(processing_utils.hash_seed) == 32
    assert Path(path).stat().st_mode & 0o077 == 0 or Path(path).parent.parent.stat().st_mode & 0o077 == 0


def test_one_visitor_cannot_take_anothers_session(app):
    with app.visitor() as one, app.visitor() as other:
        body = {"data": [], "fn_index": 0, "session_hash": "one-session"}
        assert one.post("/gradio_api/run/predict", json=body).status_code != 403
        assert other.post("/gradio_api/run/predict", json=body).status_code == 403
        for route in ("/gradio_api/queue/data?session_hash=one-session", "/gradio_api/heartbeat/one-session"):
            assert other.get(route).status_code == 403


def test_deleting_takes_what_is_ones_own_and_nothing_else(app, own_recording, tmp_path):
    shared = tmp_path / "shared.wav"
    shared.write_bytes(own_recording.read_bytes()[:-1])
    with app.visitor() as one, app.visitor() as other:
        own, both = upload(one, own_recording), upload(one, shared)
        assert upload(other, shared) == both
        app.site.belongings.forget(f"cookie {one.cookies[COOKIE]}")
        assert not Path(own).exists()
        assert fetched(one, own) == fetched(one, both) == 404
        assert fetched(other, both) == 200


def test_the_button_deletes_what_the_visitor_has(app, own_recording):
    button = next(block for block in app.page.blocks.values() if block.elem_id == "delete-audio")
    event = next(n for n, fn in app.page.fns.items() if fn.targets and fn.targets[0] == (button._id, "click") and fn.fn)
    body = {"data": [], "fn_index": event, "session_hash": "deleting"}
    with app.visitor() as one, app.program() as program:
        path = upload(one, own_recording)
        refused = program.post("/gradio_api/run/predict", json={**body, "session_hash": "program"})
        assert "keeps no cookie" in refused.text
        assert Path(path).exists()
        assert one.post("/gradio_api/run/predict", json=body).status_code == 200
        assert not Path(path).exists()


def test_everything_is_gone_within_the_hour_also_what_a_killed_process_left(app, own_recording, tmp_path, monkeypatch):
    # a folder of its own: other servers' runs live in the real one
    monkeypatch.setattr("app.belongings.tempfile.gettempdir", lambda: str(tmp_path))
    killed = tmp_path / "audiolm-run-killed"
    killed.mkdir()
    left = app.site.belongings.folder / ("0" * 64) / "left.wav"
    left.parent.mkdir()
    left.write_bytes(b"x")
    with app.visitor() as one:
        path = Path(upload(one, own_recording))
        app.site.belongings.sweep()
        assert path.exists()
        later = time.time() + app.settings.cache_age_s + 5
        monkeypatch.setattr(app.site.belongings, "_clock", lambda: later)
        assert app.site.belongings.sweep() >= 3
        assert not path.exists()
        assert not killed.exists()
        assert not left.exists()
        assert fetched(one, str(path)) == 404
    assert app.settings.cache_age_s + app.settings.cache_sweep_s < 3600


def test_files_are_answered_with_nothing_that_could_run(app, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<script>alert(1)</script>")
    with app.visitor() as one:
        path = upload(one, page)
        whole = one.get(f"/gradio_api/file={path}")
        part = one.get(f"/gradio_api/file={path}", headers={"range": "bytes=0-3", "x-secret": "mine"})
    for answer in (whole, part):
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert answer.headers["cache-control"] == "private, no-cache"
        assert not {"cookie", "x-secret", "host"} & set(answer.headers)
    assert whole.headers["content-type"] == "application/octet-stream"
    assert part.status_code == 206


def test_errors_hold_no_path_and_no_trace(app, tmp_path):
    broken = tmp_path / "my private name.wav"
    broken.write_bytes(b"RIFF" + os.urandom(500))
    with app.visitor() as one:
        kind, told = call(one, "detect", [recorded(upload(one, broken)), TINY])
        answers = [str(told)]
        answers += [str(call(one, "detect", data)) for data in ([1, 2, 3, 4], "x", [{"a": 1}, TINY], [])]
        unknown = {"fn_index": 10**9, "session_hash": "s", "data": []}
        answers.append(one.post("/gradio_api/queue/join", json=unknown).text)
    assert kind == "error"
    for answer in answers:
        assert "Traceback" not in answer
        assert str(app.site.belongings.folder) not in answer
        assert "site-packages" not in answer
        assert 'File "' not in answer
