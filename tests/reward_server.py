"""A small HTTP server that answers as vLLM or SGLang does, by a formula or from a real one, and can spoil answers."""

import json
import math
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


MODEL = "my/rm"
HTML = "<html><body>Bad gateway</body></html>"


def score_of(ids):
    """A score for a row of token ids, negative ones too."""
    return (sum(ids) % 97) / 8 - 6


class RewardHTTPServer(ThreadingHTTPServer):
    """Scores rows of token ids by `score_of`, or asks a real server.

    Attributes:
        kind: "vllm" or "sglang".
        model: The name that it serves.
        upstream: Address of a real server that is asked, None for the formula.
        renamed: A name that it gives, and the one that is made of it.
        faults: How the next requests to /classify are spoiled, first come first served; see `SPOILED`.
        always: How all others are spoiled, None for not at all.
        requests: Rows of every request to /classify.
        headers: Of every request.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port=0, kind="vllm", model=MODEL, max_length=4096, upstream=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.kind, self.model, self.max_length, self.upstream = kind, model, max_length, upstream
        self.shift, self.renamed = 0.0, ("", "")
        self.faults, self.always = [], None
        self.requests, self.headers = [], []
        self.pause = 30.0
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that goes away in the middle is no news."""

    def next_fault(self):
        with self.lock:
            return self.faults.pop(0) if self.faults else self.always

    def answer(self, body):
        if self.upstream:
            return ask(self.upstream + "/classify", body)
        rows = body["input"] if self.kind == "vllm" else body["input_ids"]
        scores = [score_of(row) + self.shift for row in rows]
        if self.kind == "sglang":
            return [{"embedding": [score], "meta_info": {}} for score in scores]
        if body.get("use_activation") is not False:
            scores = [1 / (1 + math.exp(-score)) for score in scores]
        data = [{"index": n, "label": "L", "probs": [score], "num_classes": 1} for n, score in enumerate(scores)]
        return {"object": "list", "model": self.model, "data": data, "usage": {}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.headers.append(dict(self.headers))
        if server.always == "dead":
            return self.send(503, "{}")
        if server.upstream:
            return self.send(200, json.dumps(ask(server.upstream + self.path)).replace(*server.renamed))
        card = {"id": server.model, "root": server.model, "owned_by": server.kind, "max_model_len": server.max_length}
        return self.send(200, json.dumps({"object": "list", "data": [card]}))

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.headers.append(dict(self.headers))
        server.requests.append(body.get("input") or body.get("input_ids"))
        self.send(*SPOILED[server.next_fault()](server, body))

    def send(self, status, text):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        """Silent."""


def ask(url, body=None):
    """Ask a real server."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.load(answer)


def changed(change):
    """Spoil the answer's entries."""

    def spoil(server, body):
        answer = server.answer(body)
        if server.kind == "sglang":
            return 200, json.dumps(change(answer))
        return 200, json.dumps({**answer, "data": change(answer["data"])})

    return spoil


def with_probs(change):
    return changed(lambda data: [{**entry, "probs": change(entry["probs"])} for entry in data])


def hang(server, body):
    time.sleep(server.pause)
    return 200, json.dumps(server.answer(body))


SPOILED = {
    None: lambda server, body: (200, json.dumps(server.answer(body))),
    "dead": lambda server, body: (503, "{}"),
    "500": lambda server, body: (500, '{"error": "EngineDeadError"}'),
    "429": lambda server, body: (429, "too many requests"),
    "400": lambda server, body: (400, '{"error": "This model\'s maximum context length is 8 tokens."}'),
    "repeats_the_key": lambda server, body: (401, f"No such key: {server.headers[-1]['Authorization'].split()[1]}"),
    "html": lambda server, body: (200, HTML),
    "hang": hang,
    "short": changed(lambda data: data[:-1]),
    "swapped": changed(lambda data: data[::-1]),
    "nan": with_probs(lambda probs: [math.nan]),
    "text": with_probs(lambda probs: ["0.5"]),
    "none": with_probs(lambda probs: [None]),
    "two_labels": with_probs(lambda probs: [*probs, 0.5]),
    "activation": with_probs(lambda probs: [1 / (1 + math.exp(-probs[0]))]),
    "equal": with_probs(lambda probs: [1.0]),
    "wrong_model": lambda server, body: (200, json.dumps({**server.answer(body), "model": "other/rm"})),
}


@contextmanager
def serving(**arguments):
    """Run a server as long as the context lasts."""
    server = RewardHTTPServer(**arguments)
    # A short poll, as shutting down waits for it.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
