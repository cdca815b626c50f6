"""What goes out through the door: headers, the page's policy and cookie, and a note of whose files are named."""

from __future__ import annotations

from enum import Enum, auto

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from app.belongings import Belongings
from app.headers import COMMON, FILE_POLICY, page_policy, without_other_servers
from app.visitors import COOKIE, Visitor, new_token


class Kind(Enum):
    """What a route is."""

    PAGE = auto()
    ASSET = auto()
    FILE = auto()
    UPLOAD = auto()
    EVENT = auto()
    STREAM = auto()
    PLAIN = auto()
    LOGIN = auto()
    OWN = auto()  # of this application, with headers of its own


FILE_HEADERS = ("content-type", "content-length", "content-range", "content-disposition", "accept-ranges", "etag")
"""What an answer with a file keeps: Gradio sends the request's own headers back with a part of one."""

COOKIE_AGE_S = 24 * 3600


class Answer:
    """The `send` of one request. Set `kind` before anything is sent."""

    def __init__(self, send: Send, visitor: Visitor, belongings: Belongings) -> None:
        self.visitor = visitor
        self.kind: Kind | None = Kind.OWN
        self.frame_ancestors, self.head = "'self'", b""
        self.secure = False
        self.begun = False
        self._send, self._belongings = send, belongings
        self._names_files = False
        self._page: tuple[Message, bytearray] | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            await self._start(message)
        elif message["type"] == "http.response.body":
            await self._continue(message)
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        is_page = self.kind is Kind.PAGE and headers.get("content-type", "").startswith("text/html")
        if self.kind is Kind.FILE:
            for name in set(headers.keys()) - set(FILE_HEADERS):
                del headers[name]
            headers["cache-control"] = "private, no-cache"
        elif self.kind is not Kind.OWN and self.kind is not Kind.ASSET:
            headers["cache-control"] = "no-store"
        for name, value in COMMON.items():
            headers.setdefault(name, value)
        if not is_page and self.kind is not Kind.OWN:
            headers["content-security-policy"] = FILE_POLICY
        self._names_files = self.kind in (Kind.EVENT, Kind.STREAM, Kind.UPLOAD) and message["status"] < 300
        if is_page:
            self._page = (message, bytearray())
        else:
            await self._send(message)

    async def _continue(self, message: Message) -> None:
        body = message.get("body", b"")
        if self._page is not None:
            self._page[1].extend(body)
            if not message.get("more_body", False):
                await self._send_page(*self._page)
            return
        if self._names_files:
            self._belongings.note(self.visitor.key, body)
        await self._send(message)

    async def _send_page(self, message: Message, body: bytearray) -> None:
        page = without_other_servers(bytes(body))
        headers = MutableHeaders(raw=message["headers"])
        headers["content-security-policy"] = page_policy(page, self.head, self.frame_ancestors)
        if body:  # HEAD has none, and states the length all the same
            headers["content-length"] = str(len(page))
        if not self.visitor.cookie:
            # In a frame of another site a browser keeps only what is marked for it, which needs https.
            across = "SameSite=None; Secure; Partitioned" if self.secure else "SameSite=Lax"
            cookie = f"{COOKIE}={new_token()}; Max-Age={COOKIE_AGE_S}; Path=/; HttpOnly; {across}"
            headers.append("set-cookie", cookie)
        await self._send(message)
        await self._send({"type": "http.response.body", "body": page})
