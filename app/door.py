"""The door of the web server: what of Gradio is open, who may have which file, how much may be sent, which headers.

Gradio answers some sixty routes; those of OPEN are let through, everything else is answered with 404, also what a later
version of Gradio brings. `DECIDED_AGAINST` names the others, so that a test can tell a route that nobody decided on.
"""

from __future__ import annotations

import json
import logging
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.answers import Answer, Kind
from app.belongings import Belongings
from app.limits import Admission, Allowance, spoken
from app.uploads import Uploads
from app.visitors import Visitor, identify, is_this_machine
from audiolm.errors import BusyError

API = "/gradio_api"
logger = logging.getLogger(__name__)
MAX_JSON_BYTES = 2**20
OPEN: tuple[tuple[str, str, Kind], ...] = (
    ("GET HEAD", r"/", Kind.PAGE),
    ("GET", r"/(static|assets|svelte)/.*|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json", Kind.ASSET),
    ("GET", rf"{API}/theme\.css", Kind.ASSET),
    ("GET", r"/config/?", Kind.PLAIN),  # gradio_client begins here
    ("GET", rf"{API}/(info|app_id|startup-events|heartbeat/[^/]+|upload_progress)/?", Kind.PLAIN),
    ("GET HEAD", rf"{API}/file=.*", Kind.FILE),
    ("POST", rf"{API}/upload", Kind.UPLOAD),
    ("POST", rf"{API}/queue/join", Kind.EVENT),
    ("POST", rf"{API}/(run|call|call/v2)/[\w-]+/?", Kind.EVENT),  # run: events of the page that need no queue
    ("POST", rf"{API}/(cancel|reset)/?", Kind.EVENT),
    ("GET", rf"{API}/queue/data", Kind.STREAM),
    ("GET", rf"{API}/call/(v2/)?[\w-]+/[0-9a-f]+", Kind.STREAM),
    ("POST", r"/login/?", Kind.LOGIN),
    ("GET", r"/logout", Kind.PLAIN),
)
"""(methods, path, what it is). The first that fits counts."""

DECIDED_AGAINST = (
    "/gradio_api/user",  # who is logged in
    "/gradio_api/login_check",
    "/gradio_api/token",  # the login's token, for scripts
    "/gradio_api/dev/reload",
    "/gradio_api/runs",  # run history
    "/gradio_api/run-history",
    "/gradio_api/deep_link",
    "/gradio_api/openapi.json",
    "/gradio_api/custom_component",
    "/gradio_api/proxy=",  # asks other servers
    "/gradio_api/stream",  # sound as HLS, which the page does not use
    "/gradio_api/file/",  # the old spelling of file=
    "/gradio_api/api",  # the old spelling of run
    "/gradio_api/component_server",
    "/gradio_api/queue/status",
    "/gradio_api/process_recording",  # runs ffmpeg
    "/gradio_api/vibe",
    "/gradio_api/undo-vibe",
    "/gradio_api/profiling",
    "/openapi.json",
    "/docs",
    "/redoc",
    "/monitoring",
    "/pwa_icon",
)
OWN_ROUTES = ("/study", "/healthz", "/metrics")
_RUN_IN_PATH = re.compile(rf"{API}/(?:run|call|call/v2)/([\w-]+)/?")
_PORT = re.compile(r":\d*$", re.ASCII)  # behind a host's name
_SESSION_IN_PATH = re.compile(rf"{API}/heartbeat/([^/]+)")


@dataclass(frozen=True)
class House:
    """What the door needs to know of the process."""

    belongings: Belongings
    uploads: Uploads
    prompts_folder: Path
    num_proxies: int = 0
    frame_ancestors: str = "'self'"
    head: bytes = b""  # scripts and styles of the page's own
    local: bool = True  # nobody but this machine is served
    posts: Allowance = field(default_factory=lambda: Allowance(0, 600.0))  # of an address: events, answers of studies
    admission: Admission | None = None
    run_events: set[int | str] = field(
        default_factory=set
    )  # events that begin a run: Gradio's numbers, the API's names


class Refused(Exception):
    """A request that goes no further: `told` is the answer's text."""

    def __init__(self, status: int, told: str, retry_s: float | None = None) -> None:
        super().__init__(told)
        self.status, self.told = status, told
        self.headers = {} if retry_s is None else {"retry-after": str(math.ceil(retry_s))}


def kind_of(method: str, path: str) -> Kind | None:
    """What an open route is; None for a closed one."""
    return next((kind for methods, own, kind in OPEN if method in methods.split() and re.fullmatch(own, path)), None)


