"""Bytes of HTTP: whole requests, damaged: cut, doubled, flipped, with heads that contradict themselves."""

import random
import re
import socket

from tests.fuzz.target import WAIT_S, Findings, Stop, Target

LOOK_EVERY = 200
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
ODD = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b"\xff" * 8,
    b": ",
    b" ",
    b"\t",
    b"%00",
    b"%ff",
    b"../",
    b"//",
    b"?",
    b"#",
    b"\x0b",
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Upgrade: h2c\r\n",
    b"Host: evil\r\n",
    b"Host:\r\n",
    b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
    b"Cookie: a=b\r\n",
    b" folded: x\r\n",
    b"X: " + b"y" * 9_000 + b"\r\n",
    b"X: y\r\n" * 2_000,
    b"5\r\nabcde\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"HTTP/9.9",
    b"HTTP/1.0",
    b"Content-Type: application/json\r\n",
    b"Accept-Encoding: br\r\n",
)
PATHS = (
    "/",
    "/api/v1/healthz",
    "/api/v1/runs",
    "/api/v1/runs?limit=5&state=RUNNING",
    "/api/v1/store/get",
    "/api/v1/store/put",
    "/api/v1/store/many",
    "/api/v1/runs/@last",
    "/api/v1/runs/@last/jobs/held/log?offset=-5",
    "/api/v1/worker",
    "/api/v1/registry/x.py",
    "/api/v1/jobs/lookup?id=held",
    "/api/v1/openapi.json",
    "/api/v1/tokens",
    "*",
    "http://x/",
)
BODIES = (b"", b"{}", b'{"key": "k"}', b'{"key": "k", "value": "v"}', b'{"name": "x", "jobs": []}', b"[" * 500, b"\xff")


def request(draw: random.Random, tokens: tuple[str, str, str]) -> bytes:
    """Return a good request, mostly."""
    method = draw.choice(["GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "BREW"])
    body = draw.choice(BODIES)
    lines = [f"{method} {draw.choice(PATHS)} HTTP/1.1", "Host: localhost"]
    if token := draw.choice(tokens):
        lines.append(f"Authorization: Bearer {token}")
    if body and draw.random() < 0.8:
        lines.append(f"Content-Length: {len(body)}")
    if draw.random() < 0.7:
        lines.append(f"Content-Type: {draw.choice(['application/json', 'application/x-ndjson', 'text/plain', '%%'])}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def damaged(draw: random.Random, data: bytes) -> bytes:
    """Return `data` with something done to it, once or a few times."""
    for _ in range(draw.choice([0, 1, 1, 2, 5])):
        at = draw.randint(0, len(data))
        kind = draw.randrange(6)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + draw.choice(ODD) + data[at:]
        elif kind == 2:
            data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
        elif kind == 3:
            line_end = data.find(b"\r\n") + 2
            data = data[:line_end] + draw.choice(ODD) + data[line_end:]
        elif kind == 4:
            data = data[:at] + data[at + draw.randint(1, 20) :]
        else:
            data = data + data
    return data


class RawFuzzer:
    """One campaign: `stop` says when it ends."""

    def __init__(self, target: Target, seed: int, stop: Stop) -> None:
        self.target = target
        self.draw = random.Random(f"raw {seed}")
        self.stop = stop

    def run(self) -> Findings:
        found = Findings(answers={}, findings=[])
        tokens = (self.target.token, self.target.job_token, "")
        while not self.stop.now(found.cases) and not found.findings:
            found.cases += 1
            data = damaged(self.draw, request(self.draw, tokens))
            answers = self._answers(data)
            for status in answers:
                found.count(status)
                # What HTTP itself cannot do is no fault: 501 and 505 would be its words for that.
                if status >= 500:
                    found.findings.append(f"case {found.cases}: {status} for {data[:3000]!r}")
            if found.cases % LOOK_EVERY == 0 and (problem := self.target.problem()):
                found.findings.append(f"before case {found.cases}: {problem}")
        if problem := self.target.problem():
            found.findings.append(f"at the end: {problem}")
        return found

    def _answers(self, data: bytes) -> list[int]:
        """Send `data`, say that nothing follows, and return the statuses of all that came back."""
        with socket.create_connection(("127.0.0.1", self.target.port), timeout=WAIT_S) as connection:
            came = bytearray()
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65_536):
                    came += part
            except (ConnectionResetError, BrokenPipeError):
                pass
        return [int(status) for status in STATUS.findall(bytes(came))]
