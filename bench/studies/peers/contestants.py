"""Our server and its peers: how each is installed, started in front of an upstream, and asked for the same work."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from bench.studies.peers.drive import Work
from bench.studies.peers.environments import Packages, Unavailable, environment
from bench.studies.peers.stub import MODEL
from bench.studies.processes import free_port, running, tts_server

QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]
CHAT = {"model": MODEL, "messages": QUESTION, "max_tokens": 64}
EIGHT = 8


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server in front of an upstream."""

    name: str
    start: Callable[[int, str, Path], list[str]]
    """The command that serves at a port before an upstream's origin, given a folder for its files.

    Raises Unavailable if it cannot be installed."""
    one: Work
    eight: Work
    """Eight samples, of which one answer comes back where the server can choose."""
    ready: str = "/health"
    """What answers 200 once it serves."""
    env: Mapping[str, str] = field(default_factory=dict)
    configure: Callable[[str, str], None] | None = None
    """Called with its origin and the upstream's before it is asked."""


def _ours(port: int, upstream: str, folder: Path) -> list[str]:
    return tts_server("--engine", "openai", "--upstream", upstream, "--port", str(port), "--log-level", "warning")


def _its_hub(port: int, upstream: str, folder: Path) -> list[str]:
    commands = environment("its_hub", Packages(whole=("its_hub[iaas]==1.2.0",)))
    return [str(commands / "its-iaas"), "--port", str(port), "--log-level", "WARNING"]


def _configure_its_hub(origin: str, upstream: str) -> None:
    asked = {
        "endpoint": f"{upstream}/v1",
        "api_key": "none",
        "model": MODEL,
        "alg": "self-consistency",
        "regex_patterns": [r"\\boxed\{([^{}]+)\}"],
    }
    httpx.post(f"{origin}/configure", json=asked).raise_for_status()


def _optillm(port: int, upstream: str, folder: Path) -> list[str]:
    # It declares what its other parts need, PyTorch with CUDA among them; its proxy imports these.
    needed = ("flask", "openai<3", "cerebras_cloud_sdk", "aiohttp", "networkx", "sympy", "math-verify", "numpy")
    more = ("z3-solver<=4.15.4.0", "pyyaml", "httpx", "requests")
    commands = environment("optillm", Packages(whole=(*needed, *more), alone=("optillm==0.4.0",)))
    run = "import sys; from optillm import main; sys.exit(main())"
    flags = ["--port", str(port), "--base-url", f"{upstream}/v1", "--approach", "none", "--log", "warning"]
    return [str(commands / "python"), "-c", run, *flags]


def _litellm(port: int, upstream: str, folder: Path) -> list[str]:
    commands = environment("litellm", Packages(whole=("litellm[proxy]==1.106.2",)))
    route = {"model": f"openai/{MODEL}", "api_base": f"{upstream}/v1", "api_key": "none"}
    config = folder / "litellm.yaml"
    # JSON is YAML.
    config.write_text(json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": route}]}))
    return [str(commands / "litellm"), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]


_CHOICES = b'"index":7'
OURS = Contestant(
    "tts-server",
    _ours,
    Work(CHAT, b"boxed{4}"),
    Work({**CHAT, "tts": {"strategy": "self_consistency", "n": EIGHT}}, b'"samples":8'),
)
BARE = replace(OURS, name="tts-server, no traces", env={"TTS_SERVER_TRACES": "off"})
"""As the peers, which keep no record of a search."""
PEERS = (
    Contestant(
        "its_hub 1.2.0",
        _its_hub,
        Work({**CHAT, "budget": 1}, b"boxed{4}"),
        Work({**CHAT, "budget": EIGHT}, b"boxed{4}"),
        ready="/v1/models",
        configure=_configure_its_hub,
    ),
    Contestant(
        "optillm 0.4.0",
        _optillm,
        Work(CHAT, b"boxed{4}"),
        Work({**CHAT, "n": EIGHT}, _CHOICES),
        env={"OPENAI_API_KEY": "none"},
    ),
    Contestant(
        "LiteLLM 1.106.2",
        _litellm,
        Work(CHAT, b"boxed{4}"),
        Work({**CHAT, "n": EIGHT}, _CHOICES),
        ready="/health/liveliness",
        env={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            "NO_DOCS": "True",
            # Without keys it starts only if told so; ours has none here either.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
    ),
)


@contextmanager
def serving(contestant: Contestant, upstream: str, folder: Path) -> Iterator[str]:
    """Its origin while it runs.

    Raises:
        Unavailable: it cannot be installed, or does not come up.
    """
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    command = contestant.start(port, upstream, folder)
    log = folder / f"{contestant.name.split()[0]}.log"
    data = folder / f"data-{port}"
    data.mkdir()
    env = {"HF_HUB_OFFLINE": "1", "TTS_SERVER_DATA_DIR": str(data), **contestant.env}
    with ExitStack() as stack:
        try:
            stack.enter_context(running(command, port, log, env, timeout_s=120, ready=contestant.ready))
        except (OSError, RuntimeError) as error:
            raise Unavailable(f"it does not come up: {str(error).splitlines()[-1]}") from error
        if contestant.configure:
            contestant.configure(origin, upstream)
        yield origin
