"""A small Hugging Face Hub on 127.0.0.1, for the real client: it speaks what a push and a download need.

The protocol is read off `huggingface_hub` 2.4. Like the real Hub it keeps large and binary files as LFS objects, sends
downloads of those to another host, and answers 401 where it should be 404 to whoever may not see a repository. It
knows no xet: clients are told to do without by HF_HUB_DISABLE_XET.

    with HubServer() as hub:
        subprocess.run(..., env=client_env(hub, cache))
"""

import base64
import hashlib
import json
import os
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import yaml


TOKEN = "hf_test0123456789"
USER = {
    "type": "user",
    "name": "me",
    "orgs": [{"type": "org", "name": "lab"}],
    "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}},
}
READ_ONLY = "hf_readonly012345"


@dataclass
class Repository:
    """Branches of commits, oldest first; a commit is its files' contents by path."""

    private: bool = False
    branches: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)

    def commit(self, branch, changes):
        """Add a commit that changes some files; `None` removes one."""
        history = self.branches.setdefault(branch, [])
        files = {**(history[-1][1] if history else {}), **changes}
        files = {path: content for path, content in files.items() if content is not None}
        sha = hashlib.sha1(f"{branch}{len(history)}{sorted(files)}".encode()).hexdigest()
        history.append((sha, files))
        return sha

    def at(self, revision):
        """Return a revision's commit: a branch's newest, or the one of this hash."""
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((c for history in self.branches.values() for c in history if c[0] == revision), None)


@dataclass
class Fault:
    """What goes wrong with the next requests that fit: an answer of this status, or a line cut within the body."""

    request: str
    times: int
    status: int | None = None


class HubServer(ThreadingHTTPServer):
    """The Hub; `repositories`, `objects` (LFS, by SHA-256) and `requests` can be looked at, `faults` ordered."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        # Another host's name, so that the client sees a redirect away from the Hub.
        self.storage = f"http://localhost:{self.server_port}"
        self.repositories, self.objects, self.requests, self.faults = {}, {}, [], []
        self.lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Keep quiet about lines that are cut on purpose, and about clients that go away."""

    def fail(self, request, status, times=1):
        """Answer the next requests that match, such as `PUT /lfs/`, with an error."""
        self.faults.append(Fault(request, times, status=status))

    def cut(self, request, times=1):
        """Drop the line of the next requests that match when half of their body has come."""
        self.faults.append(Fault(request, times))

    def fault(self, request):
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.request, request):
                    fault.times -= 1
                    return fault
        return None

    def files(self, name, revision="main"):
        """Return a repository's files by path."""
        return self.repositories[name].at(revision)[1]

    def count(self, pattern):
        """Count the requests so far that match."""
        return sum(bool(re.search(pattern, request)) for request in self.requests)


