"""A client of one HTTP port, and the comparisons that tests over HTTP share."""

import http.client
import json
import ssl

import numpy as np

MODEL = "e5-small-v2"
TEXT = "how to cook rice"
LONG = "river stone house water light " * 150  # 752 tokens, where the model accepts at most 512.
LISTENS = "http_listen: 127.0.0.1:0\nlog: {level: debug}\n"


class Answer:
    def __init__(self, response: http.client.HTTPResponse):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)


class Http:
    """A client of one port. Bodies that are not bytes are sent as JSON."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None):
        self.port, self.tls = port, tls

    def call(self, verb: str, path: str, body=None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        if self.tls is not None:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=120, context=self.tls)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(verb, path, content, {"content-type": "application/json", **sent})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, **headers)

    def post(self, path: str, body, **headers: str) -> Answer:
        return self.call("POST", path, body, **headers)

    def ok(self, path: str, body) -> dict | list:
        answer = self.post(path, body)
        assert answer.status == 200, answer.body
        assert answer.headers["Content-Type"] == "application/json"
        return answer.json

    def refused(self, path: str, body, status: int) -> dict:
        answer = self.post(path, body)
        assert answer.status == status, answer.body[:1000]
        return answer.json


def close(found, expected) -> None:
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=2e-6)


def vectors(answer) -> list[list[float]]:
    return [list(result.embeddings[0].values) for result in answer.results]
