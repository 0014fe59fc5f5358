"""`tts-server chat`: questions to a running server, over the SDK and nothing else.

The answer goes to standard output, and all that is said about it to standard error.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tts_server.cli.terminal import fail, samples

if TYPE_CHECKING:
    from tts_server.client import ChatResult, Client, TTSError

DEFAULT_URL = "http://127.0.0.1:8000"
URL = Annotated[str, typer.Option(help="Where the server listens, with or without /v1.")]
Key = Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="The server's key.")]
Pairs = list[str] | None
SHOWN_VOTES, SHOWN_CHARS = 5, 40

err = Console(stderr=True)


def chat(
    question: Annotated[
        list[str] | None,
        typer.Argument(help="The question; - reads it from standard input. Without one a conversation begins."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A name of /v1/models; the server's own if not given.")] = None,
    preset: Annotated[str | None, typer.Option(help="A preset of the server's configuration.")] = None,
    strategy: Annotated[str | None, typer.Option(help="A name of `tts-server strategies`.")] = None,
    option: Annotated[Pairs, typer.Option("--option", "-o", help="An option of the strategy, as name=value.")] = None,
    effort: Annotated[str | None, typer.Option(help="low, medium, high or xhigh: how much may be spent.")] = None,
    budget: Annotated[
        Pairs,
        typer.Option(
            help="A limit of the search, as name=value: max_samples, max_tokens, max_prm_tokens or deadline_s."
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the samples.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of one answer.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON, and nothing else.")] = False,
    url: URL = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Asks a running server and shows the answer as it comes, or holds a conversation with it."""
    from tts_server.client import TTS, Client, TTSError  # noqa: PLC0415

    options = pairs("option", option) | ({"budget": limits} if (limits := pairs("budget", budget)) else {})
    fields = {"reasoning_effort": effort, "temperature": temperature, "max_tokens": max_tokens}
    turns = [{"role": "system", "content": system}] if system else []
    try:
        with Client(url, api_key, max_retries=0) as client:
            name = model or client.models()[0].id
            talk = Talk(
                client,
                f"{name}@{preset}" if preset else name,
                TTS(strategy, **options) if strategy or options else None,
                {name: value for name, value in fields.items() if value is not None},
                as_json,
                turns,
            )
            if not question and sys.stdin.isatty():
                converse(talk)
            else:
                talk.ask(text_of(question or ["-"]))
    except ValueError as error:
        raise fail(error) from None
    except TTSError as error:
        raise fail(sentence(error)) from None
    except KeyboardInterrupt:
        raise cancelled() from None


@dataclass(slots=True)
class Talk:
    """A conversation: what it is asked with, and its turns so far."""

    client: "Client"
    model: str
    tts: Any
    fields: Mapping[str, Any]
    as_json: bool = False
    turns: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, question: str) -> None:
        """Asks and shows the answer; a question that fails leaves no turn behind.

        Raises:
            TTSError: the server refused or failed, or there is none.
        """
        from tts_server.cli.live import Live  # noqa: PLC0415
        from tts_server.client import Delta, Progress  # noqa: PLC0415

        turns = [*self.turns, {"role": "user", "content": question}]
        text = ""
        with (
            Live(err) as live,
            self.client.stream(turns, model=self.model, tts=self.tts, live=True, **self.fields) as stream,
        ):
            for event in stream:
                if isinstance(event, Progress):
                    live.tell(event.text, event.search)
                elif isinstance(event, Delta) and not self.as_json:
                    live.close()
                    text += event.text
                    typer.echo(event.text, nl=False)
            result = stream.result()
        if self.as_json:
            typer.echo(json.dumps(result.raw, indent=2, ensure_ascii=False))
        else:
            typer.echo("" if text.endswith("\n") else "\n", nl=False)
            err.print(closing(result))
        self.turns = [*turns, {"role": "assistant", "content": result.text}]


def converse(talk: Talk) -> None:
    """One question after the other, each with what was said before, until the end of the input."""
    from tts_server.client import TTSError  # noqa: PLC0415

    err.print(f"{talk.model}: ask away; Ctrl-C stops an answer, Ctrl-D ends.", style="dim", markup=False)
    while True:
        try:
            question = line("> ")
        except (EOFError, KeyboardInterrupt):
            err.print()
            return
        if not question.strip():
            continue
        try:
            talk.ask(question)
        except TTSError as error:
            fail(sentence(error))
        except KeyboardInterrupt:
            cancelled()


