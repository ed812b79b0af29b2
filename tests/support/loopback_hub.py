"""A Hugging Face hub on loopback that supports pushing to and downloading from it."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_the_tests"
PLAIN = r"/api/models/(?P<name>[^/]+/[^/]+)"


class Hub(ThreadingHTTPServer):
    """The server and what it stores and receives.

    repositories: {name: {revision: {path: content}}}. created: bodies of the requests that created
    repositories. fetched: paths of the files that were downloaded.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = {}
        self.created = []
        self.fetched = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running():
    """A Hub that serves until the block ends."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


def commit_of(revision):
    return hashlib.sha1(revision.encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, status, content=b"", **headers):
        if not isinstance(content, bytes):
            content, headers["Content-Type"] = json.dumps(content).encode(), "application/json"
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def files(self, name, revision):
        """Those of a repository, or None after saying that there is none."""
        revisions = self.server.repositories.get(name)
        if revisions is None:
            self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return None
        for known, files in revisions.items():
            if revision in (known, commit_of(known)):
                return known, files
        self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        return None

    def do_GET(self):
        path = self.path.partition("?")[0]
        if match := re.fullmatch(PLAIN + r"/revision/(?P<revision>[^/]+)", path):
            if revision := self.files(match["name"], match["revision"]):
                names = [{"rfilename": name} for name in revision[1]]
                self.answer(
                    200, {"id": match["name"], "sha": commit_of(revision[0]), "siblings": names}
                )
        elif match := re.fullmatch(PLAIN + r"/tree/(?P<revision>[^/]+)", path):
            if revision := self.files(match["name"], match["revision"]):
                rows = [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in revision[1].items()
                ]
                self.answer(200, rows)
        elif match := re.fullmatch(
            r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", path
        ):
            if revision := self.files(match["name"], match["revision"]):
                content = revision[1][match["file"]]
                if self.command == "GET":
                    self.server.fetched.append(match["file"])
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self.answer(200, content, ETag=etag, X_Repo_Commit=commit_of(revision[0]))
        else:
            self.answer(404)

    do_HEAD = do_GET  # noqa: N815  the name that http.server calls

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, X_Error_Message="Invalid credentials")
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            repository = json.loads(body)
            name = f"{repository['organization']}/{repository['name']}"
            self.server.created.append(repository)
            self.server.repositories.setdefault(name, {"main": {}})
            self.answer(200, {"url": f"{self.server.url}/{name}", "name": name})
        elif match := re.fullmatch(PLAIN + r"/preupload/(?P<revision>[^/]+)", self.path):
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif match := re.fullmatch(PLAIN + r"/commit/(?P<revision>[^/]+)", self.path):
            files = self.server.repositories[match["name"]][match["revision"]]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    assert value["encoding"] == "base64"
                    files[value["path"]] = base64.b64decode(value["content"])
            url = f"{self.server.url}/{match['name']}/commit/{commit_of('main')}"
            self.answer(200, {"commitUrl": url, "commitOid": commit_of("main"), "success": True})
        else:
            self.answer(404)
