"""What an owner's share is, and that it pays for what its requests really cost."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ask, body, serving, until

from prm import FakePRM, OnTokens, PRMError, StepScores
from strategies.core.account import Account, Usage
from tts_server.admission.quotas import Bucket, Quota, duration
from tts_server.app import create_app
from tts_server.app_state import AppState
from tts_server.batches.dispatch import dispatch
from tts_server.batches.records import Answer
from tts_server.config import KeyLimits, Settings
from tts_server.engines.fake import FakeEngine, FakeRequest
from tts_server.errors import TooManyRequests
from tts_server.middleware import gate
from tts_server.request_state import RequestState
from tts_server.routes import routes

ALICE, BOB = {"Authorization": "Bearer a"}, {"Authorization": "Bearer b"}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_comes_back_evenly_and_never_overflows() -> None:
    clock = Clock()
    bucket = Bucket(60, 60, clock)
    clock.now += 1000
    assert bucket.left == 60
    bucket.take(60)
    assert not bucket.has(1)
    assert bucket.wait_s(1) == 1
    clock.now += 1
    assert bucket.has(1)
    assert bucket.wait_s(60) == 59


def test_a_debt_is_paid_back_first() -> None:
    clock = Clock()
    bucket = Bucket(3600, 3600, clock)
    bucket.take(4000)
    assert bucket.left == -400
    assert bucket.wait_s(1) == 401
    clock.now += 400
    assert not bucket.has(1)


@given(
    st.integers(1, 10**6),
    st.sampled_from([60.0, 3600.0]),
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 5000)), max_size=20),
)
def test_no_more_is_had_over_time_than_the_limit_gives(
    limit: int, period_s: float, asked: list[tuple[int, float]]
) -> None:
    clock = Clock()
    bucket = Bucket(limit, period_s, clock)
    taken = last = 0
    for amount, wait_s in asked:
        if bucket.has(1):
            bucket.take(amount)
            taken, last = taken + amount, amount
        clock.now += wait_s
    # What the last one cost over what was left is the debt.
    assert taken - last <= (limit + (clock.now - 100) * limit / period_s) * (1 + 1e-9) + 1


@given(st.integers(1, 10**6), st.sampled_from([60.0, 3600.0]), st.integers(0, 10**7))
def test_who_waits_as_told_gets_in(limit: int, period_s: float, taken: int) -> None:
    clock = Clock()
    bucket = Bucket(limit, period_s, clock)
    bucket.take(taken)
    clock.now += bucket.wait_s(1)
    assert bucket.has(1)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0ms"),
        (0.0201, "21ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9991, "1m0s"),
        (360, "6m0s"),
        (3603.25, "1h0m3.25s"),
        (86400, "24h0m0s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_quota_without_limits_lets_everything_in_and_tells_nothing() -> None:
    quota = Quota("alice", KeyLimits())
    for _ in range(1000):
        quota.admit()
    quota.charge(10**9)
    quota.admit()
    assert quota.headers == {}


def test_a_refused_request_takes_nothing() -> None:
    clock = Clock()
    quota = Quota("alice", KeyLimits(requests_per_minute=1), clock)
    quota.admit()
    for _ in range(5):
        with pytest.raises(TooManyRequests, match="The key of 'alice' has its limit of 1 requests a minute"):
            quota.admit()
    clock.now += 60
    quota.admit()


def test_one_that_waits_for_another_takes_no_request_of_the_minute() -> None:
    quota = Quota("alice", KeyLimits(requests_per_minute=3, concurrent_requests=1), Clock())
    quota.admit()
    with quota.running(), pytest.raises(TooManyRequests, match="1 requests at once") as caught:
        quota.admit()
    assert caught.value.headers["Retry-After"] == "1"
    assert quota.headers["x-ratelimit-remaining-requests"] == "2"


def test_a_request_costs_what_was_generated_and_scored() -> None:
    state = RequestState("r")
    assert state.cost == 0
    state.bill(Account(usage=Usage(prompt_tokens=1000, completion_tokens=3, prm_tokens=4)))
    state.bill(Account(usage=Usage(completion_tokens=5)))
    assert state.cost == 12


@pytest.fixture
def standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes back while a test counts."""
    monkeypatch.setattr(gate, "Quota", partial(Quota, clock=Clock()))


