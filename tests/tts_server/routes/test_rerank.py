"""`/score` and `/rerank`: a reward model as vLLM, Jina and Cohere serve rerankers."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from serving import serving, until

from prm import FakePRM, ProcessRewardModel

STEPS = {"right": 0.9, "fair": 0.5, "wrong": 0.1}


def reading(name: str = "prm") -> FakePRM:
    """Scores each step by its last word."""
    return FakePRM(lambda question, steps: [STEPS[step.split()[-1]] for step in steps], name=name, aggregation="min")


def posted(path: str, *prms: ProcessRewardModel, **fields: Any) -> tuple[int, Any]:
    async def main() -> tuple[int, Any]:
        async with serving(prms=prms or [reading()]) as client:
            response = await client.post(path, json=fields)
            return response.status_code, response.json()

    return asyncio.run(main())


def scores(**fields: Any) -> list[float]:
    status, body = posted("/score", **fields)
    assert status == 200, body
    assert [item["index"] for item in body["data"]] == list(range(len(body["data"])))
    return [item["score"] for item in body["data"]]


def test_a_document_is_a_solution_whose_steps_are_scored() -> None:
    assert scores(text_1="q", text_2="all right\n\nso fair") == [0.5]
    assert scores(text_1="q", text_2="all right\n\nso fair", aggregation="last") == [0.5]
    assert scores(text_1="q", text_2="all right\n\nso fair", aggregation="prod") == pytest.approx([0.45])
    status, body = posted("/score", text_1="q", text_2=["all right", "so fair"])
    assert (status, body["object"], body["model"]) == (200, "list", "prm")
    assert body["data"][1] == {"index": 1, "object": "score", "score": 0.5}
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("first", "second"),
    [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")],
)
def test_pairs_go_by_four_names(first: str, second: str) -> None:
    assert scores(**{first: "q", second: ["so right", "so wrong"]}) == [0.9, 0.1]
    assert scores(**{first: ["q", "r"], second: ["so wrong", "so right"]}) == [0.1, 0.9]
    parts = {"content": [{"type": "text", "text": "so "}, {"type": "text", "text": "fair"}]}
    assert scores(**{first: ["q"], second: parts}) == [0.5]


def test_each_question_is_asked_with_its_own_solutions() -> None:
    asked: list[tuple[str, int]] = []

    class Noting(FakePRM):
        async def score(self, question: str, solutions: Sequence[Sequence[str]], **rest: Any) -> Any:
            asked.append((question, len(solutions)))
            return await super().score(question, solutions, **rest)

    status, _ = posted("/score", Noting(), text_1=["q", "r", "q"], text_2=["a", "b", "c"])
    assert (status, sorted(asked)) == (200, [("q", 2), ("r", 1)])


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_the_best_solutions_come_first(path: str) -> None:
    documents: list[Any] = ["is wrong", {"text": "is right"}, "is fair", "is right"]
    status, body = posted(path, query="q", documents=documents, top_n=3, model="prm")
    assert (status, body["model"]) == (200, "prm")
    assert body["id"].startswith("rerank-")
    assert body["results"] == [
        {"index": 1, "document": {"text": "is right"}, "relevance_score": 0.9},
        {"index": 3, "document": {"text": "is right"}, "relevance_score": 0.9},
        {"index": 2, "document": {"text": "is fair"}, "relevance_score": 0.5},
    ]
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0


def test_documents_are_left_out_on_request_and_all_are_ranked_without_a_limit() -> None:
    _, body = posted("/rerank", query="q", documents=["is wrong", "is right"], return_documents=False, top_n=0)
    assert body["results"] == [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]


def test_the_model_is_the_reward_model_or_the_served_one() -> None:
    prms = reading("one"), reading("two")
    for name, used in ((None, "one"), ("fake", "one"), ("two", "two")):
        assert posted("/score", *prms, model=name, text_1="q", text_2="is fair")[1]["model"] == used
    status, body = posted("/score", *prms, model="three", text_1="q", text_2="is fair")
    assert (status, body["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/score", {}, "text_1"),
        ("/score", {"text_1": "q"}, "text_1"),
        ("/score", {"text_1": "q", "documents": "a"}, "text_1"),
        ("/score", {"text_1": ["q", "r"], "text_2": ["a", "b", "c"]}, "text_1"),
        ("/score", {"text_1": "q", "text_2": []}, "text_2"),
        ("/score", {"queries": "q", "documents": " "}, "documents"),
        ("/score", {"text_1": "", "text_2": "a"}, "text_2"),
        ("/score", {"text_1": "q", "text_2": "a", "aggregation": "best"}, "aggregation"),
        ("/score", {"text_1": "q", "text_2": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
        ("/rerank", {"documents": ["a"]}, "query"),
        ("/rerank", {"query": "q"}, "documents"),
        ("/rerank", {"query": "q", "documents": []}, "documents"),
        ("/rerank", {"query": "q", "documents": ["a"], "top_n": -1}, "top_n"),
        ("/rerank", {"query": "q", "documents": ["a"], "max_tokens_per_doc": 9}, "max_tokens_per_doc"),
        ("/rerank", {"query": "q", "documents": ["a"], "instruction": "x"}, "instruction"),
    ],
)
def test_what_is_not_a_request_is_refused_by_name(path: str, fields: dict[str, Any], param: str) -> None:
    status, body = posted(path, FakePRM(), **fields)
    assert (status, body["error"]["param"]) == (400, param), body


def test_a_server_without_a_reward_model_says_so() -> None:
    async def main() -> None:
        async with serving() as client:
            response = await client.post("/rerank", json={"query": "q", "documents": ["a"]})
            assert response.status_code == 400
            assert "--prm" in response.json()["error"]["message"]

    asyncio.run(main())


def test_a_client_that_leaves_stops_the_scoring() -> None:
    ended: list[str] = []

    class Slow(FakePRM):
        async def score(self, *args: Any, **kwargs: Any) -> Any:
            ended.append("begun")
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("cancelled")

    async def main() -> None:
        async with serving(prms=[Slow()]) as client:
            for path, fields in (
                ("/rerank", {"query": "q", "documents": ["a"]}),
                ("/score", {"text_1": "q", "text_2": "a"}),
            ):
                ended.clear()
                asked = asyncio.create_task(client.post(path, json=fields))
                await until(lambda: ended == ["begun"])
                asked.cancel()
                await until(lambda: ended == ["begun", "cancelled"])

    asyncio.run(main())
