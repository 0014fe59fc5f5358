"""What others tell of themselves is passed on as data, within bounds."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tts_server.errors import EngineUnavailable
from tts_server.observe.metrics import foreign as passed_on
from tts_server.observe.metrics.foreign import PassedOn, merged, of_process
from tts_server.upstream.errors import NoSuchPath

OWN = b"# HELP tts_requests_total Ours.\n# TYPE tts_requests_total counter\ntts_requests_total 1.0\n"
VLLM = """# HELP vllm:running Requests that run.
# TYPE vllm:running gauge
vllm:running{model_name="m",engine="0"} 3.0
# HELP vllm:wait_seconds How long.
# TYPE vllm:wait_seconds histogram
vllm:wait_seconds_bucket{le="1.0",model_name="a \\"b\\" {c}"} 2.0
vllm:wait_seconds_bucket{le="+Inf",model_name="a \\"b\\" {c}"} 4.0
vllm:wait_seconds_count 4.0
vllm:wait_seconds_sum 1e-05
# HELP tts_requests_total Theirs.
# TYPE tts_requests_total counter
tts_requests_total{strategy="single"} 9.0
"""


class Told:
    """An upstream."""

    def __init__(self, origin: str, answer: str | Exception, wait_s: float = 0) -> None:
        self.origin = origin
        self.answer = answer
        self.wait_s = wait_s
        self.asked: list[tuple[str, int]] = []

    async def text(self, path: str, limit: int) -> str:
        self.asked.append((path, limit))
        await asyncio.sleep(self.wait_s)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_samples_of_upstreams_stand_behind_ours_by_family_with_their_origin() -> None:
    text = merged(OWN, [("http://a", VLLM), ("http://b", VLLM)]).decode()
    assert text.startswith(OWN.decode())
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == {"tts_requests", "vllm:running", "vllm:wait_seconds"}
    assert [s.labels["upstream"] for s in families["vllm:running"].samples] == ["http://a", "http://b"]
    assert families["vllm:wait_seconds"].type == "histogram"
    assert len(families["vllm:wait_seconds"].samples) == 8
    assert families["vllm:wait_seconds"].samples[0].labels["model_name"] == 'a "b" {c}'
    assert text.count("# TYPE vllm:running ") == text.count("# HELP vllm:running ") == 1


@pytest.mark.parametrize(
    "line",
    [
        "<html>",
        "no_value",
        'open{label="} 1',
        'two{a="b"} 1 2 3',
        "words{} one",
        'taken{upstream="http://evil"} 1',
        'number{a="b"} 1.2.3',
        "# TYPE odd strange",
        'twice{a="1"} 1 # {trace_id="x"} 1',
        "\x00",
    ],
)
def test_what_is_no_sample_is_left_out(line: str) -> None:
    told = merged(OWN, [("http://a", f"before 1\n{line}\nafter 2\n")]).decode()
    assert told == OWN.decode() + 'before{upstream="http://a"} 1\nafter{upstream="http://a"} 2\n'


def test_an_origin_cannot_break_the_page() -> None:
    text = merged(OWN, [('http://a"} 1\n\\', "up 1\n")]).decode()
    (_, up) = text_string_to_metric_families(text)
    assert up.samples[0].labels == {"upstream": 'http://a"} 1\n\\'}


def test_an_upstream_is_asked_once_however_many_look(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        upstream = Told("http://a", VLLM, 0.01)
        passed = PassedOn(lambda: [upstream])
        assert await asyncio.gather(*(passed.ask() for _ in range(5))) == [[("http://a", VLLM)]] * 5
        assert upstream.asked == [("/metrics", passed_on.MAX_BYTES)]
        monkeypatch.setattr(passed_on, "KEPT_S", -1)
        await passed.ask()
        assert len(upstream.asked) == 2

    asyncio.run(main())


def test_one_that_fails_or_is_slow_leaves_the_others_and_one_without_metrics_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passed_on, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(passed_on, "KEPT_S", -1)

    async def main() -> None:
        good, slow = Told("http://good", VLLM), Told("http://slow", VLLM, 5)
        down, without = Told("http://down", EngineUnavailable("gone")), Told("http://without", NoSuchPath("none"))
        passed = PassedOn(lambda: [good, slow, down, without])
        assert await passed.ask() == [("http://good", VLLM)]
        assert passed.up == {"http://good": True, "http://slow": False, "http://down": False, "http://without": False}
        down.answer = VLLM
        assert [origin for origin, _ in await passed.ask()] == ["http://good", "http://down"]
        assert len(without.asked) == 1
        assert "http://without" not in passed.up

    asyncio.run(main())


def test_libraries_in_this_process_tell_theirs() -> None:
    assert b"# TYPE process_resident_memory_bytes gauge" in of_process()
