"""The proxy itself: a fault that is not one would prove nothing."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy

BLINK_S = 0.2


@pytest.fixture
def far_end() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def proxy(far_end: socket.socket) -> Iterator[Proxy]:
    with Proxy(far_end.getsockname()[1]) as proxy:
        yield proxy


@pytest.fixture
def ends(far_end: socket.socket, proxy: Proxy) -> Iterator[tuple[socket.socket, socket.socket]]:
    near = socket.create_connection(("127.0.0.1", proxy.port), 30)
    far, _ = far_end.accept()
    far.settimeout(30)
    with near, far:
        yield near, far


def nothing_comes(end: socket.socket) -> bool:
    end.settimeout(BLINK_S)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(30)
    return False


def test_it_passes_bytes_and_ends_both_ways(ends: tuple[socket.socket, socket.socket], proxy: Proxy) -> None:
    near, far = ends
    near.sendall(b"hello")
    assert far.recv(10) == b"hello"
    far.sendall(b"well")
    assert near.recv(10) == b"well"
    proxy.wait(lambda: (proxy.bytes_up, proxy.bytes_down) == (5, 4), "the count of both")
    near.shutdown(socket.SHUT_WR)
    assert far.recv(10) == b""
    far.sendall(b"last word")
    far.close()
    assert near.recv(10) == b"last word"
    assert near.recv(10) == b""
    proxy.wait(lambda: proxy.alive == 0, "the end")
    assert proxy.opened == 1


def test_a_black_hole_tells_nobody_and_delivers_when_it_is_over(
    ends: tuple[socket.socket, socket.socket], proxy: Proxy, far_end: socket.socket
) -> None:
    near, far = ends
    proxy.swallow()
    near.sendall(b"up")
    far.sendall(b"down")
    far.close()
    assert nothing_comes(near)
    # One that connects meanwhile waits like the others.
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as late:
        late.sendall(b"late")
        proxy.pass_on()
        assert near.recv(10) == b"down"
        far_end.settimeout(30)
        with far_end.accept()[0] as second:
            assert second.recv(10) == b"late"


def test_it_can_swallow_one_way_only(ends: tuple[socket.socket, socket.socket], proxy: Proxy) -> None:
    near, far = ends
    proxy.swallow(up=False)
    near.sendall(b"up")
    assert far.recv(10) == b"up"
    far.sendall(b"down")
    assert nothing_comes(near)
    proxy.swallow(down=False)
    assert near.recv(10) == b"down"
    near.sendall(b"up")
    assert nothing_comes(far)


def test_a_cut_resets_both_ends_and_takes_new_connections(
    ends: tuple[socket.socket, socket.socket], proxy: Proxy, far_end: socket.socket
) -> None:
    proxy.cut()
    for end in ends:
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as again, far_end.accept()[0] as far:
        again.sendall(b"x")
        assert far.recv(1) == b"x"


def test_who_is_refused_hears_so_at_once(ends: tuple[socket.socket, socket.socket], proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        ends[0].recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), 30)
    proxy.pass_on()
    socket.create_connection(("127.0.0.1", proxy.port), 30).close()


def test_a_target_that_is_not_there_is_a_reset(proxy: Proxy, far_end: socket.socket) -> None:
    far_end.close()
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", proxy.port), 30) as near:
        near.recv(1)


def test_a_limited_link_takes_its_time(ends: tuple[socket.socket, socket.socket], proxy: Proxy) -> None:
    near, far = ends
    proxy.limit(100_000, down=False)
    before_s = time.monotonic()
    threading.Thread(target=near.sendall, args=(b"x" * 30_000,)).start()
    left = 30_000
    while left:
        left -= len(far.recv(left))
    assert time.monotonic() - before_s > 0.2
