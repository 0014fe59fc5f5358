"""`tts-bench`: every command of the benchmarks. Each is loaded when it is called, because some need much."""

from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

from bench.failures import in_sentences

COMMANDS = {
    "run": ("bench.running.run:command", "Asks a running server every problem of a task."),
    "repeat": ("bench.running.run:repeat", "Runs again what a run's manifest describes."),
    "calibrate": ("bench.calibration.calibrate:command", "Fits the table by which compute_optimal decides."),
    "rescore": ("bench.rescoring.rescore:command", "Evaluates stored samples again, without a model."),
    "report": ("bench.reporting.report:command", "Writes a page, tables and pictures of runs."),
    "cost": ("bench.reporting.figures:command", "Says what runs cost in tokens, time and dollars."),
    "compare": ("bench.reporting.compare:command", "Compares a run with a log of another harness."),
    "prm-data": ("bench.prm_training.prm_data:command", "Makes training data for a reward model."),
    "prm-train": ("bench.prm_training.train:command", "Trains a reward model."),
    "simulate": ("bench.simulation.simulate:main", "Compares all strategies in a toy world."),
}
"""Name → where its function is, and its line of help."""

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def say_version(wanted: bool) -> None:
    """Ends the command with the installed version."""
    if wanted:
        typer.echo(f"tts-bench {version('tts-server')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Honest accuracy against compute, of a running server or of stored samples."""


def _add(name: str, target: str, line: str) -> None:
    @app.command(
        name,
        help=line,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def command(context: typer.Context) -> None:
        module, _, function = target.partition(":")
        inner = typer.Typer(add_completion=False)
        inner.command(name)(getattr(import_module(module), function))
        with in_sentences():
            inner(args=context.args, prog_name=f"tts-bench {name}")


for _name, (_target, _line) in COMMANDS.items():
    _add(_name, _target, _line)


if __name__ == "__main__":
    app()
