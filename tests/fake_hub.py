"""A Hub on 127.0.0.1 that speaks the routes which huggingface_hub and transformers use, and can be told to fail."""

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "aB3" * 12
# Begins a script that makes the Hub fail: `fail("/commit/", 1, 500)`, or without a status by a broken connection.
# Nobody waits between the tries that huggingface_hub makes.
FAIL = """
import json, os, time, urllib.request

time.sleep = lambda seconds: None

def fail(route, times, status=None, **how):
    body = json.dumps({"route": route, "times": times, "status": status, **how}).encode()
    urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/fail", body).close()
"""
# Of a student whose training was recorded, in every repository.
STUDENT_FILES = {
    "README.md",
    "added_tokens.json",
    "config.json",
    "configuration_fastwhisper.py",
    "curves.png",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "greedy_whisper.py",
    "modeling_fastwhisper.py",
    "preprocessor_config.json",
    "processor_config.json",
    "one_token_whisper.py",
    "saved_folder.py",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "training_run.json",
    "vocab.json",
    "true_length_whisper.py",
    "whisper_generation_config.py",
}


@dataclass
class Failure:
    """How the next requests go wrong whose method and path contain `route`: with a status, or by a broken connection.

    Args:
        route (`str`): part of method and path, such as `PUT /lfs/`.
        times (`int`): requests that go wrong.
        status (`int`, *optional*): the answer; without it the connection breaks.
        read (`int`, *optional*): bytes of the body that are read before it breaks; all of them by default.
        served (`bool`, *optional*, defaults to `False`): the request is served, and only its answer is lost.
    """

    route: str
    times: int
    status: int | None = None
    read: int | None = None
    served: bool = False


