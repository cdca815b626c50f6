"""Whose event is being answered."""

from __future__ import annotations

from gradio.context import LocalContext

from app.visitors import Visitor, identify


def current_visitor(num_proxies: int) -> Visitor:
    """Of the event that this thread answers; events of the server itself have no one."""
    request = LocalContext.request.get(None)
    if request is None or getattr(request, "request", None) is None:
        return Visitor("", "")
    peer = request.client.host if request.client else ""
    return identify(request.headers, peer, num_proxies)