def settings(tmp_path: Path, **limits: int) -> Settings:
    (tmp_path / "keys").write_text("alice:a\nbob:b\n")
    return Settings(api_key_file=tmp_path / "keys", key_limits=KeyLimits(**limits), max_body_bytes=5000)


def left(response: httpx.Response, name: str = "tokens") -> int:
    return int(response.headers[f"x-ratelimit-remaining-{name}"])


async def spent(client: httpx.AsyncClient) -> int:
    """What alice has paid until now."""
    response = await client.get("/v1/models", headers=ALICE)
    assert response.status_code == 200
    return int(response.headers["x-ratelimit-limit-tokens"]) - left(response)


@pytest.mark.usefixtures("standing_still")
def test_one_owner_s_rate_is_not_another_s(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(settings=settings(tmp_path, requests_per_minute=2)) as client:
            for remaining in (1, 0):
                response = await client.post("/v1/chat/completions", json=body(), headers=ALICE)
                assert response.status_code == 200
                assert response.headers["x-ratelimit-limit-requests"] == "2"
                assert left(response, "requests") == remaining
                assert response.headers["x-ratelimit-reset-requests"] == ("30s" if remaining else "1m0s")
                assert "x-ratelimit-limit-tokens" not in response.headers
            response = await client.post("/v1/chat/completions", json=body(), headers=ALICE)
            assert response.status_code == 429
            assert response.headers["retry-after"] == "30"
            assert left(response, "requests") == 0
            assert response.headers["x-request-id"]
            assert response.json() == {
                "error": {
                    "message": "The key of 'alice' has its limit of 2 requests a minute.",
                    "type": "rate_limit_error",
                    "param": None,
                    "code": "rate_limit_exceeded",
                }
            }
            assert (await client.get("/v1/models", headers=BOB)).status_code == 200
            assert (await client.get("/health", headers=ALICE)).status_code == 200
            assert (await client.get("/v1/models")).status_code == 401

    asyncio.run(main())


@pytest.mark.usefixtures("standing_still")
def test_only_what_computes_counts(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine(lambda r: "word " * 10_000, token_s=0.002)
        limits = settings(tmp_path, requests_per_minute=2, concurrent_requests=1)
        limits = limits.model_copy(update={"data_dir": tmp_path / "data", "traces": "redacted"})
        app = create_app(engine, (), limits)
        AppState.of(app).traces.start()
        async with serving(app=app, headers=ALICE) as client:
            trace = (await client.post("/v1/chat/completions", json=body(max_tokens=1))).json()["tts"]["trace_id"]
            running = asyncio.create_task(client.post("/v1/chat/completions", json=body()))
            await until(lambda: engine.live == 1)
            # Now there is no request left, of the minute or at once.
            assert (await client.post("/v1/chat/completions", json=body())).status_code == 429
            assert (await client.post("/tokenize", json={"prompt": "x"})).status_code == 429
            fetched = [route.path for route in routes() if "GET" in (route.methods or ())]
            for path in fetched:
                answer = await client.get(path.replace("{id:path}", "fake").replace("{id}", trace))
                assert answer.status_code in (200, 404), path
                assert (await client.head(path)).status_code in (200, 404), path
            uploaded = await client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a", b"x")})
            assert (await client.get(f"/v1/files/{uploaded.json()['id']}/content")).content == b"x"
            assert (await client.delete(f"/v1/files/{uploaded.json()['id']}")).is_success
            assert (await client.post("/v1/batches", json={})).status_code == 400
            assert (await client.post(f"/v1/traces/{trace}/feedback", json={"correct": True})).is_success
            running.cancel()
        await AppState.of(app).batches.close()

    asyncio.run(main())


def test_one_owner_has_so_many_requests_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine(token_s=0.02)
        async with serving(engine, settings=settings(tmp_path, concurrent_requests=2)) as client:
            send = [client.post("/v1/chat/completions", json=body(stream=s), headers=ALICE) for s in (True, False)]
            running = [asyncio.create_task(request) for request in send]
            await until(lambda: engine.live == 2)
            refused = await client.post("/v1/chat/completions", json=body(), headers=ALICE)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert (await client.post("/v1/chat/completions", json=body(max_tokens=1), headers=BOB)).is_success
            running[0].cancel()
            assert (await running[1]).is_success
            await until(lambda: engine.live == 0)
            for _ in range(3):
                assert (await client.post("/v1/chat/completions", json=body(max_tokens=1), headers=ALICE)).is_success

    asyncio.run(main())


@pytest.mark.usefixtures("standing_still")
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_costs_every_token_of_every_branch(stream: bool, tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine, [FakePRM()], settings(tmp_path, tokens_per_hour=10**6)) as client:
            asked = body(tts={"strategy": "best_of_n", "n": 4}, stream=stream)
            if stream:
                await client.post("/v1/chat/completions", json=asked, headers=ALICE)
                assert await spent(client) > engine.generated > 4
            else:
                response = await client.post("/v1/chat/completions", json=asked, headers=ALICE)
                used = response.json()["tts"]["usage"]
                assert used["prm_tokens"] > 0
                assert await spent(client) == used["completion_tokens"] + used["prm_tokens"]
            before = await spent(client)
            scored = await client.post("/v1/prm/score", json={"question": "1+1", "steps": ["2"]}, headers=ALICE)
            assert await spent(client) - before == scored.json()["usage"]["prm_tokens"] > 0
            assert left(await client.get("/v1/models", headers=BOB)) == 10**6

    asyncio.run(main())


FREE = {"/tokenize", "/detokenize", "/v1/files", "/v1/batches", "/v1/batches/{batch_id}/cancel"} | {
    "/v1/traces/{id}/feedback"
}
PAIR = {"text_1": "1+1", "text_2": "2"}
RANKED = {"query": "1+1", "documents": ["2"]}
PAID: dict[str, Any] = {
    "/v1/chat/completions": body(),
    "/v1/completions": {"model": "fake", "prompt": ["x", "y"]},
    "/v1/responses": {"model": "fake", "input": "x"},
    "/v1/prm/score": {"question": "1+1", "steps": ["2"]},
    **dict.fromkeys(("/score", "/v1/score"), PAIR),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), RANKED),
}