@dataclass
class FakeHub:
    """All that the server knows. Repositories are histories of commits; a commit is all files by path."""

    address: str = ""
    branches: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    pull_requests: dict[str, list[dict]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    failure: Failure | None = None

    def environment(self, token: str = "") -> dict[str, str]:
        """Variables of a process that takes this for the Hub; they count from its start on."""
        settings = {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return {**settings, "HF_TOKEN": token} if token else settings

    def history(self, repo: str, branch: str = "main") -> list[str]:
        """Commits of a branch, oldest first."""
        return self.branches[repo][branch]

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a branch or a commit."""
        return self.commits[self.commit(repo, revision) or ""]

    def commit(self, repo: str, revision: str) -> str | None:
        branches = self.branches.get(repo, {})
        if revision in branches:
            return branches[revision][-1]
        known = any(revision in commits for commits in branches.values())
        return revision if known else None

    def check_nothing_private(self, *private: object) -> None:
        """Fail where a file of any commit holds the token, the home of this machine's user or one of `private`."""
        for commit in self.commits.values():
            for name, content in commit.items():
                for secret in (TOKEN, Path.home(), *private):
                    assert str(secret).encode() not in content, name

    def add_commit(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        history = self.branches[repo].setdefault(branch, [])
        oid = hashlib.sha1(f"{repo} {branch} {len(history)}".encode()).hexdigest()
        self.commits[oid] = files
        history.append(oid)
        return oid


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Start a Hub on a free port of 127.0.0.1 and stop it at the end."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    _answers = True
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(b"")

    def do_HEAD(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        failure = self.hub.failure
        if (
            failure
            and failure.times
            and failure.read is not None
            and failure.route in f"{self.command} {unquote(self.path)}"
        ):
            self.hub.requests.append(f"{self.command} {unquote(urlsplit(self.path).path)} (cut)")
            failure.times -= 1
            self.rfile.read(min(failure.read, length))
            return self._break()
        self._serve(self.rfile.read(length))

    def do_PUT(self) -> None:
        self.do_POST()

    def _serve(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if path == "/fail":
            self.hub.failure = Failure(**json.loads(body))
            return self._json({})
        failure = self.hub.failure
        if failure and failure.times and failure.route in f"{self.command} {path}":
            failure.times -= 1
            if failure.served:
                self._answers = False
            elif failure.status is None:
                return self._break()
            else:
                return self._json({"error": "as told"}, failure.status)
        # The name of a revision may hold a slash of its own, as in refs/pr/1.
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if path == "/api/whoami-v2":
            return self._json({"type": "user", "name": "tester", "orgs": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if parts[:2] == ["api", "models"]:
            return self._api("/".join(parts[2:4]), parts[4:], body)
        if parts[0] == "lfs":
            self.hub.large[parts[1]] = body
            return self._json({})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._json({"error": "no such route"}, 404)

    def _break(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _create(self, wanted: dict) -> None:
        repo = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        address = {"url": f"{self.hub.address}/{repo}", "id": repo, "name": repo}
        if repo in self.hub.branches:
            return self._json({"error": "You already created this model repo", **address}, 409)
        self.hub.branches[repo] = {}
        self.hub.add_commit(repo, "main", {})
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.hub.private.add(repo)
        return self._json(address)

    def _api(self, repo: str, rest: list[str], body: bytes) -> None:
        if repo not in self.hub.branches:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        route, revision = (rest[0] if rest else "revision"), (rest[1] if len(rest) > 1 else "main")
        if route == "branch":
            known = revision in self.hub.branches[repo]
            if not known:
                self.hub.add_commit(repo, revision, dict(self.hub.files(repo)))
            return self._json({}, 409 if known else 200)
        if route == "discussions":
            requests = self._pull_requests(repo)
            return self._json({"discussions": requests, "count": len(requests), "start": 0})
        oid = self.hub.commit(repo, revision)
        if oid is None:
            return self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        files = self.hub.commits[oid]
        if route == "revision":
            names = [{"rfilename": name} for name in files]
            return self._json({"id": repo, "modelId": repo, "sha": oid, "private": False, "siblings": names})
        if route == "tree":
            place = "".join(f"{part}/" for part in rest[2:])
            entries = [self._entry(name, content) for name, content in files.items() if name.startswith(place)]
            if place and not entries:
                return self._json({"error": "no such folder"}, 404, {"X-Error-Code": "EntryNotFound"})
            return self._json(entries)
        if route == "preupload":
            return self._json({"files": [self._mode(row, files) for row in json.loads(body)["files"]]})
        if route == "commit":
            return self._commit(repo, revision, files, body)
        return self._json({"error": "no such route"}, 404)

    def _pull_requests(self, repo: str) -> list[dict]:
        """Newest first, as many as the query asks for."""
        query = parse_qs(urlsplit(self.path).query)
        author = query.get("author", [None])[0]
        requests = self.hub.pull_requests.get(repo, [])
        return [request for request in reversed(requests) if author in (None, request["author"]["name"])]

    def _entry(self, name: str, content: bytes) -> dict:
        entry = {"type": "file", "path": name, "size": len(content), "oid": _git_oid(content)}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry

    def _mode(self, row: dict, files: dict[str, bytes]) -> dict:
        name = row["path"]
        large = name.endswith(".safetensors")
        known = files.get(name)
        oid = None if known is None else hashlib.sha256(known).hexdigest() if large else _git_oid(known)
        return {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def _commit(self, repo: str, revision: str, files: dict[str, bytes], body: bytes) -> None:
        files, title = dict(files), ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                title = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif item["key"] == "deletedFile":
                files.pop(value["path"], None)
        request = "create_pr=1" in self.path
        requests = self.hub.pull_requests.setdefault(repo, [])
        number = len(requests) + 1
        oid = self.hub.add_commit(repo, f"refs/pr/{number}" if request else revision, files)
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.address}/{repo}/commit/{oid}"}
        if request:
            answer["pullRequestUrl"] = f"{self.hub.address}/{repo}/discussions/{number}"
            requests.append(
                {
                    "num": number,
                    "title": title,
                    "author": {"name": "tester"},
                    "createdAt": "2026-01-01T00:00:00.000Z",
                    "status": "open",
                    "repo": {"name": repo, "type": "model"},
                    "isPullRequest": True,
                }
            )
        return self._json(answer)

    def _batch(self, wanted: dict) -> None:
        rows = []
        for row in wanted["objects"]:
            href = {"href": f"{self.hub.address}/lfs/{row['oid']}", "header": {}}
            rows.append({**row, **({} if row["oid"] in self.hub.large else {"actions": {"upload": href}})})
        return self._json({"transfer": "basic", "objects": rows})

    def _file(self, repo: str, revision: str, name: str) -> None:
        oid = self.hub.commit(repo, revision)
        if oid is None:
            code = "RevisionNotFound" if repo in self.hub.branches else "RepoNotFound"
            return self._json({"error": code}, 404, {"X-Error-Code": code})
        content = self.hub.commits[oid].get(name)
        headers = {"X-Repo-Commit": oid}
        if content is None:
            return self._json({"error": "EntryNotFound"}, 404, {"X-Error-Code": "EntryNotFound", **headers})
        return self._send(content, 200, {"ETag": f'"{_git_oid(content)}"', **headers})

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        if not self._answers:
            return self._break()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
