"""The Hub's API for dataset repositories: standard library, threads of this process, loopback.

Large files are served by "another host": the same server, called localhost instead of 127.0.0.1.
It answers 400 to whoever shows it a token, as storage behind signed URLs does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

sys.path.append(str(Path(__file__).parent))  # this folder is no package
from hub_data import (
    Answer,
    Fault,
    File,
    Refused,
    Repo,
    Seen,
    entry_of,
    mode_of,
    ranged,
    reset,
)

SIGNATURE = "X-Amz-Signature=5ec4e7"
_API = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/([a-z-]+)/([^/]+)(?:/(.*))?)?")
_RESOLVE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_BATCH = re.compile(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
_STORED = re.compile(r"/storage/([0-9a-f]{64})(?:/(\d+|complete))?")


class Hub:
    """The server; what it keeps outlives `stop`.

    Attributes
    ----------
    token : str
        The user's; everything that writes needs it.
    page : int
        Entries of one page of a listing.
    part : int
        Bytes above which uploads are in parts of this size; 0 for none.
    xet : bool
        Whether Xet is chosen where it is offered.
    """

    def __init__(self) -> None:
        self.token = "hf_" + hashlib.sha1(str(time.time_ns()).encode()).hexdigest()
        self.page, self.part, self.xet = 1000, 0, False
        self.repos: dict[str, Repo] = {}
        self.storage: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.log: list[Seen] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.live: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    # -- for tests ------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen; on the port of before, if there was one."""
        handler = type("Bound", (_Handler,), {"server_hub": self})
        self._server = _Server(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End at once, in the middle of answers."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        for live in list(self.live):
            reset(live)

    def repo(self, name: str, *, private: bool = False) -> Repo:
        """A repository, made where there is none."""
        with self.lock:
            if name not in self.repos:
                made = self.repos[name] = Repo(private)
                made.commit({".gitattributes": File.regular(b"*.bin filter=lfs\n")})
            return self.repos[name]

    def put(self, name: str, path: str, data: bytes) -> None:
        """Commit a file as somebody else."""
        with self.lock:
            repo = self.repo(name)
            repo.commit({**repo.files, path: self._kept(path, data)})

    def read(self, name: str, path: str) -> bytes:
        """A file at the tip."""
        file = self.repos[name].files[path]
        return self.storage[file.sha256] if file.sha256 else file.data

    def seen(self, match: str) -> list[Seen]:
        """Lines of the log whose ``METHOD path`` matches."""
        return [s for s in list(self.log) if re.search(match, f"{s.method} {s.path}")]

    def _kept(self, path: str, data: bytes) -> File:
        if mode_of(path, len(data), data) == "regular":
            return File.regular(data)
        sha256 = hashlib.sha256(data).hexdigest()
        self.storage[sha256] = data
        return File.large(sha256, len(data))

    # -- requests -------------------------------------------------------------------------------

    def answer(self, request: _Handler) -> Answer:
        """The right answer."""
        url = urlsplit(request.path)
        try:
            if url.path.startswith("/storage/"):
                return self._stored(request, url.path, url.query)
            with self.lock:
                return self._route(request, url.path, parse_qs(url.query))
        except Refused as refused:
            return refused.answer

    def _route(self, request: _Handler, path: str, query: dict[str, list[str]]) -> Answer:
        if found := _RESOLVE.fullmatch(path):
            return self._resolve(request, *map(unquote, found.groups()))
        if path.startswith("/api/resolve-cache/"):
            file = self.repos[query["repo"][0]].commits[query["commit"][0]][query["path"][0]]
            return ranged(request.headers.get("Range", ""), file.data, {"ETag": f'"{file.blob}"'})
        if found := _BATCH.fullmatch(path):
            return self._batch(request, self._visible(request, found[1]))
        if path == "/api/whoami-v2":
            self._needs_token(request)
            return Answer.json({"name": "me", "orgs": [{"name": "lab"}]})
        if path == "/api/repos/create":
            return self._create(request)
        if path == "/api/verify":
            there = request.json()["oid"] in self.storage
            return Answer.json({}) if there else Answer.error(404, "", "not uploaded")
        if found := _API.fullmatch(path):
            repo = self._visible(request, found[1])
            what, revision, rest = (unquote(g or "") for g in found.groups()[1:])
            call = getattr(self, f"_{what or 'revision'}".replace("-", "_"))
            return call(request, repo, self._commit_of(repo, revision or "main"), rest or query)
        raise Refused(404, "", "no such route")

    def _visible(self, request: _Handler, name: str) -> Repo:
        repo = self.repos.get(name)
        if repo is None or (repo.private and not request.authorized):
            raise Refused(404 if request.authorized else 401, "RepoNotFound", "Not found")
        return repo

    def _needs_token(self, request: _Handler) -> None:
        if not request.authorized:
            raise Refused(401, "", "Invalid username or password.")

    def _commit_of(self, repo: Repo, revision: str) -> str:
        commit = repo.tip if revision == "main" else revision
        if commit not in repo.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _create(self, request: _Handler) -> Answer:
        self._needs_token(request)
        wanted = request.json()
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] not in {"me", "lab"}:
            raise Refused(403, "", "You don't have the rights to create a dataset here")
        if name in self.repos:
            raise Refused(409, "", "You already created this dataset repo")
        assert wanted["type"] == "dataset"
        self.repo(name, private=wanted.get("visibility") == "private")
        return Answer.json({"url": f"{self.url}/datasets/{name}"})

    def _revision(self, request: _Handler, repo: Repo, commit: str, _: object) -> Answer:
        return Answer.json({"id": "x", "sha": commit})

    def _tree(self, request: _Handler, repo: Repo, commit: str, _: object) -> Answer:
        url = urlsplit(request.path)
        folder = unquote(_API.fullmatch(url.path)[4] or "")
        query = parse_qs(url.query)
        start = f"{folder}/" if folder else ""
        files = {p: f for p, f in sorted(repo.commits[commit].items()) if p.startswith(start)}
        if folder and not files:
            raise Refused(404, "EntryNotFound", f"{folder} does not exist on the revision")
        rows = [entry_of(p, f) for p, f in files.items()]
        folders = {p[:n] for p in files for n, c in enumerate(p) if c == "/" and n >= len(start)}
        rows += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": p} for p in folders]
        at = int(query.get("cursor", ["0"])[0])
        headers = {}
        if at + self.page < len(rows):
            following = f"{self.url}{url.path}?recursive=true&cursor={at + self.page}"
            headers["Link"] = f'<{following}>; rel="next"'
        return Answer.json(rows[at : at + self.page], **headers)

    def _preupload(self, request: _Handler, repo: Repo, commit: str, _: object) -> Answer:
        self._needs_token(request)
        asked = request.json()["files"]
        modes = [mode_of(f["path"], f["size"], base64.b64decode(f["sample"])) for f in asked]
        said = [
            {"path": f["path"], "uploadMode": mode, "shouldIgnore": False}
            for f, mode in zip(asked, modes, strict=True)
        ]
        return Answer.json({"files": said})

    def _batch(self, request: _Handler, repo: Repo) -> Answer:
        self._needs_token(request)
        wanted, objects, transfer = request.json(), [], "basic"
        if self.xet and "xet" in wanted["transfers"]:
            transfer = "xet"
        for item in wanted["objects"]:
            row = dict(item)
            if item["oid"] not in self.storage:
                row["actions"] = {
                    "upload": self._upload(item["oid"], item["size"]),
                    "verify": {"href": f"{self.url}/api/verify"},
                }
                transfer = "multipart" if "chunk_size" in str(row) else transfer
            objects.append(row)
        return Answer.json({"transfer": transfer, "objects": objects})

    def _upload(self, oid: str, size: int) -> dict[str, Any]:
        href = f"{self.cdn}/storage/{oid}"
        if not self.part or size <= self.part:
            return {"href": f"{href}?{SIGNATURE}"}
        urls = {f"{n + 1:05}": f"{href}/{n}?{SIGNATURE}" for n in range(-(-size // self.part))}
        header = {"chunk_size": str(self.part), **urls}
        return {"href": f"{href}/complete?{SIGNATURE}", "header": header}

    @property
    def cdn(self) -> str:
        """The other host."""
        return f"http://localhost:{self._port}"

    def _commit(self, request: _Handler, repo: Repo, commit: str, _: object) -> Answer:
        self._needs_token(request)
        lines = [json.loads(line) for line in request.body.splitlines()]
        if lines[0]["value"].get("parentCommit") not in {None, repo.tip}:
            raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(repo.files)
        for line in lines[1:]:
            self._apply(files, line["key"], line["value"])
        return Answer.json({"success": True, "commitOid": repo.commit(files), "commitUrl": "x"})

    def _apply(self, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "deletedFile":
            if files.pop(path, None) is None:
                raise Refused(404, "EntryNotFound", f"{path} does not exist")
        elif key == "lfsFile":
            if len(self.storage.get(value["oid"], b"")) != value["size"]:
                raise Refused(400, "", f"{path}: its LFS object is missing")
            files[path] = File.large(value["oid"], value["size"])
        else:
            data = base64.b64decode(value["content"])
            if mode_of(path, len(data), data) == "lfs":
                raise Refused(400, "", f"{path}: must be an LFS file")
            files[path] = File.regular(data)

    def _resolve(self, request: _Handler, name: str, revision: str, path: str) -> Answer:
        repo = self._visible(request, name)
        commit = self._commit_of(repo, revision)
        file = repo.commits[commit].get(path)
        if file is None:
            raise Refused(404, "EntryNotFound", "Entry not found")
        said = {"X-Repo-Commit": commit, "ETag": f'"{file.blob}"'}
        if not file.sha256:
            query = f"repo={quote(name)}&commit={commit}&path={quote(path)}"
            return Answer(307, b"", {**said, "Location": f"/api/resolve-cache/x?{query}"})
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        place = f"{self.cdn}/storage/{file.sha256}?{SIGNATURE}"
        return Answer(302, b"moved", {**said, **linked, "Location": place})

    def _stored(self, request: _Handler, path: str, query: str) -> Answer:
        oid, more = _STORED.fullmatch(path).groups()
        if request.headers.get("Authorization") or query != SIGNATURE:
            return Answer.error(400, "", "only one authorization mechanism is allowed")
        data = request.body
        if request.command == "PUT" and more is not None:
            self.parts[oid, int(more)] = data
            return Answer(200, b"", {"ETag": f'"part-{more}"'})
        if request.command == "POST":
            numbers = [p["partNumber"] - 1 for p in request.json()["parts"]]
            data = b"".join(self.parts[oid, n] for n in numbers)
        if request.command in {"PUT", "POST"}:
            if hashlib.sha256(data).hexdigest() != oid:
                return Answer.error(400, "", "the content does not match its sha256")
            self.storage[oid] = data
            return Answer(200, b"", {"ETag": '"whole"'})
        if oid not in self.storage:
            return Answer.error(404, "", "no such object")
        return ranged(request.headers.get("Range", ""), self.storage[oid], {"ETag": '"storage"'})


class _Server(ThreadingHTTPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that went away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_hub: Hub
    body = b""

    @property
    def authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.server_hub.token}"

    def json(self) -> Any:
        return json.loads(self.body)

    def setup(self) -> None:
        super().setup()
        self.server_hub.live.add(self.connection)

    def finish(self) -> None:
        self.server_hub.live.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """The log is `Hub.log`."""

    def _serve(self) -> None:
        hub = self.server_hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self._fault()
        if fault.before is not None:
            fault.before()
        if fault.status:
            answer = Answer(fault.status, b'{"error": "injected"}', fault.headers)
        else:
            answer = hub.answer(self)
            body = answer.body if fault.change is None else fault.change(answer.body)
            answer = Answer(answer.status, body, {**answer.headers, **fault.headers})
        if fault.after is not None:
            fault.after()
        self._log(answer)
        self._send(answer, fault.cut)

    def _fault(self) -> Fault:
        line = f"{self.command} {urlsplit(self.path).path}"
        with self.server_hub.lock:
            for fault in self.server_hub.faults:
                if not re.search(fault.match, line):
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.times:
                    fault.times -= 1
                    return fault
        return Fault("")

    def _log(self, answer: Answer) -> None:
        host = self.headers.get("Host", "").partition(":")[0]
        shown = "Authorization" in self.headers
        asked = self.headers.get("Range", "")
        path, size = urlsplit(self.path).path, len(self.body)
        seen = Seen(self.command, unquote(path), host, shown, asked, answer.status, size)
        self.server_hub.log.append(seen)

    def _send(self, answer: Answer, cut: int | None) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut is None or cut >= len(answer.body):
            self.wfile.write(answer.body)
            return
        self.wfile.write(answer.body[:cut])
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815 - names of the standard library
