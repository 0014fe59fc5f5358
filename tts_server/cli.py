"""The command line: `tts-server serve | chat | strategies | models | traces`."""

import asyncio
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Column, Table

from prm.families import FAMILIES
from tts_server import cli_traces
from tts_server.cli_chat import DEFAULT_URL, chat
from tts_server.cli_strategies import strategies
from tts_server.terminal import err, fail

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tts_server.config import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False)
models = typer.Typer(no_args_is_help=True, help="The models that the server knows by name.")
out = Console()

PRM_HELP = (
    "judge, generative, fake or none; or [KIND:]MODEL, a directory, hub id or name of `models list` of a KIND that is "
    "told by the model or is one of: " + ", ".join(FAMILIES) + ", generative, lora."
)


def say_version(wanted: bool) -> None:
    """Ends the command with the installed version."""
    if wanted:
        typer.echo(f"tts-server {version('tts-server')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Spends inference compute on better answers."""


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
    from tts_server.config import ConfigError, load  # noqa: PLC0415
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


def log_to_stderr(settings: "Settings") -> None:
    """Log lines at the configured level, in the configured format."""
    from tts_server.logs import JSONFormatter, LogFormatter  # noqa: PLC0415

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


def started(url: str, application: "FastAPI", settings: "Settings") -> None:
    """What answers, within which limits, and where."""
    from tts_server.startup import tell  # noqa: PLC0415

    tell(application, err)
    say_ready(url, settings, application.state.service.engine.model)


def say_ready(url: str, settings: "Settings", model: str) -> None:
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


app.command()(chat)
app.command()(strategies)
app.add_typer(models, name="models")
app.add_typer(cli_traces.app, name="traces")


if __name__ == "__main__":
    sys.exit(app())