def line(prompt: str) -> str:
    """A line that a person writes, with the keys that shells have."""
    # Windows has no such module, and lines that can be edited without it.
    with suppress(ImportError):
        import_module("readline")
    return input(prompt)


def text_of(words: Sequence[str]) -> str:
    """The question: the words, or what standard input holds.

    Raises:
        ValueError: it is empty.
    """
    text = sys.stdin.read().strip() if list(words) == ["-"] else " ".join(words)
    if not text:
        raise ValueError("the question is empty")
    return text


def pairs(name: str, given: Pairs) -> dict[str, Any]:
    """Options that are written name=value; a value that is JSON is that, any other is a text."""
    said = {}
    for pair in given or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise fail(f"--{name} is written name=value, got {pair!r}")
        try:
            said[key] = json.loads(value)
        except ValueError:
            said[key] = value
    return said


def sentence(error: "TTSError") -> str:
    """What went wrong, and what helps."""
    from tts_server.client import APIError, ConnectionFailed, StreamCut, TimedOut  # noqa: PLC0415

    if isinstance(error, APIError):
        return f"{error.status}: {error}" if error.status else str(error)
    if isinstance(error, ConnectionFailed) and not isinstance(error, StreamCut | TimedOut):
        return f"no answer from {error}; is the server running? start it with: tts-server serve"
    return str(error)


def cancelled() -> typer.Exit:
    """One line; the connection is closed, and with it the server ends the search."""
    if sys.stdout.isatty():
        typer.echo()
    err.print("cancelled", style="yellow")
    return typer.Exit(130)


def closing(result: "ChatResult") -> Table:
    """How the answer came about and what it cost."""
    table = Table(show_header=False, box=None, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts(result).items():
        table.add_row(name, value)
    return table


def facts(result: "ChatResult") -> dict[str, str]:
    """The rows of the closing table; those that have nothing to say are left out."""
    search, usage = result.tts, result.usage
    rows: dict[str, str | None] = {"ended": _ended(result)}
    if search:
        used = search.usage
        rows = {
            "strategy": search.strategy + (f", by {search.selector}" if search.selector else ""),
            "answer": search.answer and _short(search.answer),
            "votes": _votes(result),
            "score": _digits(search.score),
            "confidence": _digits(search.confidence),
            "decision": _decision(search.decision),
            **rows,
            "tokens": f"{used.completion_tokens} generated by {samples(search.samples)}, {used.prm_tokens} scored",
            "seconds": f"{used.wall_s:.1f}",
            "trace": search.trace_id,
        }
    elif usage:
        rows["tokens"] = f"{usage.completion_tokens} generated"
    return {name: value for name, value in rows.items() if value}


def _votes(result: "ChatResult") -> str | None:
    votes = result.tts.votes if result.tts else []
    total = sum(vote.count for vote in votes)
    told = [
        f"{_short(vote.answer or '(no answer)')} ×{vote.count}"
        + (f" of {total}" if place == 0 else "")
        + _weight(vote.weight, vote.count)
        for place, vote in enumerate(votes[:SHOWN_VOTES])
    ]
    if not told:
        return None
    return ", ".join(told) + (f", and {more} more" if (more := len(votes) - SHOWN_VOTES) > 0 else "")


def _weight(weight: float | None, count: int) -> str:
    """Said where it is not what a plain vote weighs."""
    return "" if weight is None or abs(weight - count) < 5e-4 else f" (weight {weight:.3f})"


def _decision(decision: Mapping[str, Any] | None) -> str | None:
    """What `compute_optimal` made of the question."""
    if not decision:
        return None
    options = ", ".join(f"{name}={value}" for name, value in decision.get("options", {}).items())
    said = [f"{decision.get('chosen')}{f' ({options})' if options else ''}, {decision.get('stop_reason')}"]
    said += [
        f"{name} {_digits(decision[key])}"
        for key, name in (("difficulty", "share right"), ("predicted_accuracy", "predicted accuracy"))
        if decision.get(key) is not None
    ]
    return "; ".join(said)


def _ended(result: "ChatResult") -> str | None:
    reason = result.choices[0].finish_reason if result.choices else None
    limit = result.tts and result.tts.stop_reason
    return f"{reason}, by the limit {limit}" if limit else reason


def _digits(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
