"""A reward model behind vLLM's HTTP API, and every way in which the server can be the wrong one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest
from prefixes import ByteFamily, PrefixBackend
from reward_server import RIGHT, WRONG, RewardServer

from prm import PRMError
from prm.families.contract import Classes, Head, LabelTokens, Layout, Sigmoid
from tts_server.errors import APIError, EngineUnavailable, UpstreamError
from tts_server.prm_serving import remote
from tts_server.prm_serving.remote import RemoteReader
from tts_server.upstream.client import Upstream

T = TypeVar("T")
CLASSES, LABELS = Classes(right=1), LabelTokens(RIGHT, WRONG)
SOLUTIONS = [["a", "bb", "naïve 数学"], ["c"], ["a", "bb", "d"]]
LAYOUTS = [layout for steps in SOLUTIONS for layout in ByteFamily().layouts("question", steps)]


def served(
    server: RewardServer,
    do: Callable[[RemoteReader], Awaitable[T]],
    *,
    head: Head = CLASSES,
    model: str = "m",
    key: str | None = None,
) -> T:
    """What `do` returns of a started reader of the server."""

    async def main() -> T:
        async with server.serve() as url:
            reader = RemoteReader(Upstream(url, api_key=key, backoff_s=0.001), model, head)
            await reader.start()
            try:
                server.bodies.clear()
                return await do(reader)
            finally:
                await reader.close()

    return asyncio.run(main())


def read(server: RewardServer, layouts: Sequence[Layout] = LAYOUTS, **options: Any) -> list[tuple[float, ...]]:
    return served(server, lambda reader: reader.read(layouts), **options)


def expected(layouts: Sequence[Layout] = LAYOUTS) -> list[tuple[float, ...]]:
    return [pytest.approx(scores) for scores in asyncio.run(PrefixBackend().read(layouts))]


@pytest.mark.parametrize("task", ["all", "step", "last"])
def test_rows_of_every_shape_are_read(task: Any) -> None:
    server = RewardServer(task)
    assert read(server) == expected()
    (body,) = server.bodies
    assert (body["model"], body["use_activation"]) == ("m", False)
    assert len(body["input"]) == (7 if task == "last" else 3)


def test_labels_are_read_by_completions() -> None:
    server = RewardServer("generate")
    assert read(server, head=LABELS) == expected()
    (body,) = server.bodies
    assert (body["max_tokens"], body["temperature"], body["logprobs"]) == (1, 0, 2)
    assert body["logprob_token_ids"] == [RIGHT, WRONG]
    assert [tuple(prompt) for prompt in body["prompt"]] == [
        layout.token_ids[: end + 1] for layout in LAYOUTS for end in layout.ends
    ]


def test_new_ends_of_a_longer_layout_are_read() -> None:
    (whole,) = ByteFamily().layouts("question", SOLUTIONS[0])
    some = [Layout(whole.token_ids, whole.ends[1:])]
    for task in ("all", "step", "last"):
        assert read(RewardServer(task), some) == expected(some)  # type: ignore[arg-type]


def test_large_calls_are_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    server = RewardServer()
    layouts = [layout for k in range(20) for layout in ByteFamily().layouts(f"question {k}", ["a", "b"])]
    monkeypatch.setattr(remote, "PROMPTS", 6)
    assert read(server, layouts) == expected(layouts)
    assert sorted(len(body["input"]) for body in server.bodies) == [2, 6, 6, 6]
    monkeypatch.setattr(remote, "TOKENS", 40)
    assert read(server, layouts) == expected(layouts)
    assert all(sum(map(len, body["input"])) <= 40 for body in server.bodies)


@pytest.mark.parametrize(("task", "head"), [("all", CLASSES), ("generate", LABELS)])
def test_tokens_are_those_that_the_server_counts(task: Any, head: Head) -> None:
    tokens, layouts = list[int](), LAYOUTS[1:2]
    served(RewardServer(task), lambda reader: reader.read(layouts, on_tokens=tokens.append), head=head)
    assert sum(tokens) == len(layouts[0].token_ids) + (task == "generate")


@pytest.mark.parametrize(("head", "limit"), [(CLASSES, 2000), (LABELS, 1999)])
def test_the_context_is_the_servers(head: Head, limit: int) -> None:
    async def ask(reader: RemoteReader) -> int:
        return reader.max_len

    assert served(RewardServer("generate" if head is LABELS else "all"), ask, head=head) == limit


def test_the_only_model_is_taken_and_one_of_several_is_named() -> None:
    assert read(RewardServer(models=("other",)), model="m") == expected()
    server = RewardServer(models=("other", "m"))
    assert read(server, model="m") == expected()
    assert {body["model"] for body in server.bodies} == {"m"}
    with pytest.raises(UpstreamError, match="it serves other, another, not 'm'"):
        read(RewardServer(models=("other", "another")))


@pytest.mark.parametrize(
    ("server", "head", "said"),
    [
        (RewardServer("embed"), CLASSES, "64 numbers at a token, where the model's family has 2: .*--convert classify"),
        (RewardServer("all"), Sigmoid(), "2 numbers at a token, where the model's family has 1"),
        (RewardServer("generate"), CLASSES, "does not serve /pooling, .* start it with `vllm serve MODEL --runner poo"),
    ],
)
def test_a_server_of_another_task_is_refused_at_the_start(server: RewardServer, head: Head, said: str) -> None:
    with pytest.raises(UpstreamError, match=f"The reward model's server http://127.*{said}"):
        read(server, head=head)


def test_a_server_that_pools_is_none_for_labels() -> None:
    with pytest.raises(PRMError, match=r"does not serve /v1/completions, .* without --runner pooling"):
        read(RewardServer("all"), head=LABELS)


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    async def main() -> None:
        await RemoteReader(Upstream("http://127.0.0.1:9", backoff_s=0.001), "m", CLASSES).start()

    with pytest.raises(UpstreamError, match=r"server http://127\.0\.0\.1:9: The upstream cannot be reached"):
        asyncio.run(main())


def test_the_key_goes_there() -> None:
    assert read(RewardServer(key="secret"), key="secret") == expected()
    with pytest.raises(UpstreamError, match="refuses the API key") as refused:
        read(RewardServer(key="secret"), key="other")
    assert "other" not in str(refused.value)


def test_a_request_without_an_answer_is_sent_again() -> None:
    async def ask(reader: RemoteReader) -> list[tuple[float, ...]]:
        server.statuses += [503, 500]
        return await reader.read(LAYOUTS)

    server = RewardServer()
    assert served(server, ask) == expected()

    async def ask_in_vain(reader: RemoteReader) -> APIError:
        server.statuses += [503] * 3
        with pytest.raises(EngineUnavailable) as failed:
            await reader.read(LAYOUTS)
        return failed.value

    server = RewardServer()
    assert "unavailable" in served(server, ask_in_vain).message


@pytest.mark.parametrize(
    ("task", "head", "said"),
    [
        ("all", CLASSES, "the server told .* rows where there are"),
        ("step", CLASSES, "the server told .* rows where there are"),
        ("generate", LABELS, "told no logprob of the label's token_id:43"),
    ],
)
def test_an_answer_that_lacks_something_is_an_error(task: Any, head: Head, said: str) -> None:
    async def ask(reader: RemoteReader) -> None:
        server.cut = 1
        with pytest.raises(PRMError, match=said):
            await reader.read(LAYOUTS)

    server = RewardServer(task)
    served(server, ask, head=head)


def test_tokens_that_the_server_refuses_are_no_fault_of_the_client() -> None:
    async def ask(reader: RemoteReader) -> None:
        server.statuses.append(400)
        with pytest.raises(PRMError, match=r"refused the tokens of a solution: .*not now"):
            await reader.read(LAYOUTS)

    server = RewardServer()
    served(server, ask)
