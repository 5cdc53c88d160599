"""`titan token` on a real cluster: made, used from elsewhere, listed, revoked."""

import json
import re

from tests.acceptance.cluster import Cluster


def test_a_token_is_made_used_listed_and_revoked(cluster: Cluster) -> None:
    made = cluster.titan("token", "create", "dashboard on the wall", "--role", "viewer", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    token = made.stdout.decode().strip()
    assert re.fullmatch(r"tt\.[0-9a-f]{12}\.[A-Za-z0-9_-]{43}", token)
    assert b"shown only now" in made.stderr
    assert token.encode() not in made.stderr
    token_id = token.split(".")[1]

    listed = json.loads(cluster.titan("token", "ls", "--json").stdout)["tokens"]
    (about,) = [each for each in listed if each["id"] == token_id]
    assert (about["name"], about["role"], about["state"]) == ("dashboard on the wall", "viewer", "living")

    with_it = {"TITAN_TOKEN": token, "TITAN_URL": cluster.url}
    assert cluster.titan("ps", **with_it).returncode == 0
    refused = cluster.titan("worker", "drain", "local", **with_it)
    assert refused.returncode == 5
    assert b"a token of role viewer may not use workers.drain" in refused.stderr
    assert b"Next: roles that may: operator, admin; an admin makes such a token: titan token create" in refused.stderr

    assert cluster.titan("token", "revoke", token_id).returncode == 0
    assert cluster.titan("ps", **with_it).returncode == 5
    assert token_id in cluster.titan("token", "ls", "--all", "-q").stdout.decode()
    assert token_id not in cluster.titan("token", "ls", "-q").stdout.decode()


def test_a_token_is_revoked_by_its_name_and_the_id_is_said(cluster: Cluster) -> None:
    ids = [json.loads(cluster.titan("token", "create", name, "--role", "viewer", "--json").stdout)["about"]["id"]
           for name in ("by name", "twice", "twice")]  # fmt: skip
    done = cluster.titan("token", "revoke", "by name")
    assert (done.returncode, done.stderr.decode()) == (0, f"token {ids[0]} (by name) is revoked\n")
    done = cluster.titan("token", "revoke", "twice")
    assert done.returncode == 6
    assert all(f"  - {token_id}, viewer, made ".encode() in done.stderr for token_id in ids[1:])
    assert cluster.titan("token", "revoke", *ids[1:]).returncode == 0


def test_what_cannot_be_a_token_is_refused_in_words(cluster: Cluster) -> None:
    for arguments, code, words in (
        (["create", "n", "--role", "root"], 2, "root"),
        (["create", "n", "--role", "viewer", "--expires", "soon"], 2, "is no time: give a number with s, m, h, d or w"),
        (["create", "n", "--role", "worker"], 6, "name a worker with role worker, and with no other"),
        (["create", "n", "--role", "viewer", "--expires", "999999999w"], 6, "expires_s is"),
        (["revoke", "0123456789ab"], 3, "there is no token '0123456789ab'"),
    ):
        done = cluster.titan("token", *arguments)
        assert done.returncode == code, done.stderr
        assert words in done.stderr.decode()
        assert not done.stdout
