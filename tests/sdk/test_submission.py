"""From TitanJob to the bytes that are sent: files, arguments, fields, problems, large submissions."""

import base64
import hashlib
import json
import os
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.sdk.conftest import Connect
from tests.sdk.double import Double, Request, answer, closed_port, refusal
from titan.model.limits import DEFAULT_LIMITS
from titan.model.spec import LATER, JobSpec, Problem, read_job
from titan_sdk import FileMissing, Invalid, TitanJob, Unreachable
from titan_sdk.scripts import BLOB_INLINE_BYTES_MAX
from titan_sdk.submission import BROKEN, JOBS_INLINE_MAX, Submission

RUN = {"id": "ab" * 16, "name": "n", "state": "QUEUED", "generation": 1}
SUBMITTED = answer({"run": RUN, "warnings": [], "resolved": {}}, 201)


def sent(*jobs: TitanJob) -> list[dict[str, Any]]:
    """Return the documents of `jobs` as a Master would read them."""
    submission = Submission({"name": "n"}, jobs)
    assert submission.problems == []
    body = submission.body()
    assert isinstance(body, bytes)
    documents: list[dict[str, Any]] = json.loads(body)["jobs"]
    return documents


def read(**fields: Any) -> JobSpec:
    """Return the JobSpec the Master makes of a job with these fields."""
    problems: list[Problem] = []
    spec = read_job(sent(TitanJob("j", "f.py", **fields))[0], DEFAULT_LIMITS, problems)
    assert spec is not None, problems
    return spec


def problems_of(*jobs: TitanJob) -> list[tuple[str, str, str]]:
    found = Submission({"name": "n"}, jobs).problems
    return [(problem["job_id"], problem["field"], problem["message"]) for problem in found]


def test_defaults_are_those_of_the_master() -> None:
    assert sent(TitanJob("j", "f.py")) == [{"job_id": "j", "filename": "f.py"}]
    default = JobSpec("j", "f.py")
    job = TitanJob("j", "f.py")
    for field in ("job_type", "priority", "affinity", "affinity_wait_s", "retries", "retry_backoff_s", "timeout_s",
                  "lease_s", "on_lost", "reap", "warm"):  # fmt: skip
        assert getattr(job, field) == getattr(default, field), field


def test_every_field_arrives() -> None:
    spec = read(
        job_type="TASK", args=["-v"], parents=("a", "b"), priority=7, delay=1500, affinity=True,
        requirement=["GPU", "x"], retries=3, retry_backoff_s=2.5, timeout_s=9, lease_s=90, on_lost="fail",
        env={"A": "1"}, affinity_wait_s=5, reap=True, warm=False,
    )  # fmt: skip
    assert json.loads(msgspec.json.encode(spec)) == {
        "job_id": "j", "filename": "f.py", "job_type": "TASK", "args": ["-v"], "parents": ["a", "b"], "priority": 7,
        "delay_ms": 1500, "affinity": True, "requirement": ["GPU", "x"], "retries": 3, "retry_backoff_s": 2.5,
        "timeout_s": 9.0, "lease_s": 90, "on_lost": "fail", "env": {"A": "1"}, "affinity_wait_s": 5.0, "reap": True,
        "warm": False,
    }  # fmt: skip


def test_fields_may_be_changed_until_the_job_is_submitted() -> None:
    job = TitanJob("j", "f.py", parents=["a"])
    job.priority = 9
    job.parents = ["b"]
    assert sent(job) == [{"job_id": "j", "filename": "f.py", "priority": 9, "parents": ["b"]}]


@pytest.mark.parametrize("field", sorted(LATER))
def test_a_field_of_a_later_feature_reaches_the_master_which_names_it(field: str) -> None:
    assert field not in sent(TitanJob("j", "f.py"))[0]
    found: list[Problem] = []
    job = TitanJob("j", "f.py", **{field: "x" if field in ("hitl_message", "python") else 7})  # type: ignore[arg-type]
    assert read_job(sent(job)[0], DEFAULT_LIMITS, found) is None
    assert [(problem.code, problem.field) for problem in found] == [("unsupported", field)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", ["a", "b"]),
        ("  --name  'Ada Lovelace' ", ["--name", "Ada Lovelace"]),
        (r'"a \"b\"" c\ d', ['a "b"', "c d"]),
        ("a|b;c $HOME `x` *.py # no comment", ["a|b;c", "$HOME", "`x`", "*.py", "#", "no", "comment"]),
        ("'' 🐙 'line\nbreak' \"\t\"", ["", "🐙", "line\nbreak", "\t"]),
        ("", []),
        ("one\ntwo", ["one", "two"]),
        ("--x='{\"a\": 1}'", ['--x={"a": 1}']),
    ],
)
def test_text_is_split_as_a_shell_would(text: str, expected: list[str]) -> None:
    assert list(read(args=text).args) == expected


