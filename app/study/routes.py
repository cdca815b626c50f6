"""The web side of listening studies: a FastAPI application, mounted beside the page on one server.

A participant's page asks with a session's token, the owner's with the study's secret; both travel in a header, never in
an address. Sounds are answered alike whatever they hold: the same headers, no name, no date, nothing to cache.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.routing import Mount

from app.settings import ASSETS
from app.study import errors, statistics
from app.study.analysis import analyse
from app.study.definition import Clip
from app.study.export import export_files, export_zip, methods
from app.study.library import Library
from app.study.store import MAX_KEY, PARTICIPANT_IDS, Store
from app.study.views import COMPLETE, RUNNING, Session

PREFIX = "/study"
PAGES = ASSETS / "study"
MAX_BODY_BYTES = 64 * 2**10

STATUS: tuple[tuple[type[errors.StudyError], int], ...] = (
    (errors.AnswerError, 422),
    (errors.NoSessionError, 404),
    (errors.UnknownStudyError, 404),
    (errors.ConflictError, 409),
    (errors.IncompleteError, 409),
    (errors.StudyFullError, 403),
    (errors.LapsedError, 410),
    (errors.StoreError, 500),
)
"""The first that fits; every other StudyError is 400."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'"
)


def study_route(library: Library) -> Mount:
    """Everything under PREFIX, to be put before the page's own routes."""
    return Mount(PREFIX, app=study_app(library))


def study_app(library: Library) -> FastAPI:
    """Pages and answers of every study of the library."""
    app = FastAPI(openapi_url=None)
    app.mount("/assets", StaticFiles(directory=PAGES))
    app.add_exception_handler(errors.StudyError, _refusal)
    app.middleware("http")(_guarded)
    app.include_router(_participant_routes(library))
    app.include_router(_owner_routes(library))
    return app


def _refusal(request: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 400)
    told = {name: getattr(error, name) for name in ("code", "redirect") if getattr(error, name, "")}
    return JSONResponse({"detail": str(error), **told}, status)


