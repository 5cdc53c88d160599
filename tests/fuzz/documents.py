"""Requests drawn from the OpenAPI document, good ones and bad ones, each answer judged by the same document."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import requests  # noqa: TID251 - schemathesis sends with it
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup

from tests.fuzz.target import WAIT_S, Findings, Stop, Target

# Answers without end: the fuzzer of bytes asks those.
EXAMPLES = 3
ENDLESS = {"/api/v1/events", "/api/v1/store/watch"}
SETTINGS = settings(
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


class DocumentFuzzer:
    """One campaign over all routes; each route gets EXAMPLES of each kind in a round."""

    def __init__(self, target: Target, seed: int, stop: Stop) -> None:
        self.target = target
        self.seed = seed
        self.stop = stop
        self.found = Findings(answers={}, findings=[])
        self.session = requests.Session()
        self.session.trust_env = False

    def run(self) -> Findings:
        found = self.found
        schema = schemathesis.openapi.from_dict(self.target.ask("GET", "/openapi.json"))
        with self.session, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for round_number in self._rounds():
                for result in schema.get_all_operations():
                    operation = result.ok()
                    if operation.path in ENDLESS:
                        continue
                    for number, mode in enumerate((GenerationMode.POSITIVE, GenerationMode.NEGATIVE)):
                        if not self._over():
                            self._ask(operation, mode, f"{self.seed} {round_number} {operation.label} {number}")
                if problem := self.target.problem():
                    found.findings.append(f"in round {round_number}: {problem}")
        return found

    def _over(self) -> bool:
        return bool(self.found.findings) or self.stop.now(self.found.cases)

    def _rounds(self) -> Iterator[int]:
        number = 0
        while not self._over():
            yield number
            number += 1

    def _ask(self, operation: Any, mode: GenerationMode, seed: str) -> None:
        tokens = st.sampled_from([self.target.token, self.target.job_token, ""])
        known = {
            name: {"run": self.target.run_id, "job": "held", "name": "job.py"}.get(name) for name in _names(operation)
        }
        paths = {name: value for name, value in known.items() if value}
        drawn = operation.as_strategy(generation_mode=mode)
        if paths and "cancel" not in operation.path and "retry" not in operation.path:
            drawn |= operation.as_strategy(generation_mode=mode, path_parameters=paths)

        @hypothesis.seed(seed)
        @settings(SETTINGS, max_examples=EXAMPLES)
        @hypothesis.given(case=drawn, token=tokens)
        def ask(case: Any, token: str) -> None:
            if not self._over():
                self._judge(case, token)

        # A route without a body or parameters cannot be asked wrongly.
        with contextlib.suppress(hypothesis.errors.Unsatisfiable):
            ask()

    def _judge(self, case: Any, token: str) -> None:
        self.found.cases += 1
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = case.call(self.target.url, self.session, headers, timeout=WAIT_S)
        self.found.count(answer.status_code)
        if answer.status_code >= 500:
            self.found.findings.append(f"{answer.status_code} {answer.text[:500]} for {_shown(case)}")
        try:
            case.operation.validate_response(answer)
        except (Failure, FailureGroup) as failure:
            told = failure.exceptions if isinstance(failure, FailureGroup) else [failure]
            self.found.findings.append(f"{[str(each) for each in told]} for {_shown(case)}: {answer.text[:500]}")


def _names(operation: Any) -> list[str]:
    return [parameter.name for parameter in operation.path_parameters]


def _shown(case: Any) -> str:
    return f"{case.method} {case.formatted_path} {case.query!r} {case.headers!r} {str(case.body)[:1000]!r}"
