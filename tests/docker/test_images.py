"""What the images and the compose file promise, read off their files."""

import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tts_server.config import Settings, load
from tts_server.engines.vllm_parts.host import SUPPORTED

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
IMAGES = ("Dockerfile.cpu", "Dockerfile.gpu")
BUILD_TOOLS = re.compile(
    r"build-essential|(gcc|g\+\+|clang|cpp|binutils|make|cmake|ninja|rustc|cargo)|.*-dev|git|python3-pip"
)
PORT = 8000


@dataclass
class Stage:
    """A stage of a Dockerfile: its instructions in their order."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair.partition("=") for line in self.all("ENV") for pair in shlex.split(line)]
        return {name: value for name, _, value in pairs}

    @property
    def packages(self) -> list[str]:
        """What apt installs."""
        found = re.findall(r"apt-get install (.*?)(?:&&|\Z)", " ".join(self.all("RUN")))
        return [word for line in found for word in line.split() if not word.startswith("-")]


def read(name: str) -> tuple[dict[str, str], list[Stage]]:
    """Arguments before the first stage, and the stages."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(str.strip, text.splitlines()):
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, stage = rest.partition(" AS ")
            stages.append(Stage(base, stage))
        elif stages:
            stages[-1].steps.append((instruction, " ".join(rest.split())))
        else:
            arguments |= [rest.split("=")]  # type: ignore[arg-type]
    return arguments, stages


@pytest.fixture(params=IMAGES)
def stages(request: pytest.FixtureRequest) -> list[Stage]:
    return read(request.param)[1]


@pytest.fixture
def final(stages: list[Stage]) -> Stage:
    return stages[-1]


@pytest.mark.parametrize("name", IMAGES)
def test_the_base_is_debian_12(name: str) -> None:
    arguments, stages = read(name)
    assert arguments == {"BASE": "debian:12-slim"}
    assert {stages[0].base, stages[-1].base} == {"${BASE}"}


