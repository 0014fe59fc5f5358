"""A run against a server that fails, ends and comes back: nothing that was answered is lost or asked again."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from full_disk import disk_of
from scripted import WHOLE, Reply, scripted
from starlette.types import ASGIApp

from bench.reporting.cost import cost_of
from bench.running import ask as asking
from bench.running.ask import FAILURES_IN_A_ROW, RunError
from bench.running.runner import Job, Outcome, run
from bench.stored.manifest import Server, Settings, read_manifest
from bench.stored.records import RECORDS, Record, RecordError, read_records
from bench.tasks import Problem, prompt
from prm import FakePRM
from tts_server.app import create_app
from tts_server.engines.fake import FakeEngine, FakeRequest, Script

FOREIGN = (
    Reply(body={"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "vllm"}]}),
    Reply(body={"version": "0.33.0"}),
)
"""How a server that is not ours answers who it is."""
PROBLEMS = tuple(Problem(f"p/{i}", f"What is {i} + 1?", str(i + 1), level=str(i % 2)) for i in range(12))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between attempts."""
    monkeypatch.setattr(asking, "FIRST_S", 0.01)
    monkeypatch.setattr(asking, "CAP_S", 0.02)


@dataclass
class Sums:
    """Answers the problems; every third sample wrong, every fourth problem only wrong."""

    asked: Counter[str] = field(default_factory=Counter)
    """Requests by problem."""
    broken: frozenset[str] = frozenset()
    """Problems at which the engine fails."""

    def __call__(self, request: FakeRequest) -> str:
        number = int(request.text.rpartition("What is ")[2].split()[0])
        name = f"p/{number}"
        if name in self.broken:
            raise RuntimeError("the engine broke")
        self.asked[name] += request.index == 0
        wrong = number % 4 == 3 or request.index % 3 == 2
        return f"I count.\n\nThe answer is \\boxed{{{number + 1 + 100 * wrong}}}."


class Watch:
    """What a run showed."""

    def __init__(self, after: int | None = None, then: Any = None) -> None:
        self.begun: tuple[int, int] | None = None
        self.records: list[Record] = []
        self.said: list[str] = []
        self._after, self._then = after, then

    def begin(self, done: Sequence[Record], problems: int) -> None:
        self.begun = (len(done), problems)

    def add(self, record: Record) -> None:
        self.records.append(record)
        if len(self.records) == self._after:
            self._then()

    def say(self, line: str) -> None:
        self.said.append(line)


def engine_of(script: Script, **fields: Any) -> FakeEngine:
    return FakeEngine(script, **fields)


def job(out: Path, url: str, **fields: Any) -> Job:
    settings = Settings(
        task="sums",
        split="all",
        source="sums.jsonl",
        data_sha256="00",
        prompt="boxed",
        messages=tuple(prompt("boxed").messages("{question}")),
        model="",
        strategy="best_of_n",
        options={"n": 3},
        sampling={"temperature": 0.7, "max_tokens": 100, "seed": 1},
        concurrency=2,
    )
    of_settings = {name: fields.pop(name) for name in tuple(fields) if hasattr(settings, name)}
    given = {"problems": PROBLEMS, "prompt": prompt("boxed"), "command": "tts-bench run", "patience_s": 10.0, **fields}
    return Job(replace(settings, **of_settings), out=out, url=url, **given)


