"""A Hub on 127.0.0.1 that speaks what huggingface_hub 2.4 asks for downloads and pull requests, and misbehaves on demand."""

import base64
import hashlib
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


class Repo:
    """A repository: branches and tags point at commits, commits hold files."""

    def __init__(self) -> None:
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commits: dict[str, Files] = {}
        self.gated = False
        self.pulls: list[dict[str, Any]] = []
        """Pull requests: title, status, description and files."""

    def commit(self, files: Files, branch: str = "", tag: str = "") -> str:
        """Add a commit and point a branch or tag at it."""
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[sha] = files
        if branch:
            self.branches[branch] = sha
        if tag:
            self.tags[tag] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a revision."""
        known = {**{sha: sha for sha in self.commits}, **self.tags, **self.branches}
        return known.get(revision)


class Hub(ThreadingHTTPServer):
    """The server; `faults["GET part/of/the/path"]` lists what to do wrong, once each, before answering well.

    A fault is a status (429, 503), or "cut": half of the body and a closed connection.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: defaultdict[str, Repo] = defaultdict(Repo)
        self.faults: dict[str, list[int | str]] = {}
        self.etags: dict[str, str] = {}
        """File name → the ETag to claim for it."""
        self.xet: dict[str, str] = {}
        """File name → its hash in Xet storage, for files that are said to lie there."""
        self.uploaded: dict[str, bytes] = {}
        """SHA-256 → what was uploaded to the large file storage."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def asked(self, part: str) -> list[dict[str, str]]:
        """Headers of the requests whose "METHOD path" contains `part`."""
        return [headers for method, path, headers in self.requests if part in f"{method} {path}"]

    def stop(self) -> None:
        """Stop answering: connections are refused from now on."""
        if self.thread.is_alive():
            self.shutdown()
            self.thread.join()
            self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        data = self.body()
        path = self.noted()
        self.server.uploaded[path.removeprefix("lfs/")] = data
        self.send(200, b"", {})

    def do_POST(self) -> None:
        data, path = self.body(), self.noted()
        if isinstance(fault := self.fault(f"POST {path}"), int):
            return self.send(fault, b"", {})
        if path == "api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            oids = [(each["oid"], each["size"]) for each in json.loads(data)["objects"]]
            return self.json({"objects": [self.upload(oid, size) for oid, size in oids]})
        parts = path.removeprefix("api/models/").split("/")
        repo = self.server.repos.get("/".join(parts[:2]))
        if repo is None:
            return self.send(401, b"", {"X-Error-Code": "RepoNotFound"})
        if parts[2] == "preupload":
            names = [each["path"] for each in json.loads(data)["files"]]
            modes = [(name, "lfs" if name.endswith(".safetensors") else "regular") for name in names]
            return self.json(
                {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes]}
            )
        return self.pull(repo, "/".join(parts[:2]), [json.loads(line) for line in data.splitlines()])

    def upload(self, oid: str, size: int) -> dict[str, Any]:
        return {"oid": oid, "size": size, "actions": {"upload": {"href": f"{self.server.url}/lfs/{oid}"}}}

    def pull(self, repo: Repo, name: str, lines: list[dict[str, Any]]) -> None:
        """Open a pull request of a commit, as ?create_pr=1 does."""
        assert "create_pr=1" in self.path
        files: Files = {}
        for value in (line["value"] for line in lines if line["key"] in ("file", "lfsFile")):
            whole = "content" in value
            files[value["path"]] = (
                base64.b64decode(value["content"]) if whole else self.server.uploaded[value["oid"]]
            )
        [header] = [line["value"] for line in lines if line["key"] == "header"]
        title, number = header["summary"], len(repo.pulls) + 1
        repo.pulls.append(
            {"title": title, "status": "open", "description": header["description"], "files": files}
        )
        url = f"{self.server.url}/{name}"
        self.json({
            "commitUrl": f"{url}/commit/{'0' * 40}", "commitOid": "0" * 40, "pullRequestUrl": f"{url}/discussions/{number}",
        })  # fmt: skip

    def discussions(self, repo: Repo, name: str) -> None:
        common = {
            "author": {"name": "me"}, "createdAt": "2026-01-01T00:00:00.000Z", "isPullRequest": True,
            "repo": {"name": name, "type": "model"},
        }  # fmt: skip
        listed = [
            {"num": number, "title": pull["title"], "status": pull["status"], **common}
            for number, pull in enumerate(repo.pulls, 1)
        ]
        self.json({"discussions": listed, "count": len(listed), "start": 0})

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def noted(self) -> str:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.server.requests.append((self.command, path, dict(self.headers)))
        return path

    def answer(self) -> None:
        path = self.noted()
        fault = self.fault(f"{self.command} {path}")
        if isinstance(fault, int):
            return self.send(fault, b"", {"Retry-After": "0"} if fault == 429 else {})
        if path.startswith("cdn/"):
            return self.cdn(path.split("/")[1], fault == "cut")
        parts = path.removeprefix("api/models/").split("/")
        repo = self.server.repos.get("/".join(parts[:2]))
        if repo is None:
            return self.send(401, b"", {"X-Error-Code": "RepoNotFound"})
        if parts[2] == "discussions":
            return self.discussions(repo, "/".join(parts[:2]))
        if parts[2] == "refs":
            return self.refs(repo)
        commit = repo.resolve("/".join(parts[3:]) if parts[2] == "revision" else parts[3])
        if commit is None:
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if parts[2] == "revision":
            return self.json({"id": "/".join(parts[:2]), "sha": commit})
        if parts[2] == "tree":
            return self.json([entry(name, data) for name, data in repo.commits[commit].items()])
        return self.resolve(repo, commit, "/".join(parts[4:]), fault == "cut")

    def fault(self, request: str) -> int | str | None:
        for part, faults in self.server.faults.items():
            if part in request and faults:
                return faults.pop(0)
        return None

    def refs(self, repo: Repo) -> None:
        kinds = {"branches": ("heads", repo.branches), "tags": ("tags", repo.tags)}
        listed: dict[str, Any] = {"converts": []}
        for kind, (place, refs) in kinds.items():
            listed[kind] = [
                {"name": name, "ref": f"refs/{place}/{name}", "targetCommit": commit}
                for name, commit in refs.items()
            ]
        self.json(listed)

    def resolve(self, repo: Repo, commit: str, name: str, cut: bool) -> None:
        headers = {"X-Repo-Commit": commit}
        data = repo.commits[commit].get(name)
        if repo.gated:
            return self.send(403, b"", {"X-Error-Code": "GatedRepo"})
        if data is None:
            return self.send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        etag = self.server.etags.get(name)
        if not name.endswith(".safetensors"):
            return self.send(200, data, headers | {"ETag": f'"{etag or git_sha1(data)}"'}, cut)
        sha = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-Etag": f'"{etag or sha}"', "X-Linked-Size": str(len(data))}
        if name in self.server.xet:
            headers |= {"X-Xet-Hash": self.server.xet[name], "X-Xet-Refresh-Route": f"{self.server.url}/xet"}
        elsewhere = f"http://localhost:{self.server.server_port}"  # another host, as the real CDN is
        return self.send(
            302, b"", headers | {"Location": f"{elsewhere}/cdn/{sha}?Signature=s3cr3t-signature"}
        )

    def cdn(self, sha: str, cut: bool) -> None:
        blobs = (
            data
            for repo in self.server.repos.values()
            for files in repo.commits.values()
            for data in files.values()
        )
        data = next(data for data in blobs if hashlib.sha256(data).hexdigest() == sha)
        wanted = self.headers.get("Range")
        if not wanted:
            return self.send(200, data, {}, cut)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return self.send(206, data[start:], span, cut)

    def json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = True


def entry(name: str, data: bytes) -> dict[str, Any]:
    """One file of a tree listing."""
    listed: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
    if name.endswith(".safetensors"):
        listed["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return listed


def git_sha1(data: bytes) -> str:
    """Name of a blob in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
