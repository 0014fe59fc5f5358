"""What is written down of a search: all, or nothing that a client or a model wrote."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import orjson
import pytest
from searching import TASK, broken, world
from tracing import record_of

import strategies
from prm import FakePRM, OnTokens, PRMInputError, StepScores
from strategies.core.account import Account
from strategies.core.contracts import Prompt, Sampling, Task
from strategies.core.metered import MeteredPRM
from strategies.record.recorder import Recorder, ScoringRecord
from tts_server.engines.fake import FakeEngine, FakeRequest
from tts_server.observe.traces.render import row

SECRET = "xyzzy"


def secretive(request: FakeRequest) -> str:
    return str(world()(request)).replace("Thought", f"{SECRET} Thought")


def asking(**sampling: object) -> Task:
    prompt = Prompt(({"role": "user", "content": f"Is it {SECRET}?"},))
    return replace(TASK, prompt=prompt, sampling=Sampling(**{"seed": 7, **sampling}))  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", strategies.registry())
def test_a_redacted_record_holds_nothing_that_was_asked_or_answered(strategy: str) -> None:
    given = {"system_prompt": f"Say {SECRET}.", "examples": [{"question": SECRET, "answer": SECRET}]}
    known = strategies.get(strategy).options.model_fields
    options = {name: value for name, value in given.items() if name in known}
    record = record_of(strategy, engine=FakeEngine(secretive), task=asking(stop=(SECRET + "!",)), **options)
    said = row(record, "redacted")
    assert SECRET.encode() not in said.head + said.body
    assert b"boxed" not in said.body
    full = row(record, "full")
    assert SECRET.encode() in full.head
    assert SECRET.encode() in full.body
    head, body = orjson.loads(said.head), orjson.loads(said.body)
    whole = orjson.loads(full.body)
    assert (head["content"], body["prompts"]) == ("redacted", None)
    assert [call["parents"] for call in body["calls"]] == [call["parents"] for call in whole["calls"]]
    assert [s["solutions"] for s in body["scorings"]] == [s["solutions"] for s in whole["scorings"]]


def test_a_redacted_record_keeps_the_options_that_are_ours() -> None:
    record = record_of("beam_search", separator="###", selector="majority", beam_width=2)
    options = orjson.loads(row(record, "redacted").head)["options"]
    assert options["selector"] == "majority"
    assert (options["n"], options["beam_width"], options["system_prompt"]) == (4, 2, None)
    assert "separator" not in options
    assert orjson.loads(row(record, "full").head)["options"]["separator"] == "###"
    plain = orjson.loads(row(record_of("beam_search"), "redacted").head)["options"]
    assert plain["separator"] == "\n\n"


def test_errors_are_told_as_the_client_is_told_them() -> None:
    record = record_of(engine=FakeEngine(broken(world(), 1)))
    calls = orjson.loads(row(record, "full").body)["calls"]
    error = calls[0]["samples"][1]["error"]
    assert error["type"] == "ConnectionError"
    assert "sample 1 is lost" not in error["message"]
    assert "message" not in orjson.loads(row(record, "redacted").body)["calls"][0]["samples"][1]["error"]


def test_a_text_that_a_sample_says_is_kept_once() -> None:
    body = row(record_of("best_of_n"), "full").body
    texts = [sample["text"] for sample in orjson.loads(body)["calls"][0]["samples"]]
    assert all(body.count(orjson.dumps(text)) == texts.count(text) for text in texts)


def test_what_is_no_json_is_told_as_text() -> None:
    odd = replace(TASK, prompt=Prompt(TASK.prompt.messages, template={"when": {1, 2}, 3: b"x"}))  # type: ignore[dict-item]
    body = orjson.loads(row(record_of(task=odd), "full").body)
    assert body["prompts"][0]["template"]["when"] == "{1, 2}"


def test_a_scoring_says_which_solution_cannot_be_scored_and_why() -> None:
    class Short(FakePRM):
        async def score(
            self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
        ) -> list[StepScores]:
            if len(solutions) > 1:
                raise PRMInputError("the second is too long", faults={1: "solution 1 is too long"})
            return await super().score(question, solutions, on_tokens=on_tokens)

    async def two() -> ScoringRecord:
        recorder = Recorder(Prompt(), 0.0)
        await MeteredPRM(Short(), Account(recorder=recorder)).score("q", [["a"], ["b"]])
        return recorder.scorings[0]

    record = record_of("best_of_n")
    record.recorder.scorings[:] = [asyncio.run(two())]
    full, redacted = (orjson.loads(row(record, keep).body)["scorings"][0] for keep in ("full", "redacted"))
    scored, refused = full["solutions"]
    assert (len(scored["scores"]), "error" in scored) == (1, False)
    assert refused["scores"] is None
    assert refused["error"] == {"type": "PRMInputError", "code": "invalid_value", "message": "solution 1 is too long"}
    assert redacted["solutions"][1]["error"] == {"type": "PRMInputError", "code": "invalid_value"}
    assert full["error"] is None
