"""A hub of one data set on this machine: what the hub client asks for, as the hub answers it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

REPOSITORY = "someone/prefs"
Files = dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """Commits by hash, names of commits, and a log of the requests and of the bytes of files sent."""

    daemon_threads = True

    def __init__(self, commits: dict[str, Files], refs: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits, self.refs = commits, refs
        self.requests: list[str] = []
        self.sent: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, revision: str) -> str | None:
        sha = self.refs.get(revision, revision)
        return sha if sha in self.commits else None


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        api, files = f"/api/datasets/{REPOSITORY}", f"/datasets/{REPOSITORY}/resolve/"
        if path.startswith(files):
            revision, _, name = path.removeprefix(files).partition("/")
            self._file(revision, name)
        elif path == api or path.startswith(f"{api}/revision/"):
            self._info(path.removeprefix(api).removeprefix("/revision/") or "main")
        elif path.startswith((f"{api}/tree/", f"{api}/paths-info/")):
            revision, _, folder = path.removeprefix(api).split("/", 2)[2].partition("/")
            wanted = _paths(body) if self.command == "POST" else None
            self._tree(revision, folder, wanted)
        else:
            self._json(404, {"error": "Repository not found"}, "RepoNotFound")

    def _info(self, revision: str) -> None:
        sha = self.server.commit(revision)
        if sha is None:
            self._json(404, {"error": "Revision not found"}, "RevisionNotFound")
        else:
            siblings = [{"rfilename": name} for name in self.server.commits[sha]]
            self._json(
                200, {"id": REPOSITORY, "sha": sha, "siblings": siblings, "private": False, "tags": []}
            )

    def _tree(self, revision: str, folder: str, wanted: list[str] | None) -> None:
        sha = self.server.commit(revision)
        files = self.server.commits[sha] if sha else {}
        root = f"{folder}/" if folder else ""
        entries: list[dict[str, object]] = [
            {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
            for name, content in files.items()
            if (name in wanted if wanted is not None else name.startswith(root))
        ]
        if wanted is None:
            below = [name.removeprefix(root) for name in files if name.startswith(root)]
            folders = sorted({name.partition("/")[0] for name in below if "/" in name})
            entries += [
                {"type": "directory", "path": root + f, "size": 0, "oid": _etag(f.encode())} for f in folders
            ]
        if entries or wanted is not None or (sha and not folder):
            self._json(200, entries)
        else:
            self._json(404, {"error": "Entry not found"}, "EntryNotFound")

    def _file(self, revision: str, name: str) -> None:
        sha = self.server.commit(revision)
        content = self.server.commits[sha].get(name) if sha else None
        if sha is None or content is None:
            self._json(
                404, {"error": "Entry not found"}, "EntryNotFound" if sha else "RevisionNotFound", commit=sha
            )
            return
        start, end, status = 0, len(content), 200
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(int(last or len(content)) + 1, len(content)), 206
        self.send_response(status)
        self.send_header("ETag", f'"{_etag(content)}"')
        self.send_header("X-Repo-Commit", sha)
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command != "HEAD":
            self._send(name, content[start:end])

    def _send(self, name: str, content: bytes) -> None:
        """In pieces, so that what a client that hangs up has not taken is not counted."""
        piece = 1 << 16
        try:
            for start in range(0, len(content), piece):
                self.wfile.write(content[start : start + piece])
                self.server.sent[name] = self.server.sent.get(name, 0) + len(content[start : start + piece])
        except ConnectionError:
            self.close_connection = True

    def _json(self, status: int, value: object, error: str = "", commit: str | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _paths(body: bytes) -> list[str]:
    from urllib.parse import parse_qs

    try:
        found = json.loads(body).get("paths", [])
    except ValueError:
        found = parse_qs(body.decode()).get("paths", [])
    return [found] if isinstance(found, str) else list(found)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving(commits: dict[str, Files], refs: dict[str, str]) -> Iterator[Hub]:
    """The hub, answering while the context lasts."""
    hub = Hub(commits, refs)
    thread = Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join(10)
