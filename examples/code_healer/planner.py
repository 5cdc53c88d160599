"""Who thinks of repairs: rules that work offline, and before them a language model when the environment names one."""

import ast
import difflib
import itertools
import json
import os
import re
import urllib.request
from collections.abc import Iterator
from urllib.error import URLError

import error_rules
import mutations
import syntax_rules
from source import Fault, Proposal, Script

ASKED_MAX = 3
ANSWER_S = 60
SYNTAX_DEPTH = 4
FURTHER_MAX = 4


def rules(text: str, fault: Fault) -> Iterator[Proposal]:
    """Yield repairs that at least parse, the likeliest first."""
    script = Script(text)
    if script.tree is None:
        return parsing(Proposal(text, ""), fault, SYNTAX_DEPTH)
    found = itertools.chain(error_rules.proposals(script, fault), mutations.proposals(script, fault))
    return (proposal for proposal in found if Script(proposal.text).tree is not None)


def parsing(begun: Proposal, fault: Fault, depth: int) -> Iterator[Proposal]:
    """Yield what parses; where one edit only moves the parser's complaint further down, edit again."""
    script = Script(begun.text)
    further: list[Proposal] = []
    for proposal in syntax_rules.proposals(script, fault):
        why = f"{begun.why}; {proposal.why}" if begun.why else proposal.why
        edited = Script(proposal.text)
        if edited.tree is not None:
            yield Proposal(proposal.text, why)
        elif edited.stuck_at > script.stuck_at:
            further.append(Proposal(proposal.text, why))
    for proposal in further[:FURTHER_MAX] if depth else ():
        yield from parsing(proposal, fault, depth - 1)


class Model:
    """Any endpoint that speaks OpenAI's chat protocol.

    OPENAI_BASE_URL (such as http://127.0.0.1:11434/v1), OPENAI_MODEL, and OPENAI_API_KEY where it wants one.
    """

    def __init__(self, url: str, model: str, key: str) -> None:
        self.url = f"{url.rstrip('/')}/chat/completions"
        self.model = model
        self.key = key

    @classmethod
    def of_environment(cls) -> "Model | None":
        url = os.environ.get("OPENAI_BASE_URL", "")
        return (
            cls(url, os.environ.get("OPENAI_MODEL", "default"), os.environ.get("OPENAI_API_KEY", "")) if url else None
        )

    def ask(self, question: str) -> str:
        """Return its answer. Raises OSError when there is none and ValueError when it cannot be read."""
        body = {"model": self.model, "messages": [{"role": "user", "content": question}], "temperature": 0.2}
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)  # noqa: S310 - the caller's own
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310
            try:
                return str(json.load(answer)["choices"][0]["message"]["content"])
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(f"{self.url} gave an answer of another shape") from error

    def proposals(self, text: str, log: str, expected: str | None) -> Iterator[Proposal]:
        """Yield what it makes of a script, its log and what it should print."""
        wanted = f"It should print exactly:\n{expected}\n" if expected is not None else ""
        question = (
            f"This Python script is broken:\n```python\n{text}```\nIt printed:\n{log[-4000:]}\n{wanted}"
            "Answer with the whole corrected script in one ```python block, changing as little as possible."
        )
        for _ in range(ASKED_MAX):
            try:
                answer = self.ask(question)
            except (URLError, OSError, ValueError) as error:
                print(f"  the model did not answer ({error}); going on with the rules")
                return
            block = re.search(r"```(?:python|py)?\n(.*?)```", answer, re.DOTALL)
            new = block[1] if block else answer
            yield Proposal(new if new.endswith("\n") else f"{new}\n", "as the model says")
            question += f"\nThis was not it, try something else:\n```python\n{new}```"


def distinct(proposals: Iterator[Proposal], text: str, seen: set[str]) -> Iterator[Proposal]:
    """Leave out what says the same as something that was tested already."""
    seen.add(meaning(text))
    for proposal in proposals:
        means = meaning(proposal.text)
        if means not in seen:
            seen.add(means)
            yield proposal


def meaning(text: str) -> str:
    try:
        return ast.dump(ast.parse(text))
    except (SyntaxError, ValueError):
        return text


def difference(old: str, new: str, name: str) -> str:
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), name, f"healed/{name}", n=0)
    return "".join(line for line in lines if not line.startswith("@@"))
