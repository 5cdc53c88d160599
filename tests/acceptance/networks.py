"""Two network namespaces with a cable between them, as two machines; the second is behind a one-way firewall.

What the first sends to the second goes through if it leaves from the Master's port, as an answer does, and is dropped
otherwise, as by a NAT: nobody can connect to the second. Needs root and `ip`.
"""

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.acceptance.cluster import bare_environment

NEAR, FAR = "10.213.77.1", "10.213.77.2"


def why_not() -> str:
    """Return why namespaces cannot be made here; "" when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no ip command (iproute2)"
    probe = f"titan-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return "this kernel or container makes no network namespaces"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


class Networks:
    """Use with `with`: `near` is the namespace of a Master that listens on `port`, `far` the other machine's."""

    def __init__(self, port: int) -> None:
        self._port = str(port)
        self.near, self.far = f"titan-near-{os.getpid()}", f"titan-far-{os.getpid()}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for name in (self.near, self.far):
            ip("netns", "add", name)
            self._stack.callback(ip, "netns", "del", name)
        ip("link", "add", "cable", "netns", self.near, "type", "veth", "peer", "name", "cable", "netns", self.far)
        for name, address in ((self.near, NEAR), (self.far, FAR)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
        ip("-n", self.near, "rule", "add", "pref", "100", "ipproto", "tcp", "sport", self._port, "lookup", "main")
        ip("-n", self.near, "rule", "add", "pref", "200", "to", FAR, "blackhole")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def inside(self, namespace: str, *command: str | Path) -> list[str]:
        """Return `command` as it runs in a namespace, in the place of the caller's process."""
        return ["ip", "netns", "exec", namespace, *map(str, command)]

    def run(self, namespace: str, home: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `command` there to its end."""
        return subprocess.run(
            self.inside(namespace, *command), env=bare_environment(home), cwd=home.parent, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=30)
