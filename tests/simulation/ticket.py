"""What hangs on an entry of the commit machine: callers to answer, and what follows."""

from collections.abc import Callable
from typing import Any

from titan.core.events import Decision

Reply = Callable[[str, Any], None]


class Ticket:
    """What hangs on an entry: whom to answer, what to do when it is durable, and when it is settled either way."""

    __slots__ = ("decision", "durable", "reply", "settled")

    def __init__(
        self,
        reply: Reply | None = None,
        durable: Callable[[], None] | None = None,
        settled: Callable[[], None] | None = None,
    ) -> None:
        self.decision: Decision | None = None
        self.reply = reply
        self.durable = durable
        self.settled = settled

    def refuse(self, why: str) -> None:
        """Nothing of it was kept, as far as we know."""
        if self.reply is not None:
            self.reply("unavailable", why)
        if self.settled is not None:
            self.settled()
