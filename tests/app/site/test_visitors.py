from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from app import logs
from app.belongings import Belongings, private_folder
from app.logins import Logins
from app.visitors import COOKIE, identify, is_this_machine, new_token
from audiolm.errors import RequestError

NAME = "a" * 64


def address(peer: str, forwarded: str = "", num_proxies: int = 0) -> str:
    """`forwarded` has a line for each header of that name."""
    lines = [(b"x-forwarded-for", line.encode()) for line in forwarded.splitlines()]
    return identify(Headers(raw=lines), peer, num_proxies).address


def test_an_address_is_taken_from_trusted_proxies_alone():
    assert address("1.1.1.1", "9.9.9.9") == address("1.1.1.1")
    assert address("10.0.0.1", "6.6.6.6, 9.9.9.9", 1) == address("9.9.9.9")
    assert address("10.0.0.1", "6.6.6.6, 9.9.9.9, 10.0.0.2", 2) == address("9.9.9.9")
    assert address("10.0.0.1", "", 1) == address("10.0.0.1")
    assert address("10.0.0.1", "9.9.9.9", 3) == address("9.9.9.9")
    for proxies_line in ("6.6.6.6\n9.9.9.9", "6.6.6.6, 7.7.7.7\n8.8.8.8, 9.9.9.9"):
        assert address("10.0.0.1", proxies_line, 1) == address("9.9.9.9")


def test_an_address_is_not_kept_as_such():
    assert "1.1.1.1" not in str(identify(Headers(), "1.1.1.1", 0))


def test_an_address_is_the_same_in_every_spelling():
    assert address("::ffff:203.0.113.9") == address("203.0.113.9:51234") == address("203.0.113.9")
    assert address("::ffff:203.0.113.9") != address("::ffff:203.0.113.8")
    assert address("[2001:db8:1:2::1]:443") == address("[2001:db8:1:2::1]") == address("2001:db8:1:2::1")


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True),
        ("127.0.0.1.example.org", False), ("127.example.org", False), ("localhost.example.org", False),
        ("10.0.0.1", False), ("", False),
    ],
)  # fmt: skip
def test_this_machine_has_names_that_nobody_else_can_have(host, own):
    assert is_this_machine(host) == own


def test_a_customer_of_ipv6_is_one_address():
    assert address("2001:db8:1:2::1") == address("2001:db8:1:2:ffff::9") != address("2001:db8:1:3::1")


@pytest.mark.parametrize(
    "cookie", ["", f"{COOKIE}=short", f"{COOKIE}=" + "x" * 44, f"{COOKIE}=" + "ä" * 43, "=;=;\x00"]
)
def test_cookies_that_were_not_made_here_are_none(cookie):
    raw = [(b"cookie", cookie.encode("latin-1"))]
    assert identify(Headers(raw=raw), "1.1.1.1", 0).cookie == ""


def test_a_cookie_tells_visitors_of_one_address_apart():
    one, other = (identify(Headers({"cookie": f"{COOKIE}={new_token()}"}), "1.1.1.1", 0) for _ in range(2))
    assert one.key != other.key
    assert one.address == other.address


def test_only_files_of_the_cache_as_written_can_be_owned(tmp_path):
    belongings = Belongings(tmp_path / "cache", 60)
    inside = f"{belongings.folder}/{NAME}/a.wav"
    belongings.note("one", f'{{"path": "{inside}"}}'.encode())
    assert belongings.owns("one", inside)
    for path in (
        f"{belongings.folder}/{NAME}/../{NAME}/a.wav",
        f"{belongings.folder}/{NAME}",
        f"{belongings.folder}/{NAME}/..",
        f"{belongings.folder}/{NAME}/a/b.wav",
        f"{belongings.folder}//{NAME}/a.wav",
        f"x{inside}",
        f"{inside}\0",
        "/etc/passwd",
        f"{belongings.folder}/{'b' * 64}/a.wav",
    ):
        assert not belongings.owns("one", path)
    assert not belongings.owns("other", inside)


def test_what_is_only_mentioned_must_be_ones_own(tmp_path):
    belongings = Belongings(tmp_path / "cache", 60)
    belongings.note("one", f"{belongings.folder}/{NAME}/a.wav".encode())
    mentions = f"a checkpoint called {belongings.folder}/{NAME}"
    assert belongings.names_others("other", mentions)
    assert not belongings.names_others("one", mentions)
    assert belongings.names_others("one", f"{mentions} {belongings.folder}/{'b' * 64}/x")
    assert not belongings.names_others("other", f"{belongings.folder} /{NAME}")


def test_a_session_is_whose_it_was_first(tmp_path):
    belongings = Belongings(tmp_path, 60)
    assert belongings.claims("one", "s")
    assert not belongings.claims("other", "s")
    assert belongings.claims("one", "s")


def test_the_cache_is_readable_for_its_user_alone(tmp_path):
    folder = private_folder(tmp_path / "a" / "cache")
    assert folder.stat().st_mode & 0o077 == 0


def test_one_file_that_cannot_be_deleted_keeps_no_other(tmp_path, monkeypatch):
    belongings = Belongings(tmp_path / "cache", 60, lambda: time.time() + 100)
    for name in ("a", "b", "c"):
        (belongings.folder / name).write_text("old")
    unlink = Path.unlink

    def fails_for_one(path, **options):
        if path.name == "b":
            raise PermissionError("not this one")
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", fails_for_one)
    monkeypatch.setattr("app.belongings.RUN_FOLDERS", ())
    belongings.sweep()
    assert [path.name for path in belongings.folder.iterdir()] == ["b"]


@pytest.mark.parametrize("as_json", [True, False])
def test_logs_hold_no_address_and_no_name_of_an_upload(as_json, tmp_path):
    upload, told = f"{tmp_path}/{NAME}/{'an' + 'na'}.wav", "from 2001:db8:1:2:3:4:" + "5:6"
    record = logging.LogRecord("app", logging.ERROR, "x", 1, "of 203.0.113.9: %s", (upload,), None)
    try:
        raise ValueError(f"{upload} {told}")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    record.fields = {"kind": "detect"}
    line = logs.Lines(as_json, tmp_path).format(record)
    for secret in ("203.0.113.9", "anna", NAME, "4:5:6"):
        assert secret not in line
    assert "ValueError" in line
    if as_json:
        assert json.loads(line)["kind"] == "detect"


def test_a_login_needs_its_own_password(tmp_path):
    file = tmp_path / "logins"
    file.write_text("# who may come in\n\nanna:secret:with:colons\nbo:other\n")
    with pytest.raises(RequestError, match="chmod 600"):
        Logins(file)
    file.chmod(0o600)
    logins = Logins(file)
    assert logins("anna", "secret:with:colons")
    for name, password in (("anna", "other"), ("nobody", "\0nobody"), ("", ""), ("bo", "öther")):
        assert not logins(name, password)


@pytest.mark.parametrize("text", ["", "# nobody", "anna", "anna:", ":secret"])
def test_a_file_of_logins_that_says_nothing_is_refused(tmp_path, text):
    file = tmp_path / "logins"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(RequestError, match="NAME:PASSWORD"):
        Logins(file)
    with pytest.raises(RequestError, match="cannot be read"):
        Logins(tmp_path / "none")