@pytest.mark.parametrize(
    "args", [["a b", "", "'", '"', "\\", "|", ";", "$HOME", "🐙", "x\ny", "\t", " "], ("t",), [], [""]]
)
def test_a_list_is_passed_exactly(args: Iterable[str]) -> None:
    assert list(read(args=args).args) == list(args)


@pytest.mark.parametrize(
    ("delay", "delay_ms"),
    [(0, 0), (250, 250), ("250", 250), ("250ms", 250), ("2s", 2000), ("1.5s", 1500), (" 2 s ", 2000), ("5m", 300_000),
     ("1h", 3_600_000), ("1d", 86_400_000), ("0.5ms", 0)],
)  # fmt: skip
def test_a_delay_is_milliseconds_or_a_time(delay: int | str, delay_ms: int) -> None:
    assert read(delay=delay).delay_ms == delay_ms


@pytest.mark.parametrize("delay", ["", "s", "soon", "2 parsecs", "-2s", "1e3s", "nan", "1.2.3s", "٢s"])
def test_what_is_no_time_is_told(delay: str) -> None:
    [(job_id, field, message)] = problems_of(TitanJob("j", "f.py", delay=delay))
    assert (job_id, field) == ("j", "delay_ms")
    assert repr(delay) in message


def test_one_tag_and_a_list_of_tags() -> None:
    assert read(requirement="GPU").requirement == ("GPU",)
    assert read(requirement=["GPU", "BIG"]).requirement == ("GPU", "BIG")


@pytest.mark.parametrize(
    ("fields", "field", "word"),
    [
        ({"args": "it's"}, "args", "closing quotation"),
        ({"args": ["--n", 5]}, "args", "5, of type int"),
        ({"args": 5}, "args", "of type int: give a list"),
        ({"parents": "a"}, "parents", "of type str: give a list"),
        ({"parents": [TitanJob("a", "f")]}, "parents", "of type TitanJob: give text"),
        ({"priority": object()}, "priority", "not JSON serializable"),
        ({"retry_backoff_s": float("nan")}, "retry_backoff_s", "it is nan; give a finite number"),
        ({"args": ["\ud800"]}, "args", "lone surrogate"),
        ({"env": {"A": "\udcff"}}, "env", "lone surrogate"),
        ({"script_content": 5}, "script", "of type int: give text or bytes"),
        ({"script_content": "\ud800"}, "script", "a lone surrogate"),
    ],
)
def test_what_only_this_side_can_see_is_told_and_sent_as_broken(fields: Any, field: str, word: str) -> None:
    submission = Submission({"name": "n"}, [TitanJob("j", "f.py", **fields)])
    assert [(problem["job_id"], problem["field"]) for problem in submission.problems] == [("j", field)]
    assert word in submission.problems[0]["message"]
    body = submission.body()
    assert isinstance(body, bytes)
    assert json.loads(body)["jobs"][0][field] == BROKEN


@pytest.mark.parametrize("field", [*JobSpec.__struct_fields__, *LATER])
def test_no_field_accepts_what_stands_for_broken(field: str) -> None:
    document = {"job_id": "j", "filename": "f.py", field: BROKEN}
    assert read_job(document, DEFAULT_LIMITS, []) is None


def test_a_thing_that_is_no_job_is_refused() -> None:
    with pytest.raises(Invalid, match=r"jobs\[1\] is {}, of type dict: give TitanJob objects"):
        Submission({"name": "n"}, [TitanJob("j", "f.py"), {}])  # type: ignore[list-item]


def test_a_file_is_read_at_submission_and_sent_once() -> None:
    job = TitanJob("a", "f.py")
    Path("f.py").write_text("print(1)")
    Path("g.py").write_text("print(1)")
    submission = Submission({"name": "n"}, [job, TitanJob("b", Path("f.py")), TitanJob("c", "g.py")])
    body = submission.body()
    assert isinstance(body, bytes)
    document = json.loads(body)
    digest = hashlib.sha256(b"print(1)").hexdigest()
    assert document["blobs"] == {digest: base64.b64encode(b"print(1)").decode()}
    assert [job["script"] for job in document["jobs"]] == [digest] * 3
    assert [job["filename"] for job in document["jobs"]] == ["f.py", "f.py", "g.py"]
    assert document["jobs"][0]["source_path"] == os.path.abspath("f.py")