@pytest.mark.usefixtures("standing_still")
def test_every_route_that_computes_is_paid_for(tmp_path: Path) -> None:
    posted = {route.path for route in routes() if "POST" in (route.methods or ())}
    assert posted == FREE | PAID.keys()

    async def main() -> None:
        async with serving(FakeEngine(), [FakePRM()], settings(tmp_path, tokens_per_hour=10**6)) as client:
            for path, asked in PAID.items():
                before = await spent(client)
                response = await client.post(path, json=asked, headers=ALICE)
                assert response.status_code == 200, response.text
                assert await spent(client) > before, path

    asyncio.run(main())


@pytest.mark.usefixtures("standing_still")
@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_pays_for_what_was_generated(stream: bool, tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine(lambda r: "word " * 10_000, token_s=0.002)
        async with serving(engine, settings=settings(tmp_path, tokens_per_hour=10**6)) as client:
            asked = asyncio.create_task(
                client.post("/v1/chat/completions", json=body(n=2, stream=stream), headers=ALICE)
            )
            await until(lambda: engine.generated > 20)
            asked.cancel()
            await until(lambda: engine.live == 0)
            assert abs(await spent(client) - engine.generated) <= 2

    asyncio.run(main())


@pytest.mark.usefixtures("standing_still")
def test_a_failed_request_costs_what_it_generated(tmp_path: Path) -> None:
    class Broken(FakePRM):
        async def score(
            self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
        ) -> list[StepScores]:
            if on_tokens:
                on_tokens(1000)
            raise PRMError("broken")

    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine, [Broken()], settings(tmp_path, tokens_per_hour=10**6)) as client:
            asked = body(tts={"strategy": "best_of_n", "n": 2})
            response = await client.post("/v1/chat/completions", json=asked, headers=ALICE)
            assert response.status_code == 500
            assert await spent(client) == engine.generated + 1000
            response = await client.post("/v1/chat/completions", json=body(n=0), headers=ALICE)
            assert response.status_code == 400
            response = await client.post("/v1/chat/completions", json=body(pad="p" * 6000), headers=ALICE)
            assert response.status_code == 413
            assert await spent(client) == engine.generated + 1000

    asyncio.run(main())


