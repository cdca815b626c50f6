"""Headers of the page, and a policy that names every inline script of it by its hash."""

from __future__ import annotations

import base64
import hashlib
import re

COMMON = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(self), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""On every answer, whatever it is, unless it says otherwise itself."""

FILE_POLICY = "default-src 'none'; sandbox"
"""Of what visitors uploaded, and of everything that is no page: nothing in it may run."""

_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)
_ELSEWHERE = re.compile(rb"\s*<(?:script|link|meta)[^>]*(?:src|href|content)=\"https://[^>]*>(?:</script>)?")


def page_policy(page: bytes, head: bytes, frame_ancestors: str) -> str:
    """The Content-Security-Policy of the page: its own scripts, this server alone, no plugins, no forms elsewhere.

    `head` is what Gradio's script puts into the page's head later, out of the page's configuration. Gradio makes
    functions out of text for its events (unsafe-eval) and writes style attributes (unsafe-inline).
    """
    scripts = " ".join(sorted({f"'sha256-{_sha256(found)}'" for found in _INLINE_SCRIPT.findall(page + head)}))
    return (
        f"default-src 'self'; script-src 'self' 'unsafe-eval' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: "
        "blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        f"frame-src 'none'; frame-ancestors {frame_ancestors}"
    )


def without_other_servers(page: bytes) -> bytes:
    """The page without the tags of Gradio's template that name another server."""
    return _ELSEWHERE.sub(b"", page)


def _sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()
