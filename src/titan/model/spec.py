"""What a person may say about a job, and the checks that need nothing but the job itself.

`JobSpec` is the one form of a job from the SDK's JSON to the worker's grant; it is stored encoded and
decoded only where it is used. Checks over a whole graph (duplicates, cycles) are in `titan.core.graph`.
A parameter of a feature that does not exist yet is refused by name: an ignored gate would skip a
person's approval.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec

from titan.model.ids import SHA256_PATTERN, job_id_problem, shown, shown_value
from titan.model.limits import Limits, change
from titan.model.wording import reworded
from titan_sdk.job import LATER

GENERAL = "GENERAL"
GPU = "GPU"
PATH_BYTES_MAX = 4096  # PATH_MAX and NAME_MAX of Linux
NAME_BYTES_MAX = 255
OnLost = Literal["retry", "fail"]


class JobSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One job as submitted. `script` is the SHA-256 of the file's content (hex), "" until resolved."""

    job_id: str
    filename: str
    script: str = ""
    job_type: str = "RUN_PAYLOAD"
    args: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    requirement: tuple[str, ...] = (GENERAL,)
    priority: int = 1
    delay_ms: int = 0
    affinity: bool = False
    affinity_wait_s: float = 60.0
    retries: int = 0
    retry_backoff_s: float = 1.0
    timeout_s: float | None = None
    lease_s: int = 60
    on_lost: OnLost = "retry"
    env: dict[str, str] = {}
    reap: bool = False
    warm: bool = True
    source_path: str = ""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing wrong with a submission. `code` is stable; `message` says what, why and what next."""

    code: str
    message: str
    job_id: str = ""
    field: str = ""


JOB_TYPES = ("RUN_PAYLOAD", "TASK")

_TYPES: Mapping[str, Any] = {
    field.name: Annotated[field.type, msgspec.Meta()] for field in msgspec.structs.fields(JobSpec)
}
ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(JobSpec)


def encode_spec(spec: JobSpec) -> bytes:
    """Return the stored form of `spec` (msgpack)."""
    return ENCODER.encode(spec)


def decode_spec(data: bytes) -> JobSpec:
    """Return the spec stored as `data`. Raises msgspec.DecodeError when it is not one."""
    try:
        return _DECODER.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError("a text is not UTF-8") from error


def read_job(raw: object, limits: Limits, problems: list[Problem]) -> JobSpec | None:
    """Turn one decoded JSON object into a JobSpec; append every problem found and return None if there is one."""
    try:
        spec = msgspec.convert(raw, JobSpec)
    except msgspec.ValidationError:
        problems.extend(_shape_problems(raw))
        return None
    found = spec_problems(spec, limits)
    problems.extend(found)
    return None if found else spec


def spec_problems(spec: JobSpec, limits: Limits) -> list[Problem]:
    """Return everything wrong with one job taken by itself, in the order of its fields."""
    found: list[Problem] = []

    def add(field: str, message: str | None, code: str = "invalid") -> None:
        if message is not None:
            found.append(Problem(code=code, message=message, job_id=spec.job_id, field=field))

    add("job_id", job_id_problem(spec.job_id))
    add("filename", _filename_problem(spec.filename))
    if spec.source_path and (utf8_bytes(spec.source_path) > PATH_BYTES_MAX or "\x00" in spec.source_path):
        add(
            "source_path",
            f"source_path {shown(spec.source_path)} is no path: give at most {PATH_BYTES_MAX} bytes, without NUL",
        )
    if spec.script and not SHA256_PATTERN.fullmatch(spec.script):
        add("script", f"script {shown(spec.script)} is not a SHA-256: give 64 hex digits in lower case")
    if spec.job_type not in JOB_TYPES:
        add("job_type", _job_type_message(spec.job_type), "unsupported")
    if spec.requirement != (GENERAL,):
        add("requirement", _requirement_problem(spec.requirement, limits))
    add("priority", _range_problem("priority", spec.priority, 0, limits))
    add("delay_ms", _range_problem("delay_ms", spec.delay_ms, 0, limits))
    add("affinity_wait_s", _range_problem("affinity_wait_s", spec.affinity_wait_s, 0, limits, "timeout_s_max"))
    add("retries", _range_problem("retries", spec.retries, 0, limits))
    add("retry_backoff_s", _range_problem("retry_backoff_s", spec.retry_backoff_s, 0, limits))
    if spec.timeout_s is not None:
        add("timeout_s", _range_problem("timeout_s", spec.timeout_s, 0.001, limits))
    add("lease_s", _range_problem("lease_s", spec.lease_s, limits.lease_s_min, limits, low_is="lease_s_min"))
    if spec.args:
        add("args", _args_problem(spec.args))
        size = sum(utf8_bytes(arg) + 1 for arg in spec.args)
        add("args", _size_problem("args", size, limits), "too_large")
    if spec.env:
        add("env", _env_problem(spec.env))
        size = sum(utf8_bytes(name) + utf8_bytes(value) + 2 for name, value in spec.env.items())
        add("env", _size_problem("env", size, limits), "too_large")
    if len(spec.parents) > limits.job_parents_max:
        add(
            "parents",
            f"{len(spec.parents)} parents: give at most {limits.job_parents_max}, with a collecting job in between"
            f" ({change('job_parents_max')})",
            "too_large",
        )
    return found


def utf8_bytes(text: str) -> int:
    """Return how many bytes `text` takes as UTF-8; a lone surrogate counts three and raises nothing."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _shape_problems(raw: object) -> list[Problem]:
    if not isinstance(raw, dict):
        return [Problem(code="invalid", message=f"a job is {shown_value(raw)}: give a JSON object")]
    job_id = raw.get("job_id")
    label = job_id if isinstance(job_id, str) else ""
    found: list[Problem] = []
    for key, value in raw.items():
        field = str(key)
        if field in LATER:
            message = f"{field}: {LATER[field]}, not available in this version; leave {field} out"
            found.append(Problem(code="unsupported", message=message, job_id=label, field=field))
        elif field not in _TYPES:
            message = f"{shown(field)} is not a field of a job: leave it out, or use one of {', '.join(_TYPES)}"
            found.append(Problem(code="invalid", message=message, job_id=label, field=field))
        else:
            try:
                msgspec.convert(value, _TYPES[field])
            except msgspec.ValidationError as error:
                message = reworded(str(error), field, shown_value(value))
                if field == "on_lost":
                    message = f"on_lost is {shown(str(value))}: give {' or '.join(get_args(OnLost))}"
                found.append(Problem(code="invalid", message=message, job_id=label, field=field))
    for field in ("job_id", "filename"):
        if field not in raw:
            found.append(
                Problem(code="invalid", message=f"{field} is missing: give it as text", job_id=label, field=field)
            )
    return found


