"""`POST /v1/prm/score`."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from patience import NEVER_S

from prm import FakePRM, OnTokens, PRMInputError, ProcessRewardModel, StepScores
from tts_server.app import create_app
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine


class Noting(FakePRM):
    """Notes its calls."""

    def __init__(self, **options: Any) -> None:
        super().__init__(lambda question, steps: [1 / (k + 2) for k in range(len(steps))], **options)
        self.calls: list[tuple[str, list[list[str]]]] = []

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        self.calls.append((question, [list(steps) for steps in solutions]))
        return await super().score(question, solutions, on_tokens=on_tokens)


def app(*prms: ProcessRewardModel) -> FastAPI:
    return create_app(FakeEngine(), prms, Settings(traces="off"))


def post(body: object, *prms: ProcessRewardModel) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app(*prms))
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=NEVER_S) as client:
            return await client.post("/v1/prm/score", json=body)

    return asyncio.run(main())


def refused(body: object, *prms: ProcessRewardModel, code: str = "invalid_value") -> tuple[str, str]:
    """The param and the message of a 400."""
    response = post(body, *(prms or (Noting(),)))
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["code"] == code
    return error["param"], error["message"]


def test_one_solution() -> None:
    response = post({"question": "What is it?", "steps": ["a b", "c"]}, Noting())
    assert response.status_code == 200
    assert response.json() == {
        "object": "prm.score",
        "scores": [1 / 2, 1 / 3],
        "score": 1 / 3,
        "aggregation": "last",
        "model": "fake",
        "usage": {"prm_tokens": 6, "prm_calls": 1},
    }


def test_a_solution_is_split_at_blank_lines_and_the_question_is_the_last_user_turn() -> None:
    prm = Noting()
    messages = [
        {"role": "system", "content": "Be right."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "text", "text": " is it?"}]},
    ]
    assert post({"messages": messages, "solution": "a\n\n b \n\n\n\nc\n\n"}, prm).json()["scores"] == [
        1 / 2,
        1 / 3,
        1 / 4,
    ]
    assert prm.calls == [("What is it?", [["a", "b", "c"]])]


@pytest.mark.parametrize(("how", "score"), [("last", 1 / 3), ("min", 1 / 3), ("prod", 1 / 6), ("mean", 5 / 12)])
def test_the_aggregation_can_be_chosen(how: str, score: float) -> None:
    answer = post({"question": "q", "steps": ["a", "b"], "aggregation": how}, Noting()).json()
    assert answer["score"] == pytest.approx(score)
    assert answer["aggregation"] == how


def test_the_aggregation_is_the_reward_models_own_if_not_given() -> None:
    answer = post({"question": "q", "steps": ["a", "b"]}, Noting(aggregation="prod")).json()
    assert (answer["aggregation"], answer["score"]) == ("prod", pytest.approx(1 / 6))


def test_the_reward_model_can_be_chosen() -> None:
    first, second = Noting(name="first"), Noting(name="second")
    assert post({"question": "q", "steps": ["a"]}, first, second).json()["model"] == "first"
    assert post({"question": "q", "steps": ["a"], "prm": "second"}, first, second).json()["model"] == "second"
    param, message = refused({"question": "q", "steps": ["a"], "prm": "third"}, first, second)
    assert param == "prm"
    assert "first, second" in message


def test_a_batch_keeps_the_order_and_calls_once_a_question() -> None:
    prm = FakePRM()
    items: list[dict[str, Any]] = [
        {"question": "q", "steps": ["a"]},
        {"question": "r", "solution": "b\n\nc"},
        {"messages": [{"role": "user", "content": "q"}], "steps": ["d", "e"]},
    ]
    batch = post({"batch": items, "aggregation": "min"}, prm).json()
    assert (batch["object"], batch["model"]) == ("list", "fake")
    assert [item["index"] for item in batch["data"]] == [0, 1, 2]
    alone = [post({**item, "aggregation": "min"}, prm).json() for item in items]
    for one, many in zip(alone, batch["data"], strict=True):
        assert many == {"index": many["index"], **{key: one[key] for key in one if key != "usage"}}
    assert batch["usage"] == {"prm_tokens": sum(one["usage"]["prm_tokens"] for one in alone), "prm_calls": 2}
    noting = Noting()
    post({"batch": items}, noting)
    assert noting.calls == [("q", [["a"], ["d", "e"]]), ("r", [["b", "c"]])]


GOOD = {"question": "q", "steps": ["a"]}


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"steps": ["a"]}, "question", "question or messages is required"),
        ({"question": "q"}, "steps", "steps or solution is required"),
        ({**GOOD, "solution": "a"}, "steps", "exclude each other"),
        ({**GOOD, "messages": [{"role": "user", "content": "q"}]}, "question", "exclude each other"),
        ({**GOOD, "question": " "}, "question", "not blank"),
        ({"messages": [{"role": "system", "content": "s"}], "steps": ["a"]}, "messages", "not blank"),
        ({"messages": [], "steps": ["a"]}, "messages", "at least 1"),
        ({**GOOD, "question": 1}, "question", "valid string"),
        ({**GOOD, "steps": []}, "steps", "at least 1"),
        ({**GOOD, "steps": ["a", 2]}, "steps[1]", "valid string"),
        ({**GOOD, "steps": "a"}, "steps", "should be a list"),
        ({**GOOD, "steps": ["a", "\n"]}, "steps", "step 1 is empty"),
        ({**GOOD, "steps": ["a"] * 1025}, "steps", "at most 1024"),
        ({"question": "q", "solution": "a\n\n" * 1025}, "solution", "this one has 1025"),
        ({"question": "q", "solution": " \n\n "}, "solution", "this one has 0"),
        ({**GOOD, "aggregation": "max"}, "aggregation", "'last', 'min', 'prod' or 'mean'"),
        ({**GOOD, "temperature": 1}, "temperature", "not permitted"),
        ({"batch": []}, "batch", "at least 1"),
        ({"batch": [GOOD] * 1025}, "batch", "at most 1024"),
        ({"batch": [GOOD], "question": "q"}, "question", "in the items of batch"),
        ({"batch": [GOOD, {"question": "q"}]}, "batch[1].steps", "steps or solution is required"),
        ({"batch": [GOOD, {**GOOD, "steps": ["a", None]}]}, "batch[1].steps[1]", "valid string"),
        ({"batch": [{**GOOD, "prm": "fake"}]}, "batch[0].prm", "not permitted"),
    ],
)
def test_what_cannot_be_scored_is_a_400_that_names_the_field(body: dict[str, Any], param: str, said: str) -> None:
    got, message = refused(body)
    assert got == param
    assert said in message


def test_the_most_that_is_allowed_is_scored() -> None:
    assert len(post({**GOOD, "steps": ["a"] * 1024}, Noting()).json()["scores"]) == 1024
    assert len(post({"batch": [GOOD] * 1024}, Noting()).json()["data"]) == 1024


def test_without_a_reward_model_the_route_says_so() -> None:
    response = post(GOOD)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "unsupported_parameter"
    assert "--prm" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"), [(GOOD, "steps"), ({"question": "q", "solution": "a"}, "solution"), ({"batch": [GOOD]}, "batch")]
)
def test_a_solution_that_is_too_long_names_the_field_that_was_sent(body: dict[str, Any], param: str) -> None:
    def fail(question: str, steps: Sequence[str]) -> list[float]:
        raise PRMInputError("at most 10 tokens")

    assert refused(body, FakePRM(fail)) == (param, "at most 10 tokens")


def test_a_reward_model_that_fails_is_a_500_that_says_so() -> None:
    response = post(GOOD, FakePRM(lambda question, steps: []))
    assert response.status_code == 500
    assert "The reward model failed" in response.json()["error"]["message"]


def test_when_the_client_leaves_the_scoring_is_cancelled() -> None:
    cancelled = asyncio.Event()
    begun = asyncio.Event()

    class Slow(FakePRM):
        async def score(
            self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
        ) -> list[StepScores]:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return []

    async def main() -> None:
        sent = asyncio.Queue[dict[str, Any]]()
        sent.put_nowait({"type": "http.request", "body": b'{"question": "q", "steps": ["a"]}'})

        async def send(message: object) -> None:
            pass

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/prm/score",
            "raw_path": b"/v1/prm/score",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        served = asyncio.create_task(app(Slow())(scope, sent.get, send))
        await begun.wait()
        sent.put_nowait({"type": "http.disconnect"})
        await served
        assert cancelled.is_set()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
