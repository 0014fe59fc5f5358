"""`tts-server serve`: from the settings to a server that answers, and what it says on its way."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import typer
from fastapi import FastAPI
from rich.console import Console
from rich.logging import RichHandler

from tts_server import raw_output
from tts_server.app import build_engine, build_prms, create_app
from tts_server.app_state import AppState
from tts_server.cli.chat import DEFAULT_URL
from tts_server.cli.terminal import fail, has_console_of_its_own
from tts_server.config import ConfigError, Settings, load
from tts_server.errors import APIError
from tts_server.logs import JSONFormatter, LogFormatter
from tts_server.observe.otel.environment import from_environment
from tts_server.server import new_event_loop, serve
from tts_server.startup.banner import tell
from tts_server.startup.loading import Loading
from tts_server.weights import progress
from tts_server.weights.catalog import CatalogError

QUESTION = (
    "Grace weighs 125 pounds. Alex weighs 2 pounds less than 4 times what Grace weighs. "
    "What are their combined weights in pounds?"
)
BY_VOTE = "--strategy self_consistency -o n=16 -o system_prompt=boxed"
"""What is proposed first shows what a search is for: the default model gives the right answer, 623, in fewer than half
of its samples, and another wrong one each time, so that the vote of 16 finds it."""


def run(loading: Loading, config: Path | None, **given: Any) -> None:
    """Serves until a signal.

    Args:
        loading: shows what is done until then; a signal meanwhile is its affair.
        config: the TOML file.
        given: settings that win over it.
    """
    try:
        settings = load(config, **given)
        loading.as_log = settings.log_format == "json"
        log_to(loading.console, settings)
        # At the level debug, libraries say what they have to say as it comes.
        raw_output.held.set(has_console_of_its_own(loading.console) and settings.log_level != "debug")
        progress.shown.set(loading)
        with loading:
            loading.begin("importing the engine")
            engine = build_engine(settings)
            loading.begin("reading the reward models' files")
            app = create_app(engine, build_prms(settings, engine), settings, from_environment())
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(serve(app, settings, lambda url: started(url, app, settings, loading), loading))
    except (ConfigError, CatalogError, APIError) as error:
        if loading.signal:
            raise typer.Exit(loading.code) from None
        raise fail(error) from None
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise typer.Exit(loading.code) from None


def log_to(console: Console, settings: Settings) -> None:
    """Log lines at the configured level, in the configured format."""
    handler: logging.Handler
    if settings.log_format == "json":
        handler = logging.StreamHandler(console.file)
        handler.setFormatter(JSONFormatter(prompts=settings.log_prompts))
    elif not console.is_terminal:
        # Whoever gathers lines wants each record in one, not folded to a screen's width.
        handler = logging.StreamHandler(console.file)
        handler.setFormatter(LogFormatter(prompts=settings.log_prompts, stamped=True))
    else:
        handler = RichHandler(console=console, show_path=False, omit_repeated_times=False, log_time_format="[%X]")
        handler.setFormatter(LogFormatter(prompts=settings.log_prompts))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("tts_server").setLevel(settings.log_level.upper())


def started(url: str, app: FastAPI, settings: Settings, loading: Loading) -> None:
    """What answers, within which limits, and where."""
    loading.close()
    tell(app, loading.console)
    say_ready(url, settings, AppState.of(app).service.engine.model, loading.console)


def say_ready(url: str, settings: Settings, model: str, console: Console) -> None:
    """The one line that a user waits for, on standard output; a warning goes to the console."""
    if not settings.is_local and not settings.has_keys:
        console.print("[yellow]warning:[/] listening beyond this machine without API keys; see --api-key-file")
    at = "" if url == DEFAULT_URL else f" --url {url}"
    key = " --api-key …" if settings.has_keys else ""
    Console().print(
        f'ready: {model} at {url}/v1 — try: tts-server chat "{QUESTION}" {BY_VOTE}{at}{key}',
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
