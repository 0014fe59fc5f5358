"""The command line: `tts-server serve | chat | strategies | models | traces`."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from prm.families.detect import FAMILIES
from tts_server.cli import traces as cli_traces
from tts_server.cli.chat import chat
from tts_server.cli.strategies import strategies
from tts_server.cli.terminal import fail, output, own_console

app = typer.Typer(no_args_is_help=True, add_completion=False)
models = typer.Typer(no_args_is_help=True, help="The models that the server knows by name.")

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
    from tts_server.startup.loading import Loading, ended_by_signals  # noqa: PLC0415

    loading = Loading(own_console())
    with ended_by_signals(loading):
        from tts_server.cli.serve import run  # noqa: PLC0415

        run(
            loading,
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


@models.command("list")
def list_models() -> None:
    """Lists the models of the catalog, and which are here already."""
    from tts_server.weights.catalog import entries  # noqa: PLC0415

    table = Table(Column("name", no_wrap=True), "what it is", "license", "size", "here")
    for entry in entries():
        here = "yes" if entry.present else "no"
        table.add_row(entry.name, entry.description, entry.license, f"{entry.size / 1e6:.0f} MB", here)
    output().print(table)


@models.command("pull")
def pull_model(name: str) -> None:
    """Fetches a model of the catalog, so that `serve` starts without the network."""
    from tts_server.weights.catalog import CatalogError, pull  # noqa: PLC0415

    try:
        output().print(f"{name} is at {pull(name)}", soft_wrap=True)
    except CatalogError as error:
        raise fail(error) from None


app.command()(chat)
app.command()(strategies)
app.add_typer(models, name="models")
app.add_typer(cli_traces.app, name="traces")


if __name__ == "__main__":
    sys.exit(app())
