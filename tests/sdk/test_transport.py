"""How a client treats connections: patience, resends with the same key, keep-alive, threads."""

import socket
import threading
from collections import Counter

import pytest

from tests.sdk.conftest import Connect, pauses_of
from tests.sdk.double import CUT, Double, Request, answer, closed_port, raw, refusal
from titan_sdk import Conflict, Internal, TitanClient, Unauthenticated, Unavailable, Unreachable
from titan_sdk.transport import IN_JOB_S, NEVER_REACHED_S, REACHED_S

STATS = answer({"busy": 0})
DELETED = answer({"deleted": True})


def test_a_cut_connection_is_resent_with_the_same_key_and_body(connect: Connect) -> None:
    with Double(CUT, CUT, DELETED) as master:
        assert connect(url=master.url).store_delete("k")
    keys = {request.key for request in master.requests}
    assert len(master.requests) == 3
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    assert {request.body for request in master.requests} == {b'{"key": "k"}'}


def test_it_works_in_real_time_too() -> None:
    with Double(CUT, DELETED) as master, TitanClient(url=master.url) as client:
        assert client.store_delete("k")


def test_an_answer_that_breaks_off_is_asked_again(connect: Connect) -> None:
    broken = STATS[:-3].replace(b"content-type", b"connection: close\r\ncontent-type")
    with Double(broken, STATS) as master:
        assert connect(url=master.url).stats() == {"busy": 0}
    assert len(master.requests) == 2


def test_every_call_has_a_key_of_its_own(connect: Connect) -> None:
    with Double(DELETED) as master:
        client = connect(url=master.url)
        client.store_delete("k")
        client.store_delete("k")
    assert len({request.key for request in master.requests}) == 2


def test_reads_carry_no_key(connect: Connect) -> None:
    with Double(answer({"value": None, "kind": "text"})) as master:
        assert connect(url=master.url).store_get("k") is None
    assert master.requests[0].key == ""


@pytest.mark.parametrize(
    ("reply", "pause"),
    [
        (refusal(Unavailable("stopping", retry_after_s=0.7)), 0.7),
        (refusal(Unavailable("stopping"), retry_after="4"), 4.0),
        (refusal(Unavailable("stopping", retry_after_s=0.2), retry_after="1"), 0.2),
        (raw(b"busy", 503, retry_after="2"), 2.0),
        (raw(b"gateway", 502), 0.05),
        (refusal(Unavailable("too often", code="rate_limited", retry_after_s=0.3)), 0.3),
        (refusal(Conflict("same key", code="in_progress", retry_after_s=1.5)), 1.5),
    ],
)
def test_the_pause_the_master_asks_for_is_kept(connect: Connect, reply: bytes, pause: float) -> None:
    with Double(reply, reply, DELETED) as master:
        client = connect(url=master.url)
        assert client.store_delete("k")
        assert pauses_of(client)[0] == pause
        assert len(pauses_of(client)) == 2
    assert len({request.key for request in master.requests}) == 1


def test_other_errors_are_raised_at_once(connect: Connect) -> None:
    for error in (Conflict("not now"), Conflict("reused", code="key_reused"), Internal("ours", request_id="r7")):
        with Double(refusal(error)) as master:
            client = connect(url=master.url)
            with pytest.raises(type(error)) as caught:
                client.store_delete("k")
            assert (caught.value.code, caught.value.message) == (error.code, error.message)
            assert len(master.requests) == 1
    assert "(request r7)" in str(caught.value)


def test_nobody_there_is_said_after_three_seconds(connect: Connect) -> None:
    port = closed_port()
    client = connect(port=port)
    with pytest.raises(Unreachable) as caught:
        client.stats()
    assert NEVER_REACHED_S - 2 < sum(pauses_of(client)) <= NEVER_REACHED_S
    assert f"http://127.0.0.1:{port} (from host= and port=): Connection refused" in caught.value.message
    assert "titan up" in caught.value.hint
    assert isinstance(caught.value, ConnectionError)


def test_a_master_that_answered_before_is_waited_for(connect: Connect) -> None:
    with Double(STATS) as master:
        client = connect(url=master.url)
        client.stats()
    with pytest.raises(Unreachable):
        client.stats()
    assert REACHED_S - 3 < sum(pauses_of(client)) <= REACHED_S