def client_env(hub, home, token=TOKEN):
    """Return the environment of a client that knows this Hub and no other."""
    kept = {name: value for name, value in os.environ.items() if not re.match(r"HF_|(?i:.*_proxy$)", name)}
    own = {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return kept | own | ({"HF_TOKEN": token} if token else {})


def git_hash(content):
    """Return git's hash of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_lfs(path, sample, size):
    """Say whether the Hub keeps a file as an LFS object: by name, by size, or because it is no text."""
    if path.endswith((".safetensors", ".png", ".bin", ".pt")) or size > 10_000_000:
        return True
    try:
        sample.decode(errors="strict")
    except UnicodeDecodeError as error:
        return error.start < len(sample) - 3  # a sample may end within a character
    return False


class Handler(BaseHTTPRequestHandler):
    """One request; a route is a method, a pattern of the path and the name of what answers."""

    protocol_version = "HTTP/1.1"
    ROUTES: ClassVar = [
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+?)(/revision/(?P<revision>[^/]+))?", "info"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/.*)?", "tree"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/branch/(?P<branch>[^/]+)", "branch"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
        ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/verify", "lfs_verify"),
        ("GET", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_download"),
        ("GET", r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
        ("GET", r"/api/resolve-cache/models/(?P<name>[^/]+/[^/]+)/(?P<revision>[^/]+)/(?P<path>.+)", "regular"),
    ]

    def log_message(self, *args):
        """Keep pytest's output clean."""

    def do_any(self):
        path = urlsplit(self.path).path
        request = f"{self.command} {unquote(path)}"
        self.server.requests.append(request)
        fault = self.server.fault(request)
        if fault and fault.status is None:
            self.rfile.read(int(self.headers.get("Content-Length") or 2) // 2)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.body = self.read_body()
        if fault:
            self.error(fault.status, "Fault", "ordered by the test")
            return
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if wanted == method and match:
                values = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                getattr(self, name)(**values)
                return
        self.error(404, "NotFound", f"no such page: {request}")

    do_GET = do_HEAD = do_POST = do_PUT = do_any

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self, content=b"", status=200, headers=None):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), "X-Request-Id": "test", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def error(self, status, code, message, content=None):
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.answer({"error": message, **(content or {})}, status, headers)

    def token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def repository(self, name):
        """Return a repository that the asker may see, or answer what the Hub answers."""
        found = self.server.repositories.get(name)
        if found is None or (found.private and self.token() not in (TOKEN, READ_ONLY)):
            self.error(404 if self.token() in (TOKEN, READ_ONLY) else 401, "RepoNotFound", "Repository not found")
            return None
        return found

    def may_write(self, name):
        if self.token() == TOKEN and name.split("/")[0] in ("me", "lab"):
            return True
        if self.token() in (TOKEN, READ_ONLY):
            self.error(403, "Forbidden", f"you do not have the rights to write to {name}")
        else:
            self.error(401, "Unauthorized", "Invalid username or password.")
        return False

    def commit_at(self, name, revision):
        repository = self.repository(name)
        if repository is None:
            return None
        commit = repository.at(revision)
        if commit is None:
            self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def whoami(self):
        if self.token() == READ_ONLY:
            self.answer({**USER, "auth": {"accessToken": {"displayName": "r", "role": "read"}}})
        elif self.token() == TOKEN:
            self.answer(USER)
        else:
            self.error(401, "Unauthorized", "Invalid credentials in Authorization header")

    def create(self):
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        if not self.may_write(name):
            return
        url = {"url": f"{self.server.endpoint}/{name}", "name": name}
        if name in self.server.repositories:
            self.error(409, "Conflict", "You already created this model repo", url)
            return
        repository = self.server.repositories[name] = Repository(private=wanted.get("visibility") == "private")
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.answer(url)

    def validate(self):
        header = json.loads(self.body)["content"].split("---\n")[1]
        try:
            yaml.safe_load(header)
        except yaml.YAMLError as error:
            self.answer({"errors": [{"message": str(error)}], "warnings": []}, 400)
            return
        self.answer({"errors": [], "warnings": []})

    def info(self, name, revision="main"):
        commit = self.commit_at(name, revision)
        if commit is None:
            return
        sha, files = commit
        parts = files.get("README.md", b"").decode().split("---\n")
        self.answer(
            {
                "id": name, "modelId": name, "sha": sha, "private": self.server.repositories[name].private,
                "siblings": [{"rfilename": path} for path in files], "tags": [],
                "cardData": yaml.safe_load(parts[1]) if len(parts) > 2 else None,
            }
        )  # fmt: skip

    def tree(self, name, revision):
        commit = self.commit_at(name, revision)
        if commit is not None:
            rows = [
                {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
                for path, content in commit[1].items()
            ]
            self.answer(rows)

    def branch(self, name, branch):
        repository = self.repository(name)
        if repository is None or not self.may_write(name):
            return
        if branch in repository.branches:
            self.error(409, "Conflict", "Reference already exists")
            return
        repository.branches[branch] = list(repository.branches["main"])
        self.answer({"ref": branch})

    def preupload(self, name, revision):
        commit = self.commit_at(name, revision)
        if commit is None or not self.may_write(name):
            return
        answers = []
        for file in json.loads(self.body)["files"]:
            lfs = is_lfs(file["path"], base64.b64decode(file["sample"]), file["size"])
            there = commit[1].get(file["path"])
            known = there is not None and (hashlib.sha256(there).hexdigest() if lfs else git_hash(there))
            answers.append(
                {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
                | ({"oid": known} if known else {})
            )
        self.answer({"files": answers, "commitOid": commit[0]})

    def lfs_batch(self, name):
        if not self.may_write(name):
            return
        wanted = json.loads(self.body)
        if wanted["operation"] != "upload" or "basic" not in wanted["transfers"]:
            self.error(422, "Unsupported", "only basic uploads are known here")
            return
        answers = []
        for thing in wanted["objects"]:
            actions = {
                "upload": {"href": f"{self.server.storage}/lfs/{thing['oid']}", "header": {}},
                "verify": {"href": f"{self.server.endpoint}/{name}.git/info/lfs/verify", "header": {}},
            }
            answers.append({**thing, **({} if thing["oid"] in self.server.objects else {"actions": actions})})
        self.answer({"transfer": "basic", "objects": answers})

    def lfs_upload(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            self.error(400, "BadDigest", "the content has another SHA-256")
            return
        self.server.objects[oid] = self.body
        self.answer(headers={"ETag": f'"{oid}"'})

    def lfs_verify(self, name):
        wanted = json.loads(self.body)
        there = self.server.objects.get(wanted["oid"])
        if there is None or len(there) != wanted["size"]:
            self.error(404, "EntryNotFound", "the object has not come")
            return
        self.answer({"success": True})

    def commit(self, name, revision):
        repository = self.repository(name)
        if repository is None or not self.may_write(name):
            return
        changes = {}
        for line in self.body.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    self.error(400, "BadRequest", f"the LFS object of {value['path']} has not come")
                    return
                changes[value["path"]] = self.server.objects[value["oid"]]
            elif step["key"] == "deletedFile":
                changes[value["path"]] = None
        sha = repository.commit(revision, changes)
        url = f"{self.server.endpoint}/{name}/commit/{sha}"
        self.answer({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def resolve(self, name, revision, path):
        commit = self.commit_at(name, revision)
        if commit is None:
            return
        sha, files = commit
        if path not in files:
            self.answer(status=404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        content = files[path]
        if not is_lfs(path, content[:512], len(content)):
            where = f"/api/resolve-cache/models/{name}/{sha}/{path}"
            self.answer(
                status=307, headers={"Location": where, "X-Repo-Commit": sha, "ETag": f'"{git_hash(content)}"'}
            )
            return
        oid = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": sha, "X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{oid}"'}
        self.answer(status=302, headers={**headers, "Location": f"{self.server.storage}/lfs/{oid}"})

    def regular(self, name, revision, path):
        commit = self.commit_at(name, revision)
        if commit is not None:
            content = commit[1][path]
            self.answer(content, headers={"X-Repo-Commit": commit[0], "ETag": f'"{git_hash(content)}"'})

    def lfs_download(self, oid):
        if self.token():
            self.error(400, "BadRequest", "the Hub's token is not for the storage")
            return
        content = self.server.objects[oid]
        first = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(first[1]) if first else 0
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if first else {}
        self.answer(content[start:], 206 if first else 200, {**headers, "ETag": f'"{oid}"'})