def _job_type_message(job_type: str) -> str:
    return f"job_type {shown(job_type)} is not available: use {' or '.join(JOB_TYPES)}"


def _filename_problem(filename: str) -> str | None:
    base = filename.replace("\\", "/").rsplit("/", 1)[-1]
    if not base or base in (".", "..") or "\x00" in filename:
        return f"filename {shown(filename)} names no file: give the path of a file"
    if utf8_bytes(filename) > PATH_BYTES_MAX or utf8_bytes(base) > NAME_BYTES_MAX:
        return (
            f"filename {shown(filename)} is longer than a file's name may be: give at most {NAME_BYTES_MAX} bytes, "
            f"{PATH_BYTES_MAX} with its folders"
        )
    return None


def _requirement_problem(tags: tuple[str, ...], limits: Limits) -> str | None:
    if not tags:
        return f"requirement is empty: name a capability, or leave it out for {GENERAL}"
    if len(tags) > limits.requirement_tags_max:
        most = f"{limits.requirement_tags_max} ({change('requirement_tags_max')})"
        return f"requirement has {len(tags)} tags: give at most {most}"
    for tag in tags:
        problem = job_id_problem(tag, "requirement")
        if problem:
            return problem
    return None


def _range_problem(
    field: str, value: float, low: float, limits: Limits, high_is: str = "", low_is: str = ""
) -> str | None:
    """Say that `value` is out of its range, whose end is the limit `high_is` (default: the field's own)."""
    high_is = high_is or f"{field}_max"
    high: float = getattr(limits, high_is)
    if low <= value <= high:
        return None
    limit = high_is if value > high else low_is if value < low else ""
    found = shown_value(value) if isinstance(value, int) else f"{value}"
    return f"{field} is {found}: give {low:.12g} to {high:.12g}" + (f" ({change(limit)})" if limit else "")


def _args_problem(args: tuple[str, ...]) -> str | None:
    if any("\x00" in arg for arg in args):
        return "args hold a NUL character, which no program can receive: leave it out"
    return None


def _env_problem(env: Mapping[str, str]) -> str | None:
    for name, value in env.items():
        if not name or "=" in name or "\x00" in name or "\x00" in value:
            return f"env name {shown(name)} is not possible: use a name that is not empty, without '=' and NUL"
        if name.startswith("TITAN_"):
            return f"env name {shown(name)} is Titan's own: use one that does not begin with TITAN_"
    return None


def _size_problem(field: str, size: int, limits: Limits) -> str | None:
    limit = f"{field}_bytes_max"
    if size <= getattr(limits, limit):
        return None
    most = f"{getattr(limits, limit)} ({change(limit)})"
    return f"{field}: {size} bytes, at most {most}; put large input in the store or a file"