async def _guarded(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    is_asset = request.scope["path"].startswith(f"{request.scope['root_path']}/assets/")
    response = await answer(request)
    response.headers["Cache-Control"] = "no-cache" if is_asset else "no-store, no-transform"  # packed sizes would tell
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def posted(request: Request) -> dict[str, Any]:
    """The JSON object that was posted. Raises AnswerError: too large, or not one."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_BODY_BYTES:
            raise errors.AnswerError(f"at most {MAX_BODY_BYTES} bytes are taken")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise errors.AnswerError("expected JSON") from error
    if not isinstance(found, dict):
        raise errors.AnswerError("expected a JSON object")
    return found


def bearer(authorization: Annotated[str, Header()] = "") -> str:
    """The token of `Authorization: Bearer …`, or ""."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


Posted = Annotated[dict[str, Any], Depends(posted)]
Bearer = Annotated[str, Depends(bearer)]


# participants


def _participant_routes(library: Library) -> APIRouter:
    router, store = APIRouter(prefix="/{study_id}"), library.store

    def entitled(study_id: str, token: str) -> Session:
        session = store.session(token)
        if session.study_id != study_id:
            raise errors.NoSessionError("this session belongs to another study")
        return session

    def standing(session: Session, token: str) -> dict[str, Any]:
        trial = store.next_trial(token) if session.state == RUNNING else None
        finish = store.finish(token) if session.state == COMPLETE else None
        shown = {name: value and value.to_dict() for name, value in (("trial", trial), ("finish", finish))}
        return {"session": {**session.to_dict(), "token": ""}, **shown}

    def begun(session: Session) -> dict[str, Any]:
        return {"token": session.token, **standing(session, session.token)}

    @router.get("")
    def page(study_id: str) -> FileResponse:
        return FileResponse(PAGES / "participant.html", 200 if study_id in store.studies() else 404)

    @router.get("/api/page")
    def texts(study_id: str) -> dict[str, Any]:
        return store.page(study_id).to_dict()

    @router.post("/api/enrol")
    def enrol(study_id: str, body: Posted, token: Bearer) -> dict[str, Any]:
        return begun(store.enrol(study_id, _ids(body), token))

    @router.post("/api/consent")
    def consent(study_id: str, body: Posted, token: Bearer) -> dict[str, Any]:
        return begun(store.consent(study_id, _ids(body), body.get("agreed") is True, _text(body, "key"), token))

    @router.get("/api/step")
    def step(study_id: str, token: Bearer) -> dict[str, Any]:
        return standing(entitled(study_id, token), token)

    @router.get("/api/sound/{handle}")
    def sound(study_id: str, handle: str, token: Bearer) -> Response:
        entitled(study_id, token)
        return Response(library.clip_file(*store.clip(token, handle)).read_bytes(), media_type="audio/wav")

    @router.post("/api/answer")
    def answer(study_id: str, body: Posted, token: Bearer) -> dict[str, Any]:
        entitled(study_id, token)
        payload = {name: value for name, value in body.items() if name not in ("trial", "key")}
        receipt = store.answer(token, _text(body, "trial"), payload, _text(body, "key"))
        feedback = receipt.feedback and receipt.feedback.to_dict()
        return {**standing(store.session(token), token), "feedback": feedback}

    @router.post("/api/finish")
    def finish(study_id: str, token: Bearer) -> dict[str, Any]:
        entitled(study_id, token)
        done = store.finish(token)
        return {**standing(store.session(token), token), "finish": done.to_dict()}

    @router.post("/api/withdraw")
    def withdraw(study_id: str, token: Bearer) -> dict[str, Any]:
        entitled(study_id, token)
        store.withdraw(token)
        return {"erased": True}

    return router


def _ids(body: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the participant's link; the store reads those that it knows."""
    found = body.get("ids")
    return found if isinstance(found, dict) else {}


def _text(body: dict[str, Any], name: str) -> str:
    """Raises AnswerError where there is no such text, or a longer one than is ever made."""
    value = body.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_KEY:
        raise errors.AnswerError(f"{name} must be a text of 1 to {MAX_KEY} characters")
    return value


# owners


def _owner_routes(library: Library) -> APIRouter:
    router, store = APIRouter(prefix="/{study_id}"), library.store

    def owned(study_id: str, token: str) -> None:
        if not store.is_owner(study_id, token):
            raise errors.UnknownStudyError("no study with this secret: use the owner's link, to its last character")

    @router.get("/results")
    def page(study_id: str) -> FileResponse:
        return FileResponse(PAGES / "results.html")

    @router.get("/api/results")
    def results(study_id: str, token: Bearer, mixed: bool = False) -> dict[str, Any]:
        owned(study_id, token)
        records = store.results(study_id)
        found = analyse(records, with_mixed=mixed)
        return {
            **found.to_dict(),
            "methods": methods(records, found),
            "closed": records.closed,
            "mixed": mixed,
            "margin": records.study.plan.equivalence_margin,
            "clip_facts": {clip.id: _facts(clip) for clip in records.study.clips},
        }

    @router.get("/api/planner")
    def planner(study_id: str, token: Bearer, margin: float, power: float, design_effect: float) -> dict[str, Any]:
        owned(study_id, token)
        try:
            return dataclasses.asdict(statistics.planner(margin, power, design_effect))
        except ValueError as error:
            raise errors.AnswerError(str(error)) from error

    @router.get("/api/export")
    def archive(study_id: str, token: Bearer, ids: bool = False) -> Response:
        owned(study_id, token)
        return Response(export_zip(store.results(study_id), with_ids=ids), media_type="application/zip")

    @router.get("/api/export/{name}")
    def file(study_id: str, name: str, token: Bearer, ids: bool = False) -> Response:
        owned(study_id, token)
        content = export_files(store.results(study_id), with_ids=ids).get(name)
        if content is None:
            raise errors.UnknownStudyError(f"no file {name[:MAX_KEY]!r} in the export")
        return Response(content, media_type="application/octet-stream")

    @router.post("/api/close")
    def close(study_id: str, body: Posted, token: Bearer) -> dict[str, Any]:
        owned(study_id, token)
        store.close_study(study_id, body.get("closed") is not False)
        return {"closed": store.results(study_id).closed}

    @router.post("/api/erase")
    def erase(study_id: str, body: Posted, token: Bearer) -> dict[str, Any]:
        """For participants who ask for it after they have left: by the id that their platform knows them by."""
        owned(study_id, token)
        sessions = [_session_of(store, study_id, {name: body.get("participant")}) for name in PARTICIPANT_IDS]
        known = [session for session in sessions if session is not None]
        for session in known:
            store.withdraw(session.token)
        return {"erased": len(known)}

    return router


def _session_of(store: Store, study_id: str, ids: dict[str, Any]) -> Session | None:
    """None where nobody of that id has agreed. Raises AnswerError for an id that is none."""
    try:
        session = store.enrol(study_id, ids)
    except errors.StudyFullError:  # what somebody unknown is told
        return None
    return session if session.token else None


def _facts(clip: Clip) -> dict[str, Any]:
    """What the owner is told of a clip beside its ratings. `probability` is the detector's, of being generated."""
    probability = clip.detector.probability if clip.detector else None
    return {"item": clip.item, "condition": clip.condition, "generated": clip.generated, "probability": probability}