@pytest.mark.usefixtures("standing_still")
def test_who_has_no_tokens_left_waits_but_can_fetch_what_was_made(tmp_path: Path) -> None:
    def script(request: FakeRequest) -> str:
        return "word " * 3000

    async def main() -> None:
        engine = FakeEngine(script)
        async with serving(engine, settings=settings(tmp_path, tokens_per_hour=3600)) as client:
            ask_alice = {"json": body(n=2), "headers": ALICE}
            assert (await client.post("/v1/chat/completions", **ask_alice)).is_success  # type: ignore[arg-type]
            generated = engine.generated
            assert generated > 6000
            for path, asked in (
                ("/v1/chat/completions", body()),
                ("/v1/prm/score", {"question": "1+1", "steps": ["2"]}),
            ):
                refused = await client.post(path, json=asked, headers=ALICE)
                assert refused.status_code == 429
                assert refused.json()["error"]["message"] == "The key of 'alice' has its limit of 3600 tokens an hour."
                assert int(refused.headers["retry-after"]) == generated - 3600 + 1
                assert left(refused) == 0
            assert engine.generated == generated
            assert (await client.get("/v1/models", headers=ALICE)).is_success
            assert (await client.get("/v1/strategies", headers=ALICE)).is_success
            assert (await client.post("/v1/chat/completions", json=body(max_tokens=1), headers=BOB)).is_success

    asyncio.run(main())


def test_without_limits_no_header_tells_of_any(tmp_path: Path) -> None:
    async def main() -> None:
        for configured in (Settings(), settings(tmp_path)):
            async with serving(settings=configured, headers=ALICE) as client:
                response = await ask(client)
                assert response.is_success
                assert not [name for name in response.headers if name.startswith("x-ratelimit")]

    asyncio.run(main())


@pytest.mark.usefixtures("standing_still")
def test_a_batch_s_line_costs_its_owner_tokens_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine(lambda r: "word " * 50)
        limits = settings(tmp_path, tokens_per_hour=100, requests_per_minute=2, concurrent_requests=1)
        app = create_app(engine, (), limits)

        async def line(owner: str) -> Answer:
            return await dispatch(app, "/v1/chat/completions", orjson.dumps(body()), owner)

        answers = await asyncio.gather(*(line("alice") for _ in range(4)))
        assert [answer.status for answer in answers] == [200] * 4
        refused = await line("alice")
        assert refused.status == 429
        assert refused.retry_after_s == (engine.generated - 100 + 1) * 36
        assert (await line("bob")).status == 200

    asyncio.run(main())


def test_whose_key_was_taken_away_has_no_more_lines_answered(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine()
        asked = orjson.dumps(body())
        app = create_app(engine, (), settings(tmp_path))
        for owner in ("carol", ""):
            answer = await dispatch(app, "/v1/chat/completions", asked, owner)
            assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (401, "invalid_api_key")
        assert engine.generated == 0

    asyncio.run(main())
