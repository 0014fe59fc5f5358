"""The command line: `tts-server serve | chat | strategies | models | traces`."""

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Column, Table

import strategies as strategy_registry
from prm.families import FAMILIES
from tts_server import cli_traces
from tts_server.config import ConfigError, Settings, load
from tts_server.logs import JSONFormatter, LogFormatter

if TYPE_CHECKING:
    from fastapi import FastAPI

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Spends inference compute on better answers.")
models = typer.Typer(no_args_is_help=True, help="The models that the server knows by name.")
app.add_typer(models, name="models")
app.add_typer(cli_traces.app, name="traces")
out = Console()
err = Console(stderr=True)

PRM_HELP = (
    "judge, generative, fake or none; or [KIND:]MODEL, a directory, hub id or name of `models list` of a KIND that is "
    "told by the model or is one of: " + ", ".join(FAMILIES) + ", generative, lora."
)
URL = Annotated[str, typer.Option(help="Where the server listens.")]


def fail(message: object) -> typer.Exit:
    """One sentence on stderr and exit code 1."""
    err.print(f"[red]error:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    return typer.Exit(1)


@app.command()
def serve(
    model: Annotated[str | None, typer.Option(help="A name of `models list`, a local directory, or a hub id.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, vllm, openai, transformers or fake.")] = None,
    upstream: Annotated[
        list[str] | None, typer.Option(help="Base URL of the upstream of --engine openai; again for each replica.")
    ] = None,
    prm: Annotated[str | None, typer.Option(help=PRM_HELP)] = None,
    prm_backend: Annotated[str | None, typer.Option(help="auto, transformers, vllm or http.")] = None,
    prm_upstream: Annotated[str | None, typer.Option(help="Base URL of the reward model's vLLM server.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="API keys, one a line, or a .toml with limits.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Tokens of prompt and completion together.")] = None,
    policy: Annotated[Path | None, typer.Option(help="What `tts-bench calibrate` wrote, for compute_optimal.")] = None,
    policy_force: Annotated[
        bool | None, typer.Option("--policy-force", help="Use it, whatever it was fitted for.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="console or json.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with these and all other settings.")] = None,
) -> None:
    """Serves a model until it is told to stop."""
    from tts_server.app import build_engine, build_prms, create_app  # noqa: PLC0415
    from tts_server.catalog import CatalogError  # noqa: PLC0415
    from tts_server.errors import APIError  # noqa: PLC0415
    from tts_server.otel.environment import from_environment  # noqa: PLC0415
    from tts_server.server import new_event_loop  # noqa: PLC0415
    from tts_server.server import serve as run  # noqa: PLC0415

    try:
        settings = load(
            config,
            model=model,
            engine=engine,
            upstream=upstream or None,
            prm=prm,
            prm_backend=prm_backend,
            prm_upstream=prm_upstream,
            host=host,
            port=port,
            api_key_file=api_key_file,
            max_model_len=max_model_len,
            policy=policy,
            policy_force=policy_force,
            log_level=log_level,
            log_format=log_format,
        )
        log_to_stderr(settings)
        chosen = build_engine(settings)
        application = create_app(chosen, build_prms(settings, chosen), settings, from_environment())
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(run(application, settings, lambda url: started(url, application, settings)))
    except (ConfigError, CatalogError, APIError) as error:
        raise fail(error) from None
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise typer.Exit(130) from None


def log_to_stderr(settings: Settings) -> None:
    """Log lines at the configured level, in the configured format."""
    handler: logging.Handler
    if settings.log_format == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(JSONFormatter(prompts=settings.log_prompts))
    elif not err.is_terminal:
        # Whoever gathers lines wants each record in one, not folded to a screen's width.
        handler = logging.StreamHandler()
        handler.setFormatter(LogFormatter(prompts=settings.log_prompts, stamped=True))
    else:
        handler = RichHandler(console=err, show_path=False, omit_repeated_times=False, log_time_format="[%X]")
        handler.setFormatter(LogFormatter(prompts=settings.log_prompts))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("tts_server").setLevel(settings.log_level.upper())


def started(url: str, application: "FastAPI", settings: Settings) -> None:
    """What answers, within which limits, and where."""
    from tts_server.startup import tell  # noqa: PLC0415

    tell(application, err)
    say_ready(url, settings, application.state.service.engine.model)


def say_ready(url: str, settings: Settings, model: str) -> None:
    """The one line that a user waits for."""
    if not settings.is_local and not settings.has_keys:
        err.print("[yellow]warning:[/] listening beyond this machine without API keys; see --api-key-file")
    at = "" if url == DEFAULT_URL else f" --url {url}"
    key = " --api-key …" if settings.has_keys else ""
    out.print(
        f'ready: {model} at {url}/v1 — try: tts-server chat "What is 17 * 23?" --strategy best_of_n{at}{key}',
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


DEFAULT_URL = "http://127.0.0.1:8000"


@app.command()
def chat(
    question: str,
    strategy: Annotated[str | None, typer.Option(help="A name of `tts-server strategies`.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="An option of the strategy, as name=value.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of one answer.")] = None,
    url: URL = DEFAULT_URL,
    api_key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="The server's key.")] = None,
) -> None:
    """Asks a running server one question and shows the answer as it comes."""
    tts: dict[str, Any] = {"strategy": strategy} if strategy else {}
    for pair in option or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise fail(f"an option is written name=value, got {pair!r}")
        tts[name] = json_or_text(value)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=httpx.Timeout(600, connect=5)) as client:
        try:
            model = answered(client.get("/v1/models")).json()["data"][0]["id"]
            body: dict[str, Any] = {
                "model": model,
                "messages": [{"role": "user", "content": question}],
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            body |= {"tts": tts} if tts else {}
            body |= {"max_tokens": max_tokens} if max_tokens else {}
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                show(answered(response))
        except httpx.HTTPError as error:
            raise fail(f"no answer from {url}: {error}; is the server running? start it with: make serve") from None


def json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def answered(response: httpx.Response) -> httpx.Response:
    """The response, if it is not an error."""
    if response.is_error:
        response.read()
        try:
            said = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            said = response.text[:300]
        raise fail(f"{response.status_code}: {said}")
    return response


def show(response: httpx.Response) -> None:
    """Prints a stream: progress dimmed, then the answer, then what it cost."""
    told: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    for line in response.iter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        chunk = json.loads(line.removeprefix("data: "))
        if "error" in chunk:
            raise fail(chunk["error"]["message"])
        told, usage = chunk.get("tts") or told, chunk.get("usage") or usage
        for choice in chunk["choices"]:
            out.print(choice["delta"].get("reasoning", ""), end="", style="dim", markup=False, highlight=False)
            out.print(choice["delta"].get("content", ""), end="", markup=False, highlight=False)
    out.print()
    if told:
        votes = ", ".join(f"{v['answer']} ×{v['count']}" for v in told["votes"])
        table = Table(show_header=False, box=None, style="dim")
        for name, value in {
            "answer": told["answer"],
            "votes": votes or None,
            "score": told["score"],
            "tokens": f"{usage.get('completion_tokens')} generated, {told['usage']['prm_tokens']} scored",
            "seconds": round(told["usage"]["wall_s"], 2),
        }.items():
            if value is not None:
                table.add_row(name, str(value))
        out.print(table)


@app.command()
def strategies() -> None:
    """Lists the strategies and their options."""
    table = Table(Column("strategy", no_wrap=True), "what it does", "options", "paper")
    for entry in strategy_registry.registry().values():
        table.add_row(entry.name, entry.description, ", ".join(entry.options.model_fields), entry.paper)
    out.print(table)


@models.command("list")
def list_models() -> None:
    """Lists the models of the catalog, and which are here already."""
    from tts_server.catalog import entries  # noqa: PLC0415

    table = Table(Column("name", no_wrap=True), "what it is", "license", "size", "here")
    for entry in entries():
        here = "yes" if entry.present else "no"
        table.add_row(entry.name, entry.description, entry.license, f"{entry.size / 1e6:.0f} MB", here)
    out.print(table)


@models.command("pull")
def pull_model(name: str) -> None:
    """Fetches a model of the catalog, so that `serve` starts without the network."""
    from tts_server.catalog import CatalogError, pull  # noqa: PLC0415

    try:
        out.print(f"{name} is at {pull(name)}", soft_wrap=True)
    except CatalogError as error:
        raise fail(error) from None


if __name__ == "__main__":
    sys.exit(app())