def test_script_content_needs_no_file() -> None:
    Path("f.py").write_text("other")
    [one, two] = sent(TitanJob("a", "f.py", script_content="héllo"), TitanJob("b", "f.py", script_content=b""))
    assert one == {"job_id": "a", "filename": "f.py", "script": hashlib.sha256("héllo".encode()).hexdigest()}
    assert two["script"] == hashlib.sha256(b"").hexdigest()


def test_a_large_file_is_put_first(connect: Connect) -> None:
    Path("edge.py").write_bytes(b"#" * BLOB_INLINE_BYTES_MAX)
    large = b"#" * (BLOB_INLINE_BYTES_MAX + 1)
    Path("large.py").write_bytes(large)
    with Double(SUBMITTED) as master:
        connect(url=master.url).submit_dag(
            "n", [TitanJob("a", "edge.py"), TitanJob("b", "large.py"), TitanJob("c", "x.py", script_content=large)]
        )
    put, submit = master.requests
    digest = hashlib.sha256(large).hexdigest()
    assert (put.method, put.path, put.body) == ("PUT", f"blobs/{digest}", large)
    document = submit.json()
    assert len(document["blobs"]) == 1
    assert [job["script"] for job in document["jobs"]][1:] == [digest, digest]


def test_many_small_files_do_not_make_one_huge_document(connect: Connect) -> None:
    jobs = [TitanJob(f"j{n}", "x.py", script_content=f"{n:<60000}") for n in range(110)]
    with Double(SUBMITTED) as master:
        connect(url=master.url).submit_dag("n", jobs)
    puts, submit = master.requests[:-1], master.requests[-1]
    lines = lines_of(submit)
    assert sum(len(line.get("blobs", ())) for line in lines) + len(puts) == 110
    assert puts
    assert max(map(len, submit.body.splitlines())) < DEFAULT_LIMITS.json_bytes_max


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    os.mkdir("folder.py")
    os.mkfifo("pipe.py")
    os.symlink("gone.py", "dangling.py")
    found = problems_of(*(TitanJob(name, f"{name}.py") for name in ("folder", "pipe", "dangling", "absent")))
    assert [(job_id, message) for job_id, _, message in found] == [
        ("folder", "folder.py cannot be read: it is not a regular file; name a file that you may read"),
        ("pipe", "pipe.py cannot be read: it is not a regular file; name a file that you may read"),
        ("dangling", "dangling.py cannot be read: No such file or directory; name a file that you may read"),
    ]


@pytest.mark.parametrize("filename", ["", "a\0b", None, 5, b"x.py"])
def test_an_impossible_file_name_is_left_to_the_master(filename: Any) -> None:
    submission = Submission({"name": "n"}, [TitanJob("j", filename)])
    assert submission.streamed is False


def test_in_a_job_nothing_private_to_the_attempt_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("f.py").write_text("x")
    monkeypatch.setenv("TITAN_JOB_ID", "j")
    monkeypatch.setenv("TITAN_WORKDIR", os.getcwd())
    [one, two] = sent(TitanJob("a", os.path.abspath("f.py")), TitanJob("b", "f.py"))
    assert one["filename"] == two["filename"] == "f.py"
    assert "source_path" not in one


def test_one_error_lists_what_both_sides_found(connect: Connect) -> None:
    theirs = [
        {
            "code": "file_not_found",
            "message": "no file 'nowhere.py' in the registry",
            "job_id": "a",
            "field": "filename",
        },
        {"code": "invalid", "message": "args is 5: give text", "job_id": "b", "field": "args"},
        {"code": "invalid", "message": "a cycle: a -> b -> a"},
    ]
    jobs = [TitanJob("a", "nowhere.py"), TitanJob("b", "f.py", args="'")]
    with (
        Double(refusal(Invalid("'n': 3 problems", problems=theirs, request_id="r1"))) as master,
        pytest.raises(FileNotFoundError) as caught,
    ):
        connect(url=master.url).submit_dag("n", jobs)
    error = caught.value
    assert isinstance(error, FileMissing)
    assert [problem.get("job_id") for problem in error.problems] == ["b", "a", None]
    text = str(error)
    assert "3 problems" in text
    assert 'b: args "\'" cannot be split' in text
    place = os.path.abspath("nowhere.py")
    assert f"a: 'nowhere.py' is neither on this disk ({place}) nor, as 'nowhere.py', in the Master's registry" in text
    assert "upload_file" in error.hint
    assert "cycle" in text
    assert "Expected" not in text


