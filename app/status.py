"""For whoever runs the server: `/healthz`, which is always there, and `/metrics`, which is there when asked for."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.guard import Guard

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def status_routes(guard: Guard, engine_state: Callable[[], str], with_metrics: bool) -> list[Route]:
    """To be put before the page's own routes."""

    def health(request: Request) -> Response:
        """200 while runs are taken, 503 once the server is about to stop, or has no engine and cannot start one."""
        engine = engine_state()
        state = "stopping" if guard.admission.closed else "failed" if engine == "failed" else "ok"
        told = {"status": state, "engine": engine}
        return JSONResponse(told, 200 if state == "ok" else 503, {"cache-control": "no-store"})

    def metrics(request: Request) -> Response:
        return PlainTextResponse(guard.metrics.text(), media_type=PROMETHEUS)

    return [Route("/healthz", health), *([Route("/metrics", metrics)] if with_metrics else [])]
