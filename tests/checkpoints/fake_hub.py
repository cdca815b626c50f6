"""A server on 127.0.0.1 that speaks the Hub's endpoints for models: info, tree, resolve, create, LFS batch, commit."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"
Files = dict[str, bytes]


@dataclass
class Repository:
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: Files, branch: str = "main") -> str:
        """Makes `files` the whole content of the branch; returns the commit's id."""
        seed = json.dumps([len(self.commits), sorted((k, _blob_id(v)) for k, v in files.items())])
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class FakeHub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)  # LFS objects by SHA-256
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def create(self, repo_id: str, files: Files | None = None) -> Repository:
        repository = self.repositories[repo_id] = Repository()
        repository.commit(files or {})
        return repository

    def downloads(self) -> list[str]:
        """Names of the files whose content was asked for."""
        return [line.rsplit("/", 1)[1] for line in self.requests if line.startswith("GET") and "/resolve/" in line]


@contextmanager
def serve() -> Iterator[FakeHub]:
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_lfs(name: str) -> bool:
    return name.endswith(".safetensors")


class _Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message or code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        """Silent."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            for methods, pattern, action in _ROUTES:
                if self.command in methods and (match := re.fullmatch(pattern, path)):
                    action(self, *(unquote(group) for group in match.groups()))
                    return
            raise _Refusal(404)
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)} if refusal.code else {}
            self._send_json({"error": str(refusal)}, refusal.status, headers)

    def _info(self, repo_id: str, revision: str = "main") -> None:
        sha, files = self._commit(repo_id, revision)
        siblings = [{"rfilename": name} for name in sorted(files)]
        self._send_json({"id": repo_id, "sha": sha, "private": False, "tags": [], "siblings": siblings})

    def _tree(self, repo_id: str, revision: str) -> None:
        entries = []
        for name, content in sorted(self._commit(repo_id, revision)[1].items()):
            entry = {"type": "file", "path": name, "size": len(content), "oid": _blob_id(content)}
            if _is_lfs(name):
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self._send_json(entries)

    def _resolve(self, repo_id: str, revision: str, name: str) -> None:
        sha, files = self._commit(repo_id, revision)
        if self.hub.repositories[repo_id].gated:
            raise _Refusal(403, "GatedRepo", "ask first")
        if name not in files:
            raise _Refusal(404, "EntryNotFound", f"{name} not found")
        etag = hashlib.sha256(files[name]).hexdigest() if _is_lfs(name) else _blob_id(files[name])
        self._send(files[name], "application/octet-stream", 200, {"X-Repo-Commit": sha, "ETag": f'"{etag}"'})

    def _create(self) -> None:
        self._require_token()
        request = json.loads(self.body)
        repo_id = f"{request['organization']}/{request['name']}"
        exists = repo_id in self.hub.repositories
        if not exists:
            self.hub.create(repo_id)
        self._send_json({"url": f"{self.hub.url}/{repo_id}"}, 409 if exists else 200)

    def _validate_card(self) -> None:
        content = json.loads(self.body)["content"]
        errors = [] if content.startswith("---\nlicense: ") else [{"message": "front matter without a license"}]
        self._send_json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _preupload(self, repo_id: str, revision: str) -> None:
        self._require_token()
        files = [
            {"path": file["path"], "uploadMode": "lfs" if _is_lfs(file["path"]) else "regular", "shouldIgnore": False}
            for file in json.loads(self.body)["files"]
        ]
        self._send_json({"files": files})

    def _lfs_batch(self, repo_id: str) -> None:
        self._require_token()
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            if wanted["oid"] not in self.hub.stored:
                wanted["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}
            objects.append(wanted)
        self._send_json({"objects": objects, "transfer": "basic"})

    def _lfs_store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refusal(422, "", "content does not match its hash")
        self.hub.stored[oid] = self.body
        self._send_json({})

    def _commit_changes(self, repo_id: str, revision: str) -> None:
        self._require_token()
        files = dict(self._commit(repo_id, revision)[1])
        for line in self.body.splitlines():
            change = json.loads(line)
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif change["key"] == "deletedFile":
                del files[value["path"]]
        sha = self.hub.repositories[repo_id].commit(files, revision)
        self._send_json({"commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}", "commitOid": sha, "success": True})

    def _commit(self, repo_id: str, revision: str) -> tuple[str, Files]:
        repository = self.hub.repositories.get(repo_id)
        if repository is None:
            raise _Refusal(404, "RepoNotFound", "Repository not found")
        sha = repository.resolve(revision)
        if sha is None:
            raise _Refusal(404, "RevisionNotFound", "Invalid rev id")
        return sha, repository.commits[sha]

    def _require_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Refusal(401, "", "Invalid username or password.")

    def _send_json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), "application/json", status, headers)

    def _send(self, content: bytes, kind: str, status: int, headers: dict[str, str] | None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


_ID = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    (("GET",), rf"/api/models/{_ID}", _Handler._info),
    (("GET",), rf"/api/models/{_ID}/revision/([^/]+)", _Handler._info),
    (("GET",), rf"/api/models/{_ID}/tree/([^/]+)", _Handler._tree),
    (("GET", "HEAD"), rf"/{_ID}/resolve/([^/]+)/(.+)", _Handler._resolve),
    (("POST",), r"/api/repos/create", _Handler._create),
    (("POST",), r"/api/validate-yaml", _Handler._validate_card),
    (("POST",), rf"/api/models/{_ID}/preupload/([^/]+)", _Handler._preupload),
    (("POST",), rf"/{_ID}\.git/info/lfs/objects/batch", _Handler._lfs_batch),
    (("PUT",), r"/lfs/([0-9a-f]{64})", _Handler._lfs_store),
    (("POST",), rf"/api/models/{_ID}/commit/([^/]+)", _Handler._commit_changes),
]
