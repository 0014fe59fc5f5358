"""`/v1/batches`: from a file of requests to a file of answers."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from batching import CHAT, batching, ended, jsonl, line, submit, told, upload
from serving import QUESTION, until

from tts_server.config import BatchConfig
from tts_server.engines.fake import FakeEngine, FakeRequest

NULL_AT_FIRST = [
    *("errors", "output_file_id", "error_file_id", "in_progress_at", "finalizing_at", "completed_at", "failed_at"),
    *("expired_at", "cancelling_at", "cancelled_at"),
]


TOTAL = {"tts_total_tokens": "100"}
WRONG = ["", "0", "-1", "1e6", "2.5", "many", " 7", "007", "1" * 16, "\u0663"]
"""Budgets that are none."""


def test_a_batch_from_its_file_to_its_answers(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            made = await submit(client, [line("a"), line("b", "bad", n=0), line("c", n=2)], metadata={"run": "7"})
            assert made["object"] == "batch"
            assert (made["status"], made["endpoint"], made["completion_window"]) == ("validating", CHAT, "24h")
            assert made["expires_at"] == made["created_at"] + 24 * 3600
            assert made["metadata"] == {"run": "7"}
            assert [made[key] for key in NULL_AT_FIRST] == [None] * len(NULL_AT_FIRST)
            assert made["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
            done = await ended(client, made)
            assert (done["status"], done["errors"]) == ("completed", None)
            assert done["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
            times = [done[f"{kind}_at"] for kind in ("created", "in_progress", "finalizing", "completed")]
            assert times == sorted(times)
            right, wrong = await told(client, done["output_file_id"]), await told(client, done["error_file_id"])
            assert list(right) == ["a", "c"]
            for answer in right.values():
                assert answer.keys() == {"id", "custom_id", "response", "error"}
                assert answer["error"] is None
                assert answer["id"].startswith("batch_req_")
                assert answer["response"]["status_code"] == 200
                assert answer["response"]["request_id"]
                assert answer["response"]["body"]["object"] == "chat.completion"
            assert len(right["c"]["response"]["body"]["choices"]) == 2
            assert wrong["b"]["response"]["status_code"] == 400
            assert wrong["b"]["response"]["body"]["error"]["param"] == "n"
            used = [answer["response"]["body"]["usage"] for answer in right.values()]
            assert done["usage"]["output_tokens"] == sum(u["completion_tokens"] for u in used) > 0
            assert done["usage"]["total_tokens"] == sum(u["total_tokens"] for u in used)
            for kind in ("output", "error"):
                file = (await client.get(f"/v1/files/{done[f'{kind}_file_id']}")).json()
                assert (file["purpose"], file["filename"]) == ("batch_output", f"{done['id']}_{kind}.jsonl")
                data = (await client.get(f"/v1/files/{file['id']}/content")).content
                assert len(data) == file["bytes"]

    asyncio.run(main())


def test_a_line_is_answered_as_its_request_would_be(tmp_path: Path) -> None:
    asked = line("a", "What is 17 * 23?", seed=5, tts={"strategy": "self_consistency", "n": 4})

    async def main() -> None:
        async with batching(tmp_path) as client:
            done = await ended(client, await submit(client, [asked]))
            (kept,) = (await told(client, done["output_file_id"])).values()
            plain = (await client.post(CHAT, json=asked["body"])).json()
            got = kept["response"]["body"]
            assert (got["choices"], got["usage"]) == (plain["choices"], plain["usage"])
            assert got["tts"]["answer"] == plain["tts"]["answer"]

    asyncio.run(main())


def test_a_batch_of_failures_has_no_output_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            done = await ended(client, await submit(client, [line("a", model="nobody")]))
            assert (done["status"], done["output_file_id"]) == ("completed", None)
            (answer,) = (await told(client, done["error_file_id"])).values()
            assert answer["response"]["body"]["error"]["code"] == "model_not_found"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("data", "code", "param", "number"),
    [
        (b"", "empty_file", None, None),
        (b"\n \n", "empty_file", None, None),
        (b"{", "invalid_json_line", None, 1),
        (jsonl([line("a")]) + b"[1]\n", "invalid_json_line", None, 2),
        (jsonl([line("a"), {**line("b"), "custom_id": 3}]), "invalid_custom_id", "custom_id", 2),
        (jsonl([line("a"), line("a")]), "duplicate_custom_id", "custom_id", 2),
        (jsonl([{**line("a"), "method": "GET"}]), "invalid_method", "method", 1),
        (jsonl([line("a"), line("b", url="/v1/embeddings")]), "url_mismatch", "url", 2),
        (jsonl([{"custom_id": "a", "method": "POST", "url": CHAT}]), "missing_required_parameter", "body", 1),
        (jsonl([line("a", stream=True)]), "unsupported_parameter", "body.stream", 1),
        (jsonl([line("a", pad="x" * 2000)]), "line_too_long", None, 1),
        (jsonl([line(str(i)) for i in range(6)]), "too_many_tasks", None, 6),
    ],
)
def test_a_bad_file_fails_its_batch_and_says_where(
    tmp_path: Path, data: bytes, code: str, param: str | None, number: int | None
) -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with batching(tmp_path, engine, BatchConfig(max_lines=5), max_body_bytes=1024) as client:
            done = await ended(client, await submit(client, data))
            assert done["status"] == "failed"
            assert done["failed_at"] >= done["created_at"]
            assert done["errors"]["object"] == "list"
            error = done["errors"]["data"][0]
            assert (error["code"], error["param"], error["line"]) == (code, param, number)
            assert done["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
            assert (done["output_file_id"], done["error_file_id"]) == (None, None)
        assert engine.generated == 0

    asyncio.run(main())


def test_every_bad_line_is_listed(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            done = await ended(client, await submit(client, b"{\n" + jsonl([line("a")]) + b"no\n"))
            assert [error["line"] for error in done["errors"]["data"]] == [1, 3]
            done = await ended(client, await submit(client, b"{\n" * 500))
            assert [error["code"] for error in done["errors"]["data"]] == ["invalid_json_line"] * 100 + ["not_read"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"endpoint": "/v1/models"}, 400, "endpoint"),
        ({"endpoint": None}, 400, "endpoint"),
        ({"completion_window": "1s"}, 400, "completion_window"),
        ({"completion_window": "31d"}, 400, "completion_window"),
        ({"completion_window": 24}, 400, "completion_window"),
        ({"input_file_id": "file-none"}, 404, "input_file_id"),
        ({"metadata": {"a": 1}}, 400, "metadata.a"),
        ({"metadata": {"a": "x" * 513}}, 400, "metadata.a"),
        ({"metadata": {str(i): "" for i in range(17)}}, 400, "metadata"),
        *(({"metadata": {"tts_total_tokens": bad}}, 400, "metadata.tts_total_tokens") for bad in WRONG),
        ({"metadata": {"tts_total_tokens": 5}}, 400, "metadata.tts_total_tokens"),
        ({"metadata": TOTAL, "endpoint": "/v1/completions"}, 400, "metadata.tts_total_tokens"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "output_expires_after.seconds"),
        ({"priority": 1}, 400, "priority"),
    ],
    ids=str,
)
def test_what_cannot_be_made_names_its_field(tmp_path: Path, fields: dict[str, Any], status: int, param: str) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            file = (await upload(client, jsonl([line("a")]))).json()
            asked = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", **fields}
            answer = await client.post("/v1/batches", json=asked)
            assert answer.status_code == status, answer.text
            error = answer.json()["error"]
            assert error.keys() == {"message", "type", "param", "code"}
            assert error["param"] == param
            assert (await client.get("/v1/batches")).json()["data"] == []

    asyncio.run(main())


def test_an_output_file_is_no_input(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            done = await ended(client, await submit(client, [line("a")]))
            asked = {"input_file_id": done["output_file_id"], "endpoint": CHAT, "completion_window": "24h"}
            answer = await client.post("/v1/batches", json=asked)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input_file_id")

    asyncio.run(main())


def test_a_window_of_days_and_files_that_are_kept_for_an_hour(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            keep = {"anchor": "created_at", "seconds": 3600}
            made = await submit(client, [line("a")], completion_window="2d", output_expires_after=keep)
            assert made["expires_at"] == made["created_at"] + 2 * 24 * 3600
            done = await ended(client, made)
            file = (await client.get(f"/v1/files/{done['output_file_id']}")).json()
            assert file["expires_at"] == file["created_at"] + 3600

    asyncio.run(main())


def test_the_list_is_walked_by_its_last(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            ids = [(await submit(client, [line("a")]))["id"] for _ in range(5)]
            first = (await client.get("/v1/batches", params={"limit": 3})).json()
            assert [batch["id"] for batch in first["data"]] == ids[:1:-1]
            assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[4], ids[2], True)
            rest = (await client.get("/v1/batches", params={"limit": 3, "after": ids[2]})).json()
            assert [batch["id"] for batch in rest["data"]] == [ids[1], ids[0]]
            assert rest["has_more"] is False
            for wrong, status in (({"limit": 0}, 400), ({"limit": 101}, 400), ({"after": "batch_none"}, 404)):
                answer = await client.get("/v1/batches", params=wrong)
                assert (answer.status_code, answer.json()["error"]["param"]) == (status, next(iter(wrong)))

    asyncio.run(main())


def test_what_is_cancelled_keeps_what_was_answered(tmp_path: Path) -> None:
    held = asyncio.Event()

    class Held(FakeEngine):
        waiting = 0

        async def generate(self, prompt: Any, sampling: Any, n: int = 1) -> Any:
            if "wait" in prompt.messages[-1]["content"]:
                self.waiting += 1
                try:
                    await held.wait()
                finally:
                    self.waiting -= 1
            async for chunk in super().generate(prompt, sampling, n):
                yield chunk

    async def main() -> None:
        engine = Held()
        async with batching(tmp_path, engine, BatchConfig(concurrency=2)) as client:
            made = await submit(client, [line("a"), line("b", "wait"), line("c", "wait"), line("d")])
            await until(lambda: engine.waiting == 2)
            seen = (await client.get(f"/v1/batches/{made['id']}")).json()
            assert (seen["status"], seen["request_counts"]["completed"]) == ("in_progress", 1)
            assert seen["output_file_id"] is None
            # As clients without a body send it.
            answer = await client.post(f"/v1/batches/{made['id']}/cancel")
            assert answer.status_code == 200, answer.text
            assert answer.json()["status"] in ("cancelling", "cancelled")
            done = await ended(client, made)
            assert done["status"] == "cancelled"
            assert (engine.live, engine.waiting) == (0, 0)
            assert done["request_counts"] == {"total": 4, "completed": 1, "failed": 3}
            assert list(await told(client, done["output_file_id"])) == ["a"]
            left = await told(client, done["error_file_id"])
            assert {(id_, one["response"], one["error"]["code"]) for id_, one in left.items()} == {
                (id_, None, "batch_cancelled") for id_ in "bcd"
            }
            again = await client.post(f"/v1/batches/{made['id']}/cancel")
            assert (again.status_code, again.json()) == (200, done)
            finished = await ended(client, await submit(client, [line("a")]))
            late = await client.post(f"/v1/batches/{finished['id']}/cancel")
            assert late.status_code == 400
            assert "completed" in late.json()["error"]["message"]

    asyncio.run(main())


def test_what_is_not_there_is_a_404(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            for method, path in (("GET", "/v1/batches/none"), ("POST", "/v1/batches/none/cancel")):
                answer = await client.request(method, path)
                assert answer.status_code == 404
                assert answer.json()["error"]["param"] == "batch_id"

    asyncio.run(main())


def test_a_key_sees_only_its_own(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alpha\nbeta\n")

    async def main() -> None:
        async with batching(tmp_path, api_key_file=keys) as client:
            assert (await client.get("/v1/batches")).status_code == 401
            client.headers["authorization"] = "Bearer alpha"
            done = await ended(client, await submit(client, [line("a")]))
            assert list(await told(client, done["output_file_id"])) == ["a"]
            client.headers["authorization"] = "Bearer beta"
            for list_ in ("/v1/batches", "/v1/files"):
                assert (await client.get(list_)).json()["data"] == []
            for method, path in [
                ("GET", f"/v1/batches/{done['id']}"),
                ("POST", f"/v1/batches/{done['id']}/cancel"),
                *[
                    (method, f"/v1/files/{done[file]}{end}")
                    for file in ("input_file_id", "output_file_id")
                    for method, end in (("GET", ""), ("GET", "/content"), ("DELETE", ""))
                ],
            ]:
                assert (await client.request(method, path)).status_code == 404, path
            asked = {"input_file_id": done["input_file_id"], "endpoint": CHAT, "completion_window": "24h"}
            assert (await client.post("/v1/batches", json=asked)).status_code == 404
            client.headers["authorization"] = "Bearer alpha"
            assert len((await client.get("/v1/files")).json()["data"]) == 2

    asyncio.run(main())


def test_a_file_that_is_deleted_after_the_start_is_not_missed(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path, FakeEngine(token_s=0.01)) as client:
            made = await submit(client, [line("a")])
            await ended(client, made, "in_progress", "completed")
            assert (await client.delete(f"/v1/files/{made['input_file_id']}")).status_code == 200
            assert (await ended(client, made))["request_counts"]["completed"] == 1

    asyncio.run(main())


def test_a_failure_is_told_without_its_cause(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(request: FakeRequest) -> str:
        raise RuntimeError("/etc/secret")

    async def main() -> dict[str, Any]:
        async with batching(tmp_path, FakeEngine(broken)) as client:
            done = await ended(client, await submit(client, [line("a")]))
            return (await told(client, done["error_file_id"]))["a"]

    answer = asyncio.run(main())
    assert answer["response"]["status_code"] == 500
    assert "secret" not in str(answer)


def test_batches_are_asked_for_while_a_chat_runs(tmp_path: Path) -> None:
    """What is fetched of batches takes no place that a batch needs."""

    async def main() -> None:
        async with batching(tmp_path, batch=BatchConfig(concurrency=1)) as client:
            made = await submit(client, [line(str(i)) for i in range(3)])
            pages: list[httpx.Response] = await asyncio.gather(*(client.get("/v1/batches") for _ in range(20)))
            assert {page.status_code for page in pages} == {200}
            assert (await ended(client, made))["status"] == "completed"
            chat = await client.post(CHAT, json={"model": "fake", "messages": QUESTION})
            assert chat.status_code == 200

    asyncio.run(main())