class Place:
    """An address at which servers come and go."""

    def __init__(self) -> None:
        self.port = 0
        self._server: uvicorn.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, app: ASGIApp) -> None:
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, lifespan="off", log_level="critical")
        self._server = uvicorn.Server(config)
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup()
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Cuts every connection, answers under way too."""
        assert self._server
        server, self._server = self._server, None
        server.servers[0].close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        while server.server_state.connections or server.server_state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def place(script: Script, **fields: Any) -> AsyncIterator[Place]:
    """One with a server of our own."""
    here = Place()
    await here.start(create_app(engine_of(script, **fields), [FakePRM()]))
    try:
        yield here
    finally:
        if here._server:
            await here.kill()


def ran(out: Path, script: Script, show: Watch | None = None, **fields: Any) -> Outcome:
    """A run against a server that lives as long as it."""

    async def main() -> Outcome:
        async with place(script) as here:
            return await run(job(out, here.url, **fields), show or Watch())

    return asyncio.run(main())


def test_every_problem_is_asked_once_graded_and_written_with_its_samples(tmp_path: Path) -> None:
    sums, show = Sums(), Watch()
    outcome = ran(tmp_path, sums, show)
    records = {record.id: record for record in read_records(tmp_path)}
    assert sums.asked == Counter({p.id: 1 for p in PROBLEMS})
    assert list(records) == [record.id for record in show.records] == [record.id for record in outcome.records]
    assert show.begun == (0, 12)
    for i, problem in enumerate(PROBLEMS):
        record = records[problem.id]
        assert (record.question, record.gold, record.level) == (problem.question, problem.gold, problem.level)
        right = [s.answer == problem.gold for s in record.samples]
        assert right == ([False] * 3 if i % 4 == 3 else [True, True, False])
        assert record.chosen is not None
        chosen = record.samples[record.chosen]
        assert (record.answer, record.correct) == (chosen.answer, chosen.answer == problem.gold)
        assert chosen.score == max(s.score or 0 for s in record.samples) == record.confidence
        assert all(s.step_scores is not None and len(s.step_scores) == 2 for s in record.samples)
        assert all(s.finish_reason == "stop" for s in record.samples)
        assert record.usage.completion_tokens == sum(s.completion_tokens or 0 for s in record.samples) > 0
        assert record.usage.prm_tokens
        assert record.usage.engine_prompt_tokens == 3 * (record.usage.prompt_tokens or 0)
        assert record.usage.samples == 3
        assert record.latency_s is not None
        assert (record.ttft_s, record.error) == (None, None)


def test_the_manifest_says_all_that_it_takes_to_run_it_again(tmp_path: Path) -> None:
    outcome = ran(tmp_path, Sums(), limit=12, parameters=5e8)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.settings == replace(job(tmp_path, "").settings, model="fake", messages=manifest.settings.messages)
    assert manifest.server == Server("tts-server", "0.1.0", "fake", "fake", 32768, "fake")
    assert (manifest.limit, manifest.problems, manifest.parameters) == (12, 12, 5e8)
    (session,) = manifest.sessions
    assert (session.command, session.records) == ("tts-bench run", 12)
    assert session.ended is not None
    assert session.started < session.ended
    assert "cores" in session.machine
    assert "tts-server" in session.versions
    assert outcome.missing == 0


def test_a_streamed_run_tells_the_time_to_the_first_text(tmp_path: Path) -> None:
    outcome = ran(tmp_path, Sums(), strategy="single", options={}, stream=True)
    for record in outcome.records:
        assert record.ttft_s is not None
        assert record.latency_s is not None
        assert record.ttft_s <= record.latency_s
        assert len(record.samples) == 1


def test_the_choices_of_a_plain_request_to_any_server_are_samples_of_which_the_majority_is_returned(
    tmp_path: Path,
) -> None:
    texts = ["It is \\boxed{1}.", "It is \\boxed{2}.", "So \\boxed{2}."]
    choices = [{"index": i, "message": {"content": text}, "finish_reason": "stop"} for i, text in enumerate(texts)]
    choices[0]["logprobs"] = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.25}]}

    async def main() -> None:
        async with scripted(*FOREIGN, Reply(body={**WHOLE, "choices": choices})) as server:
            sampling = {"n": 3, "temperature": 0.5}
            plain = job(tmp_path, server.url, strategy=None, options={}, sampling=sampling, problems=PROBLEMS[1:2])
            outcome = await run(plain, Watch())
            assert outcome.manifest.server == Server("vllm", "0.33.0", None, "m", None, None)
            (record,) = outcome.records
            assert [s.answer for s in record.samples] == ["1", "2", "2"]
            assert [s.logprob for s in record.samples] == [-0.75, None, None]
            assert (record.answer, record.correct, record.chosen) == ("2", True, 1)
            assert (record.usage.prompt_tokens, record.usage.completion_tokens, record.usage.prm_tokens) == (1, 2, None)
            _, body, _ = server.requests[2]
            assert body == {"model": "m", "messages": prompt("boxed").messages("What is 1 + 1?"), **sampling}

    asyncio.run(main())


def test_a_server_that_leaves_the_strategy_out_of_account_is_not_measured(tmp_path: Path) -> None:
    async def main() -> None:
        async with scripted(*FOREIGN) as server:
            with pytest.raises(RunError, match="does not know strategies"):
                await run(job(tmp_path, server.url), Watch())

    asyncio.run(main())
    assert (tmp_path / RECORDS).stat().st_size == 0


def test_without_resume_and_with_other_settings_records_are_not_touched(tmp_path: Path) -> None:
    ran(tmp_path, Sums(), problems=PROBLEMS[:2])
    before = (tmp_path / RECORDS).read_bytes()
    with pytest.raises(RunError, match="holds 2 records; go on with --resume"):
        ran(tmp_path, Sums())
    with pytest.raises(RunError, match=r"do not mix.*options: {'n': 3}, {'n': 4}.*sampling: .*Give another --out"):
        ran(tmp_path, Sums(), options={"n": 4}, sampling={"seed": 2}, resume=True)
    with pytest.raises(RunError, match="data_sha256: '00', '01'"):
        ran(tmp_path, Sums(), data_sha256="01", resume=True)
    with pytest.raises(RunError, match="may raise that, not lower it"):
        ran(tmp_path, Sums(), problems=PROBLEMS[:1], resume=True)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(RunError, match="records and no manifest"):
        ran(tmp_path, Sums(), resume=True)
    assert (tmp_path / RECORDS).read_bytes() == before


def test_another_server_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    ran(tmp_path, Sums(), problems=PROBLEMS[:2])

    async def main() -> None:
        async with place(Sums(), max_model_len=500) as here:
            with pytest.raises(RunError, match="max_model_len: 32768, 500"):
                await run(job(tmp_path, here.url, resume=True), Watch())

    asyncio.run(main())


def test_a_run_can_be_resumed_with_more_problems(tmp_path: Path) -> None:
    ran(tmp_path, Sums(), problems=PROBLEMS[:5], limit=5)
    sums, show = Sums(), Watch()
    outcome = ran(tmp_path, sums, show, limit=12, resume=True)
    assert sums.asked == Counter({p.id: 1 for p in PROBLEMS[5:]})
    assert show.begun == (5, 12)
    assert len(outcome.records) == len(read_records(tmp_path)) == 12
    assert [session.records for session in outcome.manifest.sessions] == [5, 7]
    assert outcome.manifest.limit == 12


def test_to_resume_a_run_that_is_done_changes_none_of_its_figures(tmp_path: Path) -> None:
    first = ran(tmp_path, Sums())
    again = ran(tmp_path, Sums(), resume=True, parameters=5e8)
    assert again.manifest == replace(first.manifest, parameters=5e8) == read_manifest(tmp_path)
    assert cost_of(again.records, again.manifest).wall_s == cost_of(first.records, first.manifest).wall_s


def test_an_option_that_the_server_refuses_stops_the_run_and_leaves_the_directory_free(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"refuses the request \(tts\.m\): unknown option 'tts\.m'"):
        ran(tmp_path, Sums(), options={"m": 3})
    assert len(ran(tmp_path, Sums()).records) == 12


def test_an_unknown_model_and_no_server_are_told_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no model 'other'; it has fake, "):
        ran(tmp_path, Sums(), model="other")
    with pytest.raises(RunError, match=r"no server answers at http://127\.0\.0\.1:9"):
        asyncio.run(run(job(tmp_path / "none", "http://127.0.0.1:9"), Watch()))
    assert not (tmp_path / "none").exists()


def test_a_question_that_is_too_long_counts_as_wrong_and_says_why(tmp_path: Path) -> None:
    long = Problem("long", "What is 3 + 1?" + " really" * 300, "4")

    async def main() -> Outcome:
        async with place(Sums(), max_model_len=300) as here:
            return await run(job(tmp_path, here.url, problems=(*PROBLEMS[:3], long)), Watch())

    outcome = asyncio.run(main())
    (record,) = [r for r in read_records(tmp_path) if r.id == "long"]
    assert (record.correct, record.samples) == (False, ())
    assert "maximum context length is 300 tokens" in (record.error or "")
    assert outcome.missing == 0


def test_a_problem_on_which_the_server_fails_is_left_for_later(tmp_path: Path) -> None:
    show = Watch()
    outcome = ran(tmp_path, Sums(broken=frozenset({"p/4"})), show)
    assert list(outcome.failed) == ["p/4"]
    assert outcome.missing == 1
    assert show.said == ["no answer to p/4: ServerError: The server failed to answer this request."]
    sums = Sums()
    assert ran(tmp_path, sums, resume=True).missing == 0
    assert sums.asked == Counter({"p/4": 1})


def test_failures_in_a_row_stop_the_run(tmp_path: Path) -> None:
    broken = frozenset(p.id for p in PROBLEMS[4:])
    with pytest.raises(RunError, match=f"{FAILURES_IN_A_ROW} problems in a row got no answer"):
        ran(tmp_path, Sums(broken=broken))
    assert len(read_records(tmp_path)) == 4


def test_failures_among_answers_do_not_stop_the_run(tmp_path: Path) -> None:
    broken = frozenset(p.id for p in PROBLEMS[::2])
    outcome = ran(tmp_path, Sums(broken=broken), concurrency=1)
    assert set(outcome.failed) == broken
    assert len(broken) > FAILURES_IN_A_ROW
    assert outcome.missing == len(broken)


def test_a_number_in_a_text_that_was_cut_is_no_answer(tmp_path: Path) -> None:
    def endless(request: FakeRequest) -> str:
        return "It is 1 and" + " so on" * 100

    fields: dict[str, Any] = {"problems": PROBLEMS[:1], "strategy": "single", "options": {}}
    (cut,) = ran(tmp_path / "cut", endless, sampling={"max_tokens": 50}, **fields).records
    assert (cut.answer, cut.correct, cut.samples[0].finish_reason) == (None, False, "length")
    (whole,) = ran(tmp_path / "whole", endless, sampling={"max_tokens": 500}, **fields).records
    assert (whole.answer, whole.correct, whole.samples[0].finish_reason) == ("1", True, "stop")


def test_a_run_goes_on_when_its_server_is_killed_and_comes_back(tmp_path: Path) -> None:
    sums = Sums()

    async def main() -> Outcome:
        async with place(sums, token_s=0.002) as here:
            killed = asyncio.Event()
            going = asyncio.create_task(run(job(tmp_path, here.url), Watch(4, killed.set)))
            await killed.wait()
            await here.kill()
            await asyncio.sleep(0.1)
            await here.start(create_app(engine_of(sums), [FakePRM()]))
            return await going

    outcome = asyncio.run(main())
    assert sorted(r.id for r in read_records(tmp_path)) == sorted(p.id for p in PROBLEMS)
    assert outcome.failed == {}


def test_a_server_that_stays_away_ends_the_run_and_its_records_stand(tmp_path: Path) -> None:
    async def main() -> None:
        async with place(Sums(), token_s=0.002) as here:
            killed = asyncio.Event()
            going = asyncio.create_task(run(job(tmp_path, here.url, patience_s=0.2), Watch(4, killed.set)))
            await killed.wait()
            await here.kill()
            with pytest.raises(RunError, match=r"has not been answering for 0\.2 s"):
                await going

    asyncio.run(main())
    done = read_records(tmp_path)
    assert 4 <= len(done) < 12
    sums = Sums()
    assert ran(tmp_path, sums, resume=True).missing == 0
    assert not {record.id for record in done} & set(sums.asked)


def test_another_server_that_takes_the_place_ends_the_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with place(Sums(), token_s=0.002) as here:
            killed = asyncio.Event()
            going = asyncio.create_task(run(job(tmp_path, here.url), Watch(4, killed.set)))
            await killed.wait()
            await here.kill()
            await here.start(create_app(engine_of(Sums()), [FakePRM(name="other")]))
            with pytest.raises(RunError, match=r"another server answers at .*prm: 'fake', 'other'"):
                await going

    asyncio.run(main())


def test_another_server_is_found_out_between_two_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "CHECK_EVERY_S", 0.0)
    other = Reply(body={"version": "0.34.0"})

    async def main() -> None:
        listed, _ = FOREIGN
        async with scripted(*FOREIGN, *FOREIGN, Reply(body=WHOLE), listed, other) as server:
            plain = job(tmp_path, server.url, strategy=None, options={}, concurrency=1, problems=PROBLEMS[:3])
            with pytest.raises(RunError, match=r"another server answers at .*version: '0\.33\.0', '0\.34\.0'"):
                await run(plain, Watch())

    asyncio.run(main())
    assert len(read_records(tmp_path)) == 1


def test_a_busy_server_is_asked_again_when_it_says(tmp_path: Path) -> None:
    busy = Reply(429, {"error": {"message": "queue full"}}, {"retry-after": "0.01"})

    async def main() -> Outcome:
        # It is asked who it is before each further attempt.
        async with scripted(*FOREIGN, busy, *FOREIGN, busy, *FOREIGN) as server:
            return await run(job(tmp_path, server.url, strategy=None, options={}, problems=PROBLEMS[:1]), Watch())

    assert asyncio.run(main()).missing == 0


def test_a_full_disk_ends_the_run_and_what_is_written_stands(tmp_path: Path) -> None:
    with disk_of(6000), pytest.raises(RecordError, match="the records before stand, go on with --resume"):
        ran(tmp_path, Sums())
    done = read_records(tmp_path)
    assert 0 < len(done) < 12
    sums = Sums()
    assert ran(tmp_path, sums, resume=True).missing == 0
    assert not {record.id for record in done} & set(sums.asked)


def test_an_interrupt_lets_the_questions_under_way_end(tmp_path: Path) -> None:
    sums = Sums()
    show = Watch(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    outcome = ran(tmp_path, sums, show)
    assert outcome.interrupted
    assert 3 <= len(outcome.records) < 12
    assert show.said == ["stopping: the questions under way are ended first; Ctrl-C again drops them"]
    assert set(sums.asked) == {record.id for record in read_records(tmp_path)}
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.sessions[0].ended is not None
    again = Sums()
    assert ran(tmp_path, again, resume=True).missing == 0
    assert set(again.asked) == {p.id for p in PROBLEMS} - set(sums.asked)


def test_a_second_interrupt_drops_them(tmp_path: Path) -> None:
    def slow(request: FakeRequest) -> str:
        return sums(request) + (" and so on" * 5000 if "What is 5" in request.text else "")

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    sums = Sums()
    with pytest.raises(asyncio.CancelledError):
        ran(tmp_path, slow, Watch(3, twice), options={"n": 1}, sampling={})
    assert 3 <= len(read_records(tmp_path)) < 12
    assert ran(tmp_path, Sums(), options={"n": 1}, sampling={}, resume=True).missing == 0
