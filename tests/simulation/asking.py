"""Requests: asked with a key, and asked again with the same key until somebody answers."""

from collections.abc import Callable
from typing import Any, Protocol

from tests.simulation.ground import Ground
from tests.simulation.master import Master
from tests.simulation.ticket import Reply
from tests.simulation.world import Node

RESEND_MS = 5_000
AGAIN_MS = 200
NOBODY_MS = 700


class Request(Protocol):
    """One thing asked of a Master. `answer_ms`: how long the answer may take before it is asked again."""

    name: str
    answer_ms: int

    def at_master(self, master: Master, reply: Reply) -> None:
        """Do it there, and `reply` with ("ok", answer), with the code of an error, or with "unavailable"."""


class Asking:
    """One request on its way. `answered` gets the code and the answer once; "gave_up" when patience ended."""

    def __init__(
        self, ground: Ground, node: Node, request: Request, answered: Callable[[str, Any], None], patience_ms: int
    ) -> None:
        self.ground, self.node, self.request = ground, node, request
        self.answered = answered
        self.until_ms = ground.world.now + patience_ms
        self.turn = ground.world.between(0, 1)
        self.sent = 0
        self.done = False
        self.send(0)

    def send(self, number: int) -> None:
        """Ask the next Master, unless an answer to this number came meanwhile."""
        if self.done or number != self.sent:
            return
        if self.ground.world.now > self.until_ms:
            self.finish("gave_up", None)
            return
        self.sent += 1
        masters = self.ground.masters
        master = masters[self.turn % len(masters)]
        self.turn += 1
        if master.up:
            self.ground.network.request(self.node.name, master, 1, self.arrive, master)
            wait_ms = self.request.answer_ms
        else:
            wait_ms = NOBODY_MS
        self.node.after_quietly(wait_ms, self.send, self.sent)

    def arrive(self, master: Master) -> None:
        """It is at the Master."""
        if not master.up:
            return
        if master.scheduler is None:
            self.reply(master, "unavailable", "closed", self.ground.world.now)
            return
        asked_ms = self.ground.world.now
        self.request.at_master(master, lambda code, answer: self.reply(master, code, answer, asked_ms))

    def reply(self, master: Master, code: str, answer: Any, asked_ms: int) -> None:
        """Send the answer back."""
        self.ground.oracle.answers(master, self.request, code, answer, asked_ms)
        self.ground.network.request(master.name, self.node, 1, self.receive, master, code, answer)

    def receive(self, master: Master, code: str, answer: Any) -> None:
        """An answer came."""
        if self.done:
            return
        if code == "unavailable":
            self.sent += 1
            self.node.after_quietly(AGAIN_MS, self.send, self.sent)
            return
        self.finish(code, answer)

    def finish(self, code: str, answer: Any) -> None:
        """That is it."""
        self.done = True
        self.answered(code, answer)
