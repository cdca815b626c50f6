"""Every route of the server was decided on: open by name, or closed; and the headers are on all that is open."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from app.door import DECIDED_AGAINST, OWN_ROUTES, Door, House, kind_of
from app.guard import Guard
from app.headers import page_policy
from app.limits import MAX_EXPECTED, Admission, Allowance, WorkLimits
from app.metrics import Metrics
from app.status import status_routes
from app.uploads import OVERHEAD_BYTES, Uploads
from tests.app.site.conftest import TINY, upload

SAMPLES = {
    "path_or_url": "etc/passwd",
    "url_path": "https://example.org",
    "session_hash": "abc",
    "path": "x.js",
    "event_id": "0a",
}


def routes(router) -> Iterator[tuple[str, str]]:
    """(method, a path that fits) of everything that Gradio and we serve."""
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes(inner)
        else:
            path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda name: SAMPLES.get(name[1], "x1"), route.path)
            for method in sorted(getattr(route, "methods", None) or ["GET"]):
                yield method, path


def within(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(re.match(rf"{re.escape(prefix)}($|[/\-]|(?<=[=/]))", path) for prefix in prefixes)


def test_every_route_is_decided_on(app):
    found = set(routes(app.page.app.router))
    assert len(found) > 80
    for method, path in sorted(found):
        decisions = [kind_of(method, path) is not None, within(path, DECIDED_AGAINST), within(path, OWN_ROUTES)]
        if kind_of("GET", path) is not None and method == "HEAD":
            continue  # answered for a GET only
        assert decisions.count(True) == 1, f"{method} {path}: open, closed, our own: {decisions}"


def test_every_closed_route_is_closed(app):
    closed = {found for found in routes(app.page.app.router) if within(found[1], DECIDED_AGAINST)}
    assert len({path for _, path in closed}) > 30
    with app.visitor() as visitor:
        for method, path in sorted(closed):
            answer = visitor.request(method, path)
            assert answer.status_code == 404, f"{method} {path}"
            assert method == "HEAD" or answer.json() == {"detail": "there is nothing here"}


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=app.py",
        "/gradio_api/file=http://127.0.0.1:9/x",
        "/gradio_api/file=https://example.org/",
        "/gradio_api/file=//example.org/",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/file={prompts}/../checkpoints/tiny-speech/config.json",
        "/gradio_api/file={prompts}",
        "/gradio_api/file={cache}",
        "/gradio_api/file={cache}/../x",
        "/gradio_api/file=.gradio/cached_examples/x",
        "/gradio_api/%66ile=/etc/passwd",
        "//gradio_api/file=/etc/passwd",
        "/gradio_api/../gradio_api/component_server",
        "/static/../../../../../../etc/passwd",
        "/static/..%2f..%2f..%2f..%2fetc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/svelte//etc/passwd",
        "/study/assets/../../study.py",
        "/study/assets/%2e%2e/studio.css",
    ],
)
def test_no_file_outside_the_allow_list_and_no_other_server_is_reached(app, path):
    path = path.format(prompts=app.settings.prompts_folder, cache=app.site.belongings.folder)
    with app.visitor() as visitor:
        request = visitor.build_request("GET", app.url)
        request.url = httpx.URL(app.url).copy_with(raw_path=path.encode())  # as it is written
        answer = visitor.send(request)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


def test_a_url_is_not_fetched_whatever_component_it_stands_in(app, monkeypatch):
    asked = []
    monkeypatch.setattr("httpx.AsyncClient.send", lambda *given, **_: asked.append(given))
    monkeypatch.setattr("safehttpx.get", lambda *given, **_: asked.append(given))
    with app.visitor() as visitor:
        for value in (
            {"path": "http://127.0.0.1:9/a.wav", "meta": {"_type": "gradio.FileData"}},
            {"path": "https://example.org/a.wav"},
            {"path": "x", "url": "https://example.org/a.wav"},
            [{"deep": {"path": "https://example.org/a.wav", "meta": {"_type": "gradio.FileData"}}}],
        ):
            for data in ([value, TINY], [None, TINY, value]):
                answer = visitor.post("/gradio_api/call/reconstruct", json={"data": data})
                assert answer.status_code == 403, value
        assert visitor.get("/gradio_api/file=https://example.org/a.wav").status_code == 404
    assert asked == []


def announced_upload(app, num_bytes: int) -> str:
    """The answer to an upload that says how long it will be, before any of it is sent."""
    with socket.create_connection(("127.0.0.1", app.settings.port), timeout=10) as line:
        head = f"Host: localhost\r\nContent-Length: {num_bytes}\r\nContent-Type: multipart/form-data; boundary=x"
        line.sendall(f"POST /gradio_api/upload HTTP/1.1\r\n{head}\r\n\r\n".encode())
        return line.recv(200).decode()


def test_size_limits_hold(app, recording):
    with app.visitor() as visitor:
        assert visitor.post("/gradio_api/queue/join", content=b'"' + b"x" * 2**20 + b'"').status_code == 413
        assert announced_upload(app, 2**30).startswith("HTTP/1.1 413")
        assert visitor.post("/gradio_api/queue/join", content=b"[" * 100_000).status_code in (400, 422)
        upload(visitor, recording)


def test_an_upload_that_does_not_say_how_long_it_is_has_the_same_limit(app, tmp_path):
    read = []

    async def reads(scope, receive, send):
        more = True
        while more:
            message = await receive()
            read.append(len(message["body"]))
            more = message["more_body"]

    house = House(app.site.belongings, Uploads(1, 0, 0, lambda: 0), tmp_path)
    answer = TestClient(Door(reads, house), base_url="http://localhost").post(
        "/gradio_api/upload", content=(b"x" * 2**19 for _ in range(9))
    )
    assert answer.status_code == 413
    assert "at most 0 MiB are taken" in answer.json()["detail"]
    assert sum(read) <= OVERHEAD_BYTES + 1


def test_what_is_no_file_in_an_upload_is_not_held_in_memory(app, recording):
    file = {"files": (recording.name, recording.read_bytes())}
    with app.visitor() as visitor:
        refused = visitor.post("/gradio_api/upload", data={"files": "x" * 5000}, files=file)
        assert refused.status_code == 400
        assert "at most 1024 bytes" in refused.text
        assert visitor.post("/gradio_api/upload", data={"other": "x"}, files=file).status_code == 200


def test_headers_are_on_every_answer(app):
    with app.visitor() as visitor:
        for path in (
            "/",
            "/config",
            "/gradio_api/info",
            "/theme.css",
            "/nothing",
            "/healthz",
            "/study/none",
            "/metrics",
        ):
            headers = visitor.get(path).headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["referrer-policy"] == "no-referrer", path
            assert headers["cross-origin-opener-policy"] == "same-origin", path
            assert "frame-ancestors" in headers.get("content-security-policy", "") or path != "/"


def test_the_page_names_each_of_its_scripts_and_no_other_server(app):
    with app.program() as client:
        page = client.get("/")
    policy = page.headers["content-security-policy"]
    script_src = policy.partition("script-src ")[2].partition(";")[0]
    assert "unsafe-inline" not in script_src
    assert script_src.count("'sha256-") >= 4
    assert "http" not in policy
    assert not re.search(r'<(script|link|meta|img|iframe)[^>]*"https?://(?!127\.0\.0\.1)', page.text)


def test_study_answers_keep_their_own_policy(app):
    with app.visitor() as visitor:
        headers = visitor.get("/study/none").headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "set-cookie" not in headers


def test_other_sites_and_bound_names_are_refused(app):
    with app.visitor() as visitor:
        across = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
        assert visitor.get("/config", headers=across).status_code == 403
        assert visitor.get("/", headers={**across, "sec-fetch-mode": "navigate"}).status_code == 200
        form = visitor.post("/gradio_api/queue/join", headers={**across, "sec-fetch-mode": "navigate"})
        assert form.status_code == 403
        port = app.settings.port
        for host in ("evil.example", "127.0.0.1.evil.example", f"127.evil.example:{port}", "[", f"10.0.0.1:{port}"):
            assert visitor.get("/config", headers={"host": host}).status_code == 403, host
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "LOCALHOST"):
            assert visitor.get("/config", headers={"host": host}).status_code == 200, host


def test_frames_are_allowed_by_name():
    assert page_policy(b"", b"", "'self' https://huggingface.co").endswith(
        "frame-ancestors 'self' https://huggingface.co"
    )


def test_scripts_that_are_put_into_the_head_later_are_named_too():
    script = "alert(1)"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page_policy(b"", f"<script>{script}</script>".encode(), "'self'")


def test_metrics_are_off_unless_asked_for_and_health_is_always_told(app):
    guard = Guard(Admission(WorkLimits()), Metrics())
    assert [route.path for route in status_routes(guard, lambda: "ready", with_metrics=False)] == ["/healthz"]
    states = ["ready", "failed", "starting", "ready"]
    client = TestClient(Starlette(routes=status_routes(guard, lambda: states.pop(0), with_metrics=True)))
    assert client.get("/healthz").json() == {"status": "ok", "engine": "ready"}
    assert client.get("/healthz").status_code == 503
    assert client.get("/healthz").status_code == 200
    guard.admission.close("the server is being restarted")
    assert client.get("/healthz").status_code == 503
    with app.visitor() as visitor:
        text = visitor.get("/metrics").text
    assert re.search(r"^audiolm_resident_bytes \d", text, re.MULTILINE)
    assert "audiolm_runs_in_line 0" in text
    assert "audiolm_engine_restarts_total 0" in text


def test_requests_of_an_address_are_counted_also_those_to_studies(app, tmp_path):
    async def yes(scope, receive, send):
        await PlainTextResponse("yes")(scope, receive, send)

    house = House(app.site.belongings, Uploads(1, 0, 0, lambda: 0), tmp_path, num_proxies=1, posts=Allowance(2, 600))
    client = TestClient(Door(yes, house))
    statuses = [client.post(path).status_code for path in ("/study/a/api/answer", "/gradio_api/reset", "/study/a")]
    assert statuses == [200, 200, 429]
    assert client.get("/study/a").status_code == 200
    assert client.post("/study/a", headers={"x-forwarded-for": "9.9.9.9"}).status_code == 200


def test_runs_beyond_the_line_are_sent_away_at_the_door_with_an_estimate():
    """By the API's name and by the number that the page's events have; other events pass."""
    passed = []

    async def gradio(scope, receive, send):
        passed.append((await receive())["body"])
        await PlainTextResponse("taken")(scope, receive, send)

    class Owned:
        def claims(self, visitor, session):
            return True

        def names_others(self, visitor, text):
            return False

        def note(self, visitor, body):
            pass

    house = House(Owned(), None, Path("nowhere"), admission=Admission(WorkLimits(max_runs=1)), run_events={7, "detect"})
    client = TestClient(Door(gradio, house), base_url="http://localhost")

    def ask(path: str, **value) -> httpx.Response:
        return client.post(f"/gradio_api/{path}", json=value)

    for number in range(MAX_EXPECTED):
        path, value = ("queue/join", {"fn_index": 7}) if number % 2 else ("call/detect", {"data": []})
        assert ask(path, **value).status_code == 200
    for refused in (
        ask("queue/join", fn_index=7),
        ask("queue/join", fn_index="7"),
        ask("run/other", fn_index=7.0),
        ask("call/v2/detect"),
        ask("call/detect", data=[]),
    ):
        assert refused.status_code == 429
        assert "no more are taken. Please try again in about" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
    for path, value in (("queue/join", {"fn_index": 6}), ("call/checkpoints", {}), ("queue/join", {"fn_index": [7]})):
        assert ask(path, **value).status_code == 200
    assert len(passed) == MAX_EXPECTED + 3


def test_the_door_knows_every_event_that_begins_a_run(app):
    numbers = {number for number, event in app.page.fns.items() if event.concurrency_id == "model"}
    assert len(numbers) > 8
    assert (
        numbers | {"continue", "detect", "inspect", "reconstruct", "ladder", "voices", "ablate"} <= app.site.run_events
    )
    assert "checkpoints" not in app.site.run_events