class Door:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, house: House) -> None:
        self._app = app
        self._house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        visitor = identify(headers, (scope.get("client") or ("",))[0], self._house.num_proxies)
        answer = Answer(send, visitor, self._house.belongings)
        try:
            self._check_origin(scope["method"], headers)
            await self._let_in(scope, receive, answer, headers)
        except Refused as refusal:
            if answer.begun:
                raise
            await JSONResponse({"detail": refusal.told}, refusal.status, refusal.headers)(scope, receive, answer)
        except Exception:
            if answer.begun:
                raise
            logger.exception("unexpected error in an answer to %s", scope["method"])
            await JSONResponse({"detail": "something went wrong on the server"}, 500)(scope, receive, answer)

    async def _let_in(self, scope: Scope, receive: Receive, answer: Answer, headers: Headers) -> None:
        path, visitor = scope["path"], answer.visitor
        if not any(path == own or path.startswith(f"{own}/") for own in OWN_ROUTES):
            answer.kind = kind_of(scope["method"], path)
            answer.frame_ancestors, answer.head = self._house.frame_ancestors, self._house.head
            answer.secure = self._is_secure(scope, headers)
        if answer.kind is None:
            raise Refused(404, "there is nothing here")
        if scope["method"] == "POST":
            self._count(visitor)
        if answer.kind is Kind.FILE:
            self._check_file(visitor, path.removeprefix(f"{API}/file="))
        elif answer.kind is Kind.EVENT:
            body = await _read(receive)
            self._expect_run(visitor, path, self._check_event(visitor, body))
            receive = _once_more(body, receive)
        elif answer.kind is Kind.UPLOAD:
            receive = self._metered(visitor, receive, headers)
        elif answer.kind is Kind.LOGIN and not self._house.uploads.may_try_to_log_in(visitor.address):
            raise Refused(429, "too many attempts; please wait some minutes")
        if answer.kind is Kind.PAGE and scope["method"] == "HEAD":  # Gradio asks itself so, and gives up if it is slow
            await HTMLResponse()(scope, receive, answer)
            return
        found = _SESSION_IN_PATH.fullmatch(path)
        sessions = [found[1]] if found else parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])
        self._check_sessions(visitor, sessions)
        await self._app(scope, receive, answer)

    def _count(self, visitor: Visitor) -> None:
        if wait_s := self._house.posts.wait_s(visitor.address):
            told = f"too many requests from your address; please try again in {spoken(wait_s)}"
            raise Refused(429, told, wait_s)
        self._house.posts.take(visitor.address)

    def _check_origin(self, method: str, headers: Headers) -> None:
        """Refuses what another site's page asks for, and names that were bound anew to this machine's own address."""
        if self._house.local and not self._house.num_proxies:
            host = headers.get("host", "")
            if host and not is_this_machine(_PORT.sub("", host).strip("[]").lower()):
                raise Refused(403, "this server answers to localhost only; start it with --host to serve others")
        follows_link = headers.get("sec-fetch-mode") == "navigate" and method in ("GET", "HEAD")  # and posts no form
        if headers.get("sec-fetch-site") == "cross-site" and not follows_link:
            raise Refused(403, "pages of other sites cannot use this server")

    def _check_file(self, visitor: Visitor, path: str) -> None:
        """Gradio itself would answer addresses by asking other servers."""
        folder = self._house.prompts_folder
        if path in (str(example) for example in folder.glob("*.*")):
            return
        if not self._house.belongings.owns(visitor.key, path):
            raise Refused(404, "there is no such file, or it was deleted")

    def _expect_run(self, visitor: Visitor, path: str, value: Any) -> None:
        """Sends away at once what the line has no place for: Gradio takes some 50 ms of one core to get to an event."""
        named, number = _RUN_IN_PATH.fullmatch(path), value.get("fn_index") if isinstance(value, dict) else None
        if isinstance(number, str) and number.isdecimal():  # Gradio takes that too
            number = int(number)
        events = {named and named[1], number if isinstance(number, int | float) else None}
        if self._house.admission is None or not events & self._house.run_events:
            return
        try:
            self._house.admission.expect(visitor)
        except BusyError as busy:
            raise Refused(429, str(busy), self._house.admission.estimate_s()) from None

    def _check_event(self, visitor: Visitor, body: bytes) -> Any:
        """Files in an event must be the visitor's own, and so must the session be whose state it takes -> its JSON."""
        try:
            value = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            raise Refused(400, "expected JSON") from None
        belongings = self._house.belongings
        paths, texts = _paths_and_texts(value)
        if any(not (isinstance(path, str) and belongings.owns(visitor.key, path)) for path in paths) or any(
            belongings.names_others(visitor.key, text) for text in texts
        ):
            raise Refused(403, "a recording must be uploaded here first; it is kept for less than an hour")
        session = value.get("session_hash") if isinstance(value, dict) else None
        self._check_sessions(visitor, [] if session is None else [session])
        return value

    def _check_sessions(self, visitor: Visitor, sessions: list[Any]) -> None:
        for session in sessions:
            if not (isinstance(session, str) and self._house.belongings.claims(visitor.key, session)):
                raise Refused(403, "this session is somebody else's; please load the page again")

    def _metered(self, visitor: Visitor, receive: Receive, headers: Headers) -> Receive:
        """An upload, counted as it comes: also one that does not say beforehand how long it is."""
        uploads, announced = self._house.uploads, headers.get("content-length", "")
        if told := uploads.refusal(visitor.address, int(announced) if announced.isdecimal() else 0):
            raise Refused(413, told)
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if told := uploads.take(visitor.address, len(message.get("body", b""))) or uploads.too_large(num_bytes):
                raise Refused(413, told)
            return message

        return counted

    def _is_secure(self, scope: Scope, headers: Headers) -> bool:
        """Over https, or so says the proxy in front."""
        forwarded = headers.get("x-forwarded-proto", "").split(",")[0].strip() if self._house.num_proxies else ""
        return (forwarded or scope.get("scheme", "http")) == "https"


async def _read(receive: Receive) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
        if len(body) > MAX_JSON_BYTES:
            raise Refused(413, f"at most {MAX_JSON_BYTES} bytes are taken")
    return bytes(body)


def _once_more(body: bytes, receive: Receive) -> Receive:
    """`receive` of a body that has been read."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _paths_and_texts(value: Any) -> tuple[list[Any], list[str]]:
    """Of a JSON value, however deep: every "path", which Gradio takes for a file in whatever component it stands, and
    every text, names of fields too."""
    paths, texts, left = [], [], [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            if "path" in found:
                paths.append(found["path"])
            left += [*found, *found.values()]
        elif isinstance(found, list):
            left += found
        elif isinstance(found, str):
            texts.append(found)
    return paths, texts
