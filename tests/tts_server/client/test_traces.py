"""Traces as a client's user reads them."""

import asyncio
from pathlib import Path

import pytest
from asking import served

from tts_server.client import AsyncClient, BadRequest, Client, NotFound
from tts_server.config import Settings


def test_a_trace_is_read_typed_and_listed(tmp_path: Path) -> None:
    def work(url: str) -> None:
        with Client(url, model="fake") as client:
            results = [client.chat("What is 2 + 2?", tts=name) for name in ("best_of_n", "self_consistency")]
            assert results[0].tts
            assert results[0].tts.trace_id
            assert results[0].usage
            trace = client.trace(results[0].tts.trace_id)
            assert (trace.id, trace.strategy, trace.status) == (results[0].tts.trace_id, "best_of_n", "done")
            assert [sample.id for sample in trace.samples] == list(range(trace.usage.samples))
            assert sum(sample.completion_tokens for sample in trace.samples) == results[0].usage.completion_tokens
            assert trace.final
            best = trace.final.candidates[trace.final.ranking[0]]
            assert best.text == results[0].text
            assert best.sample is not None
            assert trace.samples[best.sample].state == "returned"
            assert trace.samples[best.sample].score == best.score
            assert {event.kind for event in trace.events} >= {"progress"}

            page = client.traces(limit=1)
            assert [info.strategy for info in page.data] == ["self_consistency"]
            assert page.has_more
            older = client.traces(after=page.data[0].id)
            assert [info.id for info in older.data] == [trace.id]
            assert [info.id for info in client.traces(strategy="best_of_n").data] == [trace.id]

    served(work, settings=Settings(data_dir=tmp_path, traces="full"))


def test_a_redacted_trace_has_no_texts(tmp_path: Path) -> None:
    def work(url: str) -> None:
        with Client(url, model="fake") as client:
            result = client.chat("What is 2 + 2?", tts="best_of_n")
            assert result.tts
            assert result.tts.trace_id
            trace = client.trace(result.tts.trace_id)
            assert (trace.content, trace.prompts) == ("redacted", None)
            assert all(sample.text is None and sample.score is not None for sample in trace.samples)
            assert trace.final
            assert all(candidate.answer is None for candidate in trace.final.candidates)

    served(work, settings=Settings(data_dir=tmp_path, traces="redacted"))


def test_a_server_that_keeps_none_says_so(tmp_path: Path) -> None:
    def work(url: str) -> str:
        with Client(url) as client:
            try:
                client.traces()
            except NotFound as error:
                return str(error)
        return ""

    assert "keeps no traces" in served(work, settings=Settings(data_dir=tmp_path, traces="off"))


def test_what_is_said_of_an_answer_is_read_in_its_trace(tmp_path: Path) -> None:
    def work(url: str) -> None:
        with Client(url, model="fake") as client:
            result = client.chat("What is 2 + 2?", tts="best_of_n")
            assert result.tts
            trace = result.tts.trace_id
            assert trace
            assert client.trace(trace).feedback is None
            said = client.feedback(trace, correct=False, comment="It is 4.")
            assert (said.trace_id, said.correct, said.score, said.comment) == (trace, False, None, "It is 4.")
            kept = client.trace(trace).feedback
            assert kept
            assert (kept.correct, kept.comment, kept.created) == (False, "It is 4.", said.created)
            asyncio.run(again(url, trace))
            kept = client.trace(trace).feedback
            assert kept
            assert (kept.correct, kept.score) == (None, 0.25)

    async def again(url: str, trace: str) -> None:
        async with AsyncClient(url, model="fake") as client:
            assert (await client.feedback(trace, score=0.25)).score == 0.25

    served(work, settings=Settings(data_dir=tmp_path, traces="full"))


def test_what_cannot_be_said_of_an_answer_is_an_error(tmp_path: Path) -> None:
    def work(url: str) -> None:
        with Client(url, model="fake") as client:
            for said in ({}, {"correct": True, "score": 1.0}):
                with pytest.raises(ValueError, match="either correct"):
                    client.feedback("trace-1", **said)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="id is empty"):
                client.feedback("", correct=True)
            with pytest.raises(NotFound):
                client.feedback("trace-1", correct=True)
            with pytest.raises(BadRequest, match="score") as refused:
                client.feedback("trace-1", score=1.5)
            assert refused.value.param == "score"

    served(work, settings=Settings(data_dir=tmp_path, traces="full"))