def test_a_job_is_told_how_it_comes_to_a_file(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = [{"code": "file_not_found", "message": "no file", "job_id": "a", "field": "filename"}]
    monkeypatch.setenv("TITAN_JOB_ID", "parent")
    with Double(refusal(Invalid("one", problems=theirs))) as master, pytest.raises(FileMissing) as caught:
        connect(url=master.url).submit_job(TitanJob("a", "nowhere.py"))
    assert "script_content=" in caught.value.hint


def test_one_problem_is_the_message(connect: Connect) -> None:
    theirs = [{"code": "too_large", "message": "args take 200000 bytes", "job_id": "a", "field": "args"}]
    error = Invalid("one", code="too_large", problems=theirs, hint="use a file")
    with Double(refusal(error)) as master, pytest.raises(Invalid) as caught:
        connect(url=master.url).submit_job(TitanJob("a", "f.py"))
    assert type(caught.value) is Invalid
    assert (caught.value.code, str(caught.value)) == ("too_large", "args take 200000 bytes\nNext: use a file")


def test_our_problems_are_told_when_nobody_answers(connect: Connect) -> None:
    client = connect(port=closed_port())
    with pytest.raises(Invalid, match="cannot be split"):
        client.submit_job(TitanJob("a", "f.py", args="'"))
    with pytest.raises(Unreachable):
        client.submit_job(TitanJob("a", "f.py"))


def test_an_error_about_the_whole_is_passed_on(connect: Connect) -> None:
    with (
        Double(refusal(Invalid("the body is too deep", hint="flatten it"))) as master,
        pytest.raises(Invalid, match="too deep"),
    ):
        connect(url=master.url).submit_job(TitanJob("a", "f.py"))


def test_names_that_are_not_text(connect: Connect) -> None:
    client = connect(url="http://127.0.0.1:1")
    for name in (object(), "\ud800"):
        with pytest.raises(Invalid, match=r"of type object: give text|cannot be sent"):
            client.submit_dag(name, [TitanJob("a", "f.py")])  # type: ignore[arg-type]


def pieces_of(submission: Submission) -> Iterator[bytes]:
    body = submission.body()
    assert not isinstance(body, bytes)
    return body


def lines_of(request: Request) -> list[Any]:
    assert request.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in request.body.splitlines()]


def test_many_jobs_travel_as_lines_and_a_resend_is_the_same_bytes(connect: Connect) -> None:
    Path("f.py").write_text("x")
    jobs = [TitanJob(f"j{n}", "f.py", args=["ü"]) for n in range(JOBS_INLINE_MAX + 1)]
    with Double(None, SUBMITTED) as master:
        connect(url=master.url).submit_dag("n", jobs, agent_run_id="agent")
    first, second = master.requests
    assert (first.body, first.key) == (second.body, second.key)
    header, *rest = lines_of(second)
    assert header == {"name": "n", "agent_run_id": "agent", "jobs": 1001, "blobs": header["blobs"]}
    assert len(header["blobs"]) == 1
    assert [job["job_id"] for job in rest] == [job.job_id for job in jobs]


def test_a_thousand_jobs_are_still_one_document() -> None:
    assert not Submission({}, [TitanJob(f"j{n}", "f.py") for n in range(JOBS_INLINE_MAX)]).streamed


def test_few_jobs_with_large_arguments_travel_as_lines_too() -> None:
    jobs = [TitanJob(f"j{n}", "f.py", args=["x" * 100_000]) for n in range(50)]
    submission = Submission({"name": "n"}, jobs)
    assert submission.streamed
    assert b"".join(pieces_of(submission)).count(b"\n") == 51
    assert not Submission({}, jobs, may_stream=False).streamed


def test_many_files_travel_in_lines_that_the_master_takes() -> None:
    jobs = [TitanJob(f"j{n}", "x.py", script_content=f"{n:<60000}") for n in range(40)]
    submission = Submission({"name": "n"}, jobs)
    sent = b"".join(pieces_of(submission)).splitlines()
    assert max(map(len, sent)) < DEFAULT_LIMITS.json_bytes_max
    header, *rest = map(json.loads, sent)
    assert header["jobs"] == 40
    blobs = header["blobs"] | {key: text for line in rest for key, text in line.get("blobs", {}).items()}
    assert blobs == submission.scripts.inline
    assert len(blobs) == 40
    assert [line["job_id"] for line in rest if "blobs" not in line] == [job.job_id for job in jobs]


def test_a_large_submission_is_sent_without_growing() -> None:
    Path("f.py").write_text("x")
    jobs = [TitanJob(f"job-{n}", "f.py", parents=[f"job-{n - 1}"] if n else None) for n in range(20_000)]
    tracemalloc.start()
    try:
        sent_bytes = sum(map(len, pieces_of(Submission({"name": "n"}, jobs))))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent_bytes > 3_000_000
    assert peak_bytes < 1_000_000
