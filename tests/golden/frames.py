"""Bad frames on a worker's link: (what is sent, a part that the close names). Messages are dicts or structs."""

from collections.abc import Iterator
from typing import Any

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.golden.process import RealMaster
from tests.golden.table import Entry, entry

HELLO = {
    "type": "hello", "name": "golden", "incarnation": "1", "boot_id": "b", "protocol": 1, "version": "0",
    "capabilities": ["golden"], "slots": 1, "attempts": [],
}  # fmt: skip
WAIT_S = 60


def hello(**fields: Any) -> list[Any]:
    return [HELLO | fields]


def after(*messages: Any) -> list[Any]:
    """A good hello, then a frame of these."""
    return [[HELLO], list(messages)]


FIRST: list[tuple[Any, str]] = [
    ("text", "text"),
    (b"", "too early"),
    (b"\xc1", "xc1"),
    (b"\x91", "too early"),
    (b"\x91" * 2_000, "frame[0]"),
    (b"\xa1\xff", "text"),
    (None, "null"),
    ({}, "object"),
    ([], "first message"),
    ([5], "frame[0]"),
    ([{}], "type"),
    ([{"type": "hi"}], "'hi'"),
    ([{"type": "renew", "seq": 1}], "first message"),
    ([{"type": "hello"}], "name"),
    (b"\x00" * (2**20 + 1), "1048577"),
    (hello(name=5), "name"),
    (hello(name="../x"), "'../x'"),
    (hello(name=""), "empty"),
    (hello(protocol=2), "protocol 2"),
    (hello(capabilities=["a b"]), "'a b'"),
    (hello(capabilities=[f"T{number}" for number in range(65)]), "capabilities"),
    (hello(slots=-1), "slots"),
    (hello(slots=10**9), "slots"),
    (hello(pid=-1), "pid"),
    (hello(host="h" * 300), "host"),
    (hello(epoch_seen=2**60), "epoch_seen"),
    (hello(attempts=[{"fence": 0, "started": False}]), "attempts"),
    (hello(attempts=[{"fence": 5, "started": False}] * 2), "attempts"),
    (hello(attempts=[{"fence": "x", "started": False}]), "fence"),
    (hello(attempts=5), "attempts"),
]
LATER: list[tuple[Any, str]] = [
    (after(HELLO), "hello"),
    (after({"type": "grant", "fence": 1}), "'grant'"),
    (after({"type": "started"}), "fence"),
    (after({"type": "started", "fence": "x"}), "fence"),
    (after({"type": "started", "fence": 0}), "fence"),
    (after({"type": "output", "fence": 2**63, "offset": 0, "data": b""}), "fence"),
    (after({"type": "output", "fence": 1, "offset": -1, "data": b""}), "offset"),
    (after({"type": "output", "fence": 1, "offset": 2**63 - 1, "data": b"x"}), "9223372036854775807"),
    (after({"type": "ended", "fence": 1}), "exit_code"),
    (after({"type": "ended", "fence": 1, "exit_code": 2**40}), "1"),
    (after({"type": "ended", "fence": 1, "exit_code": 0, "cause": "boredom"}), "cause"),
    (after({"type": "output", "fence": 1, "offset": "x", "data": b""}), "offset"),
    (after({"type": "output", "fence": 1, "offset": 0, "data": b"x" * (2**18 + 1)}), "262145"),
    (after({"type": "dropped", "fence": 1, "offset": 0, "length": 0}), "0 bytes"),
    (after({"type": "dropped", "fence": 1, "offset": 2**62, "length": 1}), "4611686018427387904"),
    (after({"type": "renew", "seq": 1.5}), "seq"),
]


def closed(master: RealMaster, frames: list[Any]) -> str:
    """Send frames on a link of their own; return code and reason of the close."""
    headers = {"Authorization": f"Bearer {master.token}"}
    url = f"ws://127.0.0.1:{master.port}/api/v1/worker"
    with connect(url, additional_headers=headers, compression=None, open_timeout=WAIT_S, max_size=None) as link:
        try:
            for frame in frames:
                link.send(frame if isinstance(frame, (bytes, str)) else msgspec.msgpack.encode(frame))
            while True:
                link.recv(WAIT_S)
        except ConnectionClosed as end:
            code, reason = (end.rcvd.code, end.rcvd.reason) if end.rcvd else (0, "no word")
    return f"close {code}\n{reason}"


def entries(master: RealMaster) -> Iterator[Entry]:
    """Send each and yield how the link was closed."""
    for frame, names in FIRST:
        yield entry(f"{frame!r}", names, closed(master, [frame]))
    for frames, names in LATER:
        yield entry(f"hello, then {frames[1]!r}", names, closed(master, frames))
