"""A Master to be fuzzed, one job of it that runs, and the worker that holds it: a link that must live on."""

import http.client
import json
import logging
import threading
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
from websockets.sync.client import ClientConnection, connect

from tests.golden.process import RealMaster
from titan.model.wire import Grant, Hello, Renew, RenewAck, Started, decode_master_frame, encode_frame

WAIT_S = 60.0
# A server-side wait is as long as the random number says, up to this; nothing else is unusual.
ENVIRON = {"TITAN_LIMIT_WAIT_S_MAX": "0.02", "TITAN_LIMIT_TOKENS_MAX": "1000000"}
GROWTH_BYTES_MAX = 40 * 1024 * 1024


# A client that is cut while it sends says so in its own log.
logging.getLogger("websockets.client").setLevel(logging.CRITICAL)


class Findings(msgspec.Struct):
    """What a fuzzer did and found. `answers`: how often it was answered with what."""

    cases: int = 0
    answers: dict[str, int] = {}
    findings: list[str] = []

    def count(self, answer: object) -> None:
        self.answers[str(answer)] = self.answers.get(str(answer), 0) + 1

    def report(self) -> str:
        told = ", ".join(f"{answer} x{count}" for answer, count in sorted(self.answers.items()))
        return f"{self.cases} cases, {len(self.findings)} findings; answers: {told}"


class Target(RealMaster):
    """A Master with a run of one running job, and a link that must live on whatever is done to the others."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, **ENVIRON)
        self._seq = 0

    def __enter__(self) -> Self:
        super().__enter__()
        self.ask("PUT", "/registry/job.py", b"print('ok')")
        self._connecting = self.connecting()
        self.link: ClientConnection = self._connecting.__enter__()
        self.link.send(encode_frame([Hello("good", "1", "boot", 1, "0", ("good",), 1)]))
        job = {"job_id": "held", "filename": "job.py", "requirement": ["good"], "lease_s": 86_400}
        self.run_id = self.ask("POST", "/runs", {"name": "held", "jobs": [job]})["run"]["id"]
        self.job_token = self._granted().token
        return self

    def __exit__(self, *why: object) -> None:
        self._connecting.__exit__(None, None, None)
        super().__exit__(*why)

    def connecting(self) -> Any:
        """Return what opens a worker's link."""
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"ws://127.0.0.1:{self.port}/api/v1/worker"
        return connect(url, additional_headers=headers, compression=None, open_timeout=WAIT_S, max_size=None)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a good request and return the answer's JSON."""
        headers = {"Authorization": f"Bearer {self.token}"}
        if body is not None and not isinstance(body, bytes):
            body, headers["Content-Type"] = json.dumps(body), "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, f"/api/v1{path}", body, headers)
            answer = connection.getresponse()
            assert answer.status < 300, answer.read()
            return json.loads(answer.read())
        finally:
            connection.close()

    def problem(self) -> str:
        """Say what is wrong with the Master now, "" when nothing is: it lives, answers, and the good link is heard."""
        if not self.lives:
            return f"the Master ended with {self.process.returncode}: {self.log.read_text()[-4000:]}"
        if said := self.tracebacks():
            return f"the Master logged: {said[max(0, said.find('Traceback') - 500) :][:9000]}"
        try:
            self.ask("GET", "/healthz")
            self._seq += 1
            self.link.send(encode_frame([Renew(self._seq)]))
            while RenewAck(self._seq) not in self._heard():
                pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            return f"the Master does not answer any more: {error!r}"
        return ""

    def _granted(self) -> Grant:
        while True:
            for message in self._heard():
                if isinstance(message, Grant):
                    self.link.send(encode_frame([Started(message.fence)]))
                    return message

    def _heard(self) -> list[Any]:
        frame = self.link.recv(WAIT_S)
        assert isinstance(frame, bytes)
        return list(decode_master_frame(frame))


class Fuzzer(Protocol):
    """One campaign; ends with what `stop` says, or its first finding."""

    def __init__(self, target: Target, seed: int, stop: "Stop") -> None: ...

    def run(self) -> Findings: ...


class Stop:
    """When to end: after so many cases, or when a time is over."""

    def __init__(self, cases: int | None = None, seconds: float | None = None) -> None:
        self._cases = cases
        self._over = threading.Event()
        if seconds is not None:
            timer = threading.Timer(seconds, self._over.set)
            timer.daemon = True
            timer.start()

    def now(self, cases: int) -> bool:
        return self._over.is_set() or (self._cases is not None and cases >= self._cases)
