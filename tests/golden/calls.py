"""Bad calls of the SDK, written as Python: (the call, a part of it that the answer names)."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.golden.process import RealMaster
from tests.golden.table import Entry, entry
from titan_sdk import TitanClient, TitanError, TitanJob

CALLS = [
    ("TitanClient(url=5)", "5"),
    ("TitanClient(host=5)", "5"),
    ("TitanClient(token=5)", "5"),
    ("TitanClient(ca=5)", "5"),
    ("TitanClient(url='http://a', host='b')", "host="),
    ("TitanClient(timeout_s='x')", "'x'"),
    ("TitanClient(timeout_s=-1)", "-1"),
    ("TitanClient(timeout_s=float('nan'))", "nan"),
    ("TitanClient(port='x').stats()", "port="),
    ("TitanClient(url='ftp://x').stats()", "url="),
    ("TitanClient(url=' ').stats()", "url="),
    ("TitanClient(url=client.url, token='x y').stats()", "token="),
    ("TitanClient(url=client.url, token='nobody-made-it').stats()", "token"),
    ("TitanClient(url='http://127.0.0.1:1', timeout_s=0.01).stats()", "http://127.0.0.1:1"),
    ("in_checkout('titan.toml', 'url = \"http://elsewhere:1\"', token='mine')", "http://elsewhere:1"),
    ("in_checkout('pyproject.toml', 'tool = \"tool.titan\"')", "tool"),
    ("client.list_runs(limit='x')", "'x'"),
    ("client.list_runs(limit=-1)", "-1"),
    ("client.list_runs(limit=1.5)", "1.5"),
    ("client.list_runs(limit=None)", "None"),
    ("client.list_runs(state='LOST')", "'LOST'"),
    ("client.get_run('nope')", "'nope'"),
    ("client.get_run('a/b')", "a%2Fb"),
    ("client.get_run(5)", "5"),
    ("client.get_run(None)", "None"),
    ("client.get_run('')", "''"),
    ("client.get_run('\\ud800')", "\\ud800"),
    ("client.list_jobs('a/b')", "a%2Fb"),
    ("client.list_jobs(run, state='LOST')", "'LOST'"),
    ("client.lookup(None)", "id"),
    ("client.lookup('nope')", "'nope'"),
    ("client.wait('first', timeout='x')", "'x'"),
    ("client.wait('first', timeout=float('nan'))", "nan"),
    ("client.wait('first', timeout=0)", "first"),
    ("run.wait(timeout='x')", "'x'"),
    ("run.logs(5)", "5"),
    ("client.cancel('nope')", "'nope'"),
    ("client.explain('nope')", "'nope'"),
    ("client.fetch_logs('nope')", "'nope'"),
    ("client.fetch_logs('two')", "{two}"),
    ("client.drain_worker('a/b')", "a%2Fb"),
    ("client.drain_worker('nope')", "nope"),
    ("client.retry(run)", "has not ended"),
    ("client.retry(run, jobs='first')", "'first'"),
    ("client.retry(run, jobs=5)", "5"),
    ("client.retry(run, jobs=[5])", "job_ids[0]"),
    ("client.extend_run(5, [job()])", "5"),
    ("client.extend_run('nope', [job(job_id='n')])", "'nope'"),
    ("client.extend_run(run, [job(job_id='first')])", "'first'"),
    ("client.submit_job(None)", "None"),
    ("client.submit_job('x')", "'x'"),
    ("client.submit_dag('d', 5)", "int"),
    ("client.submit_dag('d', [5])", "5"),
    ("client.submit_dag('d', [])", "no jobs"),
    ("client.submit_dag(5, [job()])", "5"),
    ("client.submit_dag('', [job()])", "0 characters"),
    ("client.submit_dag('d', [job()], agent_run_id=5)", "5"),
    ("client.submit_dag('d', [job()], idempotency_key=5)", "5"),
    ("client.submit_dag('d', [job(), job()])", "'a'"),
    ("client.submit_dag('d', [job(parents=['b']), job(job_id='b', parents=['a'], priority='x')])", "-> a"),
    ("client.submit_job(job(job_id=5))", "5"),
    ("client.submit_dag('d', [job(job_id=b'x')])", "b'x'"),
    ("client.submit_job(job(filename=None))", "null"),
    ("client.submit_job(job(filename='nowhere.py'))", "'nowhere.py'"),
    ("client.submit_job(job(filename='.'))", "."),
    ("client.submit_job(job(filename='/dev/zero'))", "/dev/zero"),
    ("client.submit_job(job(args=5))", "5"),
    ('client.submit_job(job(args="it\'s"))', "it's"),
    ("client.submit_job(job(args=['--n', 5]))", "5"),
    ("client.submit_job(job(args=['\\ud800']))", "surrogate"),
    ("client.submit_job(job(parents='b'))", "'b'"),
    ("client.submit_job(job(parents=[job()]))", "TitanJob"),
    ("client.submit_job(job(priority='high'))", "'high'"),
    ("client.submit_job(job(priority=float('nan')))", "nan"),
    ("client.submit_job(job(priority=object()))", "object"),
    ("client.submit_job(job(delay='soon'))", "'soon'"),
    ("client.submit_job(job(requirement=None))", "null"),
    ("client.submit_job(job(requirement=5))", "5"),
    ("client.submit_job(job(env=['A']))", "env"),
    ("client.submit_job(job(retries=None))", "null"),
    ("client.submit_job(job(timeout_s='1h'))", "'1h'"),
    ("client.submit_job(job(hitl_message='ok?'))", "hitl_message"),
    ("client.submit_job(job(script_content=5))", "5"),
    ("client.submit_job(job(script_content='\\ud800'))", "surrogate"),
    ("client.store_put(5, 'v')", "key"),
    ("client.store_put('k', 5)", "int"),
    ("client.store_put('k', '\\ud800')", "surrogate"),
    ("client.store_put('k', 'v', ttl_s=-1)", "-1"),
    ("client.store_put('k', 'v', ttl_s=float('nan'))", "nan"),
    ("client.store_get(None)", "key"),
    ("client.store_incr('text')", "'text'"),
    ("client.store_incr('k', 'x')", "by"),
    ("client.store_cas('k', 5, 'x')", "expect"),
    ("client.store_sadd('text', 'm')", "'text'"),
    ("client.store_list(5)", "prefix"),
    ("client.store_incr('k', True)", "by"),
    ("client.store_smembers(5)", "key"),
    ("client.publish_artifact(5, 'here.txt')", "5"),
    ("client.publish_artifact('k', None)", "None"),
    ("client.publish_artifact('', 'here.txt')", "key"),
    ("client.publish_artifact('k', '.')", "."),
    ("client.get_artifact('nope')", "'nope'"),
    ("client.get_artifact('nope', version='x')", "'x'"),
    ("client.submit_yaml(None)", "None"),
    ("client.submit_yaml('nowhere.yml')", "'nowhere.yml'"),
    ("client.submit_yaml('here.txt')", "here.txt:1:1"),
    ("client.submit_job(job(delay=10**400))", "delay_ms"),
    ("client.submit_job(job(python='3.9'))", "python"),
    ("client.upload_file('nowhere.py')", "nowhere.py"),
    ("client.upload_file('.')", "."),
    ("client.upload_file(None)", "None"),
    ("client.upload_file('here.txt', name='a/b')", "'a/b'"),
    ("client.upload_file('here.txt', name='a b')", "'a b'"),
    ("client.deploy_script('here.txt')", "here.txt"),
]


def job(**fields: Any) -> TitanJob:
    return TitanJob(**({"job_id": "a", "filename": "job.py"} | fields))


def in_checkout(file: str, text: str, **given: Any) -> Any:
    """Ask from a folder in which a file says where the Master is."""
    folder = Path("checkout")
    folder.mkdir()
    (folder / file).write_text(text)
    try:
        with contextlib.chdir(folder):
            return TitanClient(**given).stats()
    finally:
        shutil.rmtree(folder)


def entries(master: RealMaster, folder: Path) -> Iterator[Entry]:
    """Make each call in `folder` and yield what it raised."""
    (folder / "here.txt").write_text("no script")
    with TitanClient(url=master.url, token=master.token) as client, contextlib.chdir(folder):
        known: dict[str, Any] = {"TitanClient": TitanClient, "client": client, "job": job, "in_checkout": in_checkout}
        client.submit_dag("two", [TitanJob(name, "job.py") for name in ("second", "third")])
        known["run"] = client.submit_dag("golden", [TitanJob("first", "job.py"), TitanJob("other", "job.py")])
        two = client.submit_dag("two", [TitanJob("x", "job.py"), TitanJob("y", "job.py")]).id
        for call, names in CALLS:
            typed = call.replace("'two'", repr(two))
            words = {"cwd": os.getcwd(), "two": two, "short": two[:8]}
            try:
                found = eval(typed, dict(known))  # noqa: S307 - the calls of this file
            except TitanError as error:
                yield entry(call, names, f"{type(error).__name__} {error.code}\n{error}", words)
            else:
                raise AssertionError(f"{call} gave {found!r}")
