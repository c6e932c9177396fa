"""A small endpoint on 127.0.0.1 with OpenAI's API. Its vectors are counts of words, so that retrieval works. It records its requests."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIMENSIONS = 64


def vector(text: str) -> list[float]:
    counts = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        counts[int(hashlib.sha256(word.encode()).hexdigest(), 16) % DIMENSIONS] += 1.0
    length = sum(count * count for count in counts) ** 0.5 or 1.0
    return [count / length for count in counts]


class StandIn:
    """refusals: HTTP codes to answer before it works. spoil: modifies the body of a good answer."""

    def __init__(self, refusals=(), spoil=lambda body: body):
        self.requests, self.refusals, self.spoil = [], list(refusals), spoil
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stand_in.requests.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                self.answer(*stand_in.reply(body))

            def answer(self, code, body):
                content = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, body):
        if self.refusals:
            return self.refusals.pop(0), {"error": {"message": "come back later"}}
        width = body.get("dimensions", DIMENSIONS)
        data = [{"object": "embedding", "index": i, "embedding": vector(text)[:width]} for i, text in enumerate(body["input"])]
        words = sum(len(text.split()) for text in body["input"])
        return 200, self.spoil({"object": "list", "model": body["model"], "data": data[::-1], "usage": {"prompt_tokens": words, "total_tokens": words}})

    def close(self):
        self.server.shutdown()
        self.server.server_close()