def test_what_runs_is_not_root(final: Stage) -> None:
    user, _, group = final.last("USER").partition(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000
    # Nothing is run or copied as that user but what it is started for.
    after = [name for name, _ in final.steps[[name for name, _ in final.steps].index("USER") :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)


def test_no_build_tool_is_in_the_final_stage(stages: list[Stage]) -> None:
    assert [name for name in stages[0].packages if BUILD_TOOLS.fullmatch(name)], "the pattern finds some"
    assert [name for name in stages[-1].packages if BUILD_TOOLS.fullmatch(name)] == []
    copied = [shlex.split(line) for line in stages[-1].all("COPY")]
    assert all(words[0].startswith("--from=") for words in copied)
    assert {Path(words[-1]).name for words in copied} <= {"tts-server", "triton"}
    # vLLM's requirements bring one with them.
    assert "pip uninstall --yes ninja" in " ".join(stages[0].all("RUN"))


def test_the_caches_and_the_data_are_volumes_of_the_user(final: Stage) -> None:
    volumes = json.loads(final.last("VOLUME"))
    told = final.environment
    assert set(volumes) == {told["TTS_SERVER_CACHE"], told["TTS_SERVER_DATA_DIR"]}
    for name in ("XDG_CACHE_HOME", "HF_HOME"):
        assert told[name].startswith(told["TTS_SERVER_CACHE"])
    made = " ".join(final.all("RUN"))
    assert re.search(
        r"install --directory --mode 0750 --owner tts-server --group tts-server /var/lib/tts-server /var", made
    )
    assert f"--home-dir {told['TTS_SERVER_DATA_DIR']}" in made


def test_the_settings_of_the_image_are_the_server_s(final: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in final.environment.items():
        if name.startswith("TTS_SERVER_"):
            monkeypatch.setenv(name, value)
    settings = load()
    assert (settings.host, settings.port) == ("0.0.0.0", PORT)
    assert final.last("EXPOSE") == str(PORT)
    assert json.loads(final.last("ENTRYPOINT"))[-1] == "tts-server"
    assert json.loads(final.last("CMD")) == ["serve"]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server whose /health has a status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_health_check_tells_a_server_that_answers(final: Stage) -> None:
    python, *arguments = json.loads(final.last("HEALTHCHECK").partition("CMD ")[2])
    assert python == "python"

    def checked(port: int) -> int:
        command, environment = [sys.executable, *arguments], {"TTS_SERVER_PORT": str(port)}
        return subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False).returncode

    for status, expected in ((200, 0), (503, 1)):
        with answering(status) as port:
            assert checked(port) == expected
    assert checked(port) == 1


def test_the_build_context_is_what_the_images_copy() -> None:
    first, *lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert first == "*"
    copies = [shlex.split(line) for name in IMAGES for stage in read(name)[1] for line in stage.all("COPY")]
    assert {word for words in copies if not words[0].startswith("--from") for word in words[:-1]} == allowed
    named = [*allowed, *(line for line in lines if not line.startswith(("!", "**")))]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_wheel_s_packages_are_all_in_the_context() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.removesuffix("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    for name in IMAGES:
        copied = {word for stage in read(name)[1] for line in stage.all("COPY") for word in line.split()}
        assert packages <= copied


def test_the_gpu_image_has_a_vllm_that_the_server_supports() -> None:
    (version,) = [line.partition("=")[2] for line in read("Dockerfile.gpu")[1][0].all("ARG") if "VLLM" in line]
    assert version.rpartition(".")[0] in SUPPORTED


def test_the_gpu_image_installs_what_the_project_needs() -> None:
    command = [sys.executable, str(DOCKER / "requirements_of.py"), str(ROOT / "pyproject.toml"), "search", "bench"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert told == [*project["dependencies"], *extras["search"], *extras["bench"]]


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def services(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """The services of a profile, as `docker compose` itself resolves them."""
    compose = [str(Path(sys.executable).with_name("docker-compose")), "--file", str(DOCKER / "compose.yaml")]
    # Nothing of this machine's environment.
    done = subprocess.run(
        [*compose, "--profile", request.param, "config", "--format", "json"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        check=True,
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return found


def test_the_profiles_hold_what_they_say(services: Mapping[str, Mapping[str, Any]]) -> None:
    ours = {"server-cpu"} if "server-cpu" in services else {"server", "generator", "prm"}
    assert set(services) == ours | {"prometheus", "grafana"}
    servers = [service for name, service in services.items() if name.startswith("server")]
    assert [service["networks"]["default"]["aliases"] for service in servers] == [["server"]]


def test_every_port_is_on_loopback_unless_asked_for(services: Mapping[str, Mapping[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert {port["target"] for port in ports} == {PORT, 9090, 3000}


def test_no_service_has_rights_that_it_does_not_need(services: Mapping[str, Mapping[str, Any]]) -> None:
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "user", "network_mode", "pid", "ipc"} & set(service)


def test_a_request_under_way_has_time_to_end(services: Mapping[str, Mapping[str, Any]]) -> None:
    grace = [service["stop_grace_period"] for name, service in services.items() if name.startswith("server")]
    assert grace == ["45s"]
    assert Settings().grace_s < 45


def test_the_settings_of_the_services_are_the_server_s(
    services: Mapping[str, Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,) = [service["environment"] for name, service in services.items() if name.startswith("server")]
    given = {name: value for name, value in told.items() if name.startswith("TTS_SERVER_")}
    for name, value in given.items():
        monkeypatch.setenv(name, value or "alice:sk-1")
    monkeypatch.setenv("TTS_SERVER_TRACES", "full")
    settings = load()
    if settings.upstream:
        assert (settings.engine, list(settings.upstream)) == ("openai", [f"http://generator:{PORT}/v1"])
        assert settings.prm_upstream == f"http://prm:{PORT}"
        assert settings.prm in services["prm"]["command"]
    else:
        assert (settings.model, settings.prm) == ("qwen2.5-coder-0.5b-instruct", "judge")


def test_the_models_outlive_their_containers(services: Mapping[str, Mapping[str, Any]]) -> None:
    for name, service in services.items():
        mounts = {mount["target"]: mount for mount in service["volumes"]}
        if name not in ("prometheus", "grafana"):
            assert mounts["/var/cache/tts-server"]["source"] == "models"
        for mount in mounts.values():
            if mount["type"] == "bind":
                assert mount["read_only"]
                assert Path(mount["source"]).exists(), mount["source"]


@pytest.mark.parametrize("services", ["gpu"], indirect=True)
def test_the_generator_and_its_judge_share_a_gpu(services: Mapping[str, Mapping[str, Any]]) -> None:
    shares = []
    for name in ("generator", "prm"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        (share,) = [word for word in services[name]["command"] if "memory" in word]
        shares.append(float(share.partition("=")[2]))
    assert sum(shares) < 1
    assert services["prm"]["depends_on"]["generator"]["condition"] == "service_healthy"
    assert {services["server"]["depends_on"][name]["condition"] for name in ("generator", "prm")} == {"service_healthy"}