def test_a_job_waits_longest_even_for_a_master_it_never_reached(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TITAN_JOB_ID", "j")
    client = connect(port=closed_port())
    with pytest.raises(Unreachable):
        client.stats()
    assert IN_JOB_S - 3 < sum(pauses_of(client)) <= IN_JOB_S


def test_patience_can_be_set(connect: Connect) -> None:
    client = connect(port=closed_port(), timeout_s=0.5)
    with pytest.raises(Unreachable):
        client.stats()
    assert sum(pauses_of(client)) <= 0.5


def test_a_master_that_stays_unavailable_is_told_with_its_hint(connect: Connect) -> None:
    with Double(refusal(Unavailable("reloading", hint="ask later", retry_after_s=1))) as master:
        client = connect(url=master.url)
        with pytest.raises(Unavailable) as caught:
            client.stats()
    assert REACHED_S - 3 < sum(pauses_of(client)) <= REACHED_S
    assert (caught.value.hint, caught.value.retry_after_s) == ("ask later", 1)


def test_a_pause_beyond_patience_is_not_begun(connect: Connect) -> None:
    with Double(refusal(Unavailable("maintenance", retry_after_s=3600))) as master:
        client = connect(url=master.url)
        with pytest.raises(Unavailable):
            client.stats()
        assert pauses_of(client) == []


def test_patience_begins_anew_with_each_call(connect: Connect) -> None:
    with Double(CUT, STATS, CUT, STATS) as master:
        client = connect(url=master.url)
        client._transport.clock.pause(1e6)
        assert client.stats()
        client._transport.clock.pause(1e6)
        assert client.stats()


def test_one_connection_carries_many_calls(connect: Connect) -> None:
    with Double(STATS) as master:
        client = connect(url=master.url)
        for _ in range(5):
            client.stats()
        assert master.connections == 1


def test_an_error_does_not_cost_the_connection(connect: Connect) -> None:
    with Double(refusal(Conflict("no")), DELETED) as master:
        client = connect(url=master.url)
        with pytest.raises(Conflict):
            client.store_delete("k")
        client.store_delete("k")
        assert master.connections == 1


def test_a_connection_the_master_closed_meanwhile_is_replaced_without_a_pause(connect: Connect) -> None:
    with Double(STATS) as master:
        client = connect(url=master.url)
        client.stats()
        master.hang_up()
        client.stats()
        assert pauses_of(client) == []
        assert master.connections == 2


def test_a_closing_answer_is_obeyed(connect: Connect) -> None:
    with Double(answer({}, close=True), STATS) as master:
        client = connect(url=master.url)
        client.stats()
        client.stats()
        assert pauses_of(client) == []
        assert master.connections == 2


def test_a_connection_is_not_shared_with_a_forked_process(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with Double(STATS) as master:
        client = connect(url=master.url)
        client.stats()
        monkeypatch.setattr("os.getpid", lambda: 1)
        client.stats()
        assert master.connections == 2


def test_a_call_in_the_middle_of_a_call_gets_its_own_connection(connect: Connect) -> None:
    """As a signal handler makes it."""
    with Double(answer({"value": "outer", "kind": "text"})) as master:
        client = connect(url=master.url)
        client.stats()

        def body() -> bytes:
            if master.connections == 1:
                client.stats()
            return b"{}"

        client._transport.call("POST", "store/get", body=body)
        assert [request.connection for request in master.requests] == [0, 1, 0]


def test_close_reaches_the_connections_of_other_threads(connect: Connect) -> None:
    with Double(STATS) as master:
        client = connect(url=master.url)
        called, closed, done = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            client.stats()
            called.set()
            closed.wait(10)
            client.stats()
            done.set()

        threading.Thread(target=work, daemon=True).start()
        assert called.wait(10)
        client.close()
        closed.set()
        assert done.wait(10)
        assert [request.connection for request in master.requests] == [0, 1]


def test_threads_share_a_client_and_get_their_own_answers(connect: Connect) -> None:
    def echo(request: Request) -> bytes:
        return answer({"value": request.json()["key"], "kind": "text"})

    with Double(echo) as master:
        client = connect(url=master.url)
        wrong: list[str] = []
        start = threading.Barrier(8)

        def work(name: str) -> None:
            start.wait()
            for number in range(25):
                key = f"{name}-{number}"
                if client.store_get(key) != key:
                    wrong.append(key)

        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert Counter(request.connection for request in master.requests) == Counter(dict.fromkeys(range(8), 25))


def test_several_urls_are_tried_in_turn(connect: Connect) -> None:
    with Double(STATS) as second:
        client = connect(url=f"http://127.0.0.1:{closed_port()}, {second.url}")
        assert client.stats() == {"busy": 0}
        assert client.url == second.url
        client.stats()
        assert second.connections == 1


def test_a_standby_that_refuses_hands_over_to_the_next(connect: Connect) -> None:
    with Double(refusal(Unavailable("standby"))) as first, Double(STATS) as second:
        client = connect(url=f"{first.url},{second.url}")
        client.stats()
        client.stats()
        assert (len(first.requests), len(second.requests)) == (1, 2)


@pytest.mark.parametrize("reply", [raw(b"<h1>hi</h1>", 404, "text/html"), raw(b"hi"), raw(b"", 302, location="/x")])
def test_what_is_no_master_is_told_so_at_once(connect: Connect, reply: bytes) -> None:
    with Double(reply) as master:
        client = connect(url=master.url)
        with pytest.raises(Unreachable, match="not a Titan Master"):
            client.stats()
        assert len(master.requests) == 1


def test_a_missing_token_is_explained(connect: Connect) -> None:
    with Double(refusal(Unauthenticated("no token"))) as master:
        with pytest.raises(Unauthenticated) as caught:
            connect(url=master.url).stats()
        assert "TITAN_TOKEN" in caught.value.hint
        with pytest.raises(Unauthenticated) as caught:
            connect(url=master.url, token="wrong").stats()
        assert caught.value.hint == ""


def test_a_refusal_in_the_middle_of_a_large_body_is_heard(connect: Connect) -> None:
    """The Master answers 413 after the head and closes; the client is still sending and must not resend."""
    too_large = refusal(Conflict("too large")).replace(b"content-type", b"connection: close\r\ncontent-type", 1)

    class Impatient(Double):
        def _serve(self, connected: socket.socket, number: int) -> None:
            self.requests.append(Request("", "", {}, b"", number))
            with connected:
                connected.recv(1000)
                connected.sendall(too_large)

    with Impatient() as master:
        client = connect(url=master.url)
        with pytest.raises(Conflict):
            client._transport.call("PUT", "blobs/x", body=lambda: iter([b"x" * 65536] * 200))
        assert len(master.requests) == 1


def test_a_closed_client_connects_anew() -> None:
    with Double(STATS) as master:
        with TitanClient(url=master.url) as client:
            client.stats()
        client.stats()
        client.close()
        client.close()
        assert master.connections == 2
