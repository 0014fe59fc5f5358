"""The dashboard and the alerts ask for metrics that there are, in files that their programs take."""

import asyncio
import json
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import NEVER_S
from prometheus_client.parser import text_string_to_metric_families
from serving import serving

from prm import FakePRM

DOCKER = Path(__file__).parents[2] / "docker"
PROMETHEUS = DOCKER / "prometheus"
DASHBOARDS = sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))
NAME = re.compile(r"\b(?:tts|process|python|vllm)[_:][a-z_:]+")
ENDINGS = ("", "_total", "_bucket", "_sum", "_count", "_created")


def dashboard(file: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(file.read_text())
    return made


def questions() -> Iterator[str]:
    """Every expression."""
    for file in DASHBOARDS:
        for panel in dashboard(file)["panels"]:
            yield from (target["expr"] for target in panel.get("targets", ()))
        yield from (v["query"]["query"] for v in dashboard(file)["templating"]["list"] if v["type"] == "query")
    yield (PROMETHEUS / "alerts.yml").read_text()


def asked_for() -> set[str]:
    return {name for question in questions() for name in NAME.findall(question)}


def test_every_metric_that_is_asked_for_is_told() -> None:
    async def told() -> str:
        async with serving(prms=[FakePRM()]) as client:
            return (await client.get("/metrics")).text

    families = [family.name for family in text_string_to_metric_families(asyncio.run(told()))]
    known = {name + ending for name in families for ending in ENDINGS}
    assert len(asked_for()) > 20
    assert {name for name in asked_for() if not name.startswith("vllm:")} - known == set()


def test_every_metric_of_vllm_that_is_asked_for_is_one_of_its() -> None:
    loggers = Path(sysconfig.get_path("purelib")) / "vllm" / "v1" / "metrics" / "loggers.py"
    if not loggers.is_file():
        pytest.skip("vLLM is not installed")
    known = set(re.findall(r'"(vllm:[a-z_]+)"', loggers.read_text()))
    asked = {name.removesuffix("_total") for name in asked_for() if name.startswith("vllm:")}
    assert asked
    assert asked - known == set()


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_a_dashboard_s_panels_stand_apart_and_use_its_variables(file: Path) -> None:
    made = dashboard(file)
    panels = made["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    variables = {variable["name"] for variable in made["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\b", json.dumps(panels)))
    assert used - {"__rate"} <= variables


def test_what_is_provisioned_stands_where_it_is_looked_for() -> None:
    source = (DOCKER / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    provider = (DOCKER / "grafana" / "provisioning" / "dashboards" / "dashboards.yaml").read_text()
    compose = (DOCKER / "compose.yaml").read_text()
    (place,) = re.findall(r"path: (\S+)", provider)
    assert f"./grafana/dashboards:{place}:ro" in compose
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in compose
    assert "./prometheus/prometheus.yml:/etc/prometheus/prometheus.yml:ro" in compose
    assert "./prometheus/alerts.yml:/etc/prometheus/alerts.yml:ro" in compose
    (uid,) = re.findall(r"uid: (\S+)", source)
    assert {v["current"]["value"] for d in DASHBOARDS for v in dashboard(d)["templating"]["list"][:1]} == {uid}


def test_every_alert_is_on_the_page() -> None:
    page = (DOCKER.parent / "docs" / "operations.md").read_text()
    alerts = set(re.findall(r"- alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text()))
    assert set(re.findall(r"^\| `([A-Z][a-z]\w+)` \|", page, re.MULTILINE)) == alerts


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", "--lint=all", "--lint-fatal", "prometheus.yml"],
        ["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_has_nothing_to_say(arguments: list[str]) -> None:
    ran = promtool(*arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_promtool_can_read_every_query_of_the_dashboards(tmp_path: Path) -> None:
    asked = [
        target["expr"]
        for file in DASHBOARDS
        for panel in dashboard(file)["panels"]
        for target in panel.get("targets", ())
    ]
    assert len(asked) > 20
    # As Grafana fills them in; promtool reads queries where they are rules.
    filled = [re.sub(r"\$\{?\w+\}?", "x", expr.replace("$__rate_interval", "1m")) for expr in asked]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(filled)]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    ran = promtool("check", "rules", str(tmp_path / "rules.json"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(asked)} rules found" in ran.stdout


def test_promtool_reads_the_page_itself() -> None:
    async def told() -> httpx.Response:
        async with serving(prms=[FakePRM()]) as client:
            await client.post("/v1/chat/completions", json={"model": "fake", "messages": []})
            return await client.get("/metrics")

    ran = promtool("check", "metrics", said=asyncio.run(told()).text)
    # It has an opinion of the names that Python's own client gives to a process.
    faults = [line for line in (ran.stdout + ran.stderr).splitlines() if line.startswith("tts_")]
    assert faults == []
    assert ran.returncode in (0, 3), ran.stderr


def promtool(*arguments: str, said: str | None = None) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; it comes with Debian's package prometheus")
    return subprocess.run(
        [program, *arguments], cwd=PROMETHEUS, input=said, capture_output=True, text=True, timeout=NEVER_S, check=False
    )
