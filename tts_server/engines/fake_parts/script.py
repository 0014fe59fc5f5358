"""What the fake engine says: a script, and the one that it has where nobody gives it another."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from strategies.core.contracts import Message, Sampling, text_of
from tts_server.engines.fake_parts.tokens import decode

_DEPTH = 16
"""Of a nested schema's instance."""


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """What the script sees of one sample."""

    text: str
    """The whole prompt as text: the rendered chat, or the decoded token ids."""
    messages: tuple[Message, ...]
    """Empty when the prompt came as token ids."""
    sampling: Sampling
    index: int
    rng: random.Random
    """Seeded by the request's seed, its prompt and the index; by the engine's where the request has none."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """That the chat template shows, as OpenAI writes them."""


@dataclass(frozen=True, slots=True)
class FakeReply:
    """What the script says: a text, and if it likes the probabilities of the first token's rivals."""

    text: str
    rivals: Mapping[str, float] = field(default_factory=dict)
    refuses: bool = False
    """Whether it is said in place of an answer."""
    filtered: bool = False
    """Whether a content filter ends it."""


Script = Callable[[FakeRequest], str | FakeReply]


def default_script(request: FakeRequest) -> FakeReply:
    """Repeats the question and guesses a digit, mostly the same one.

    Gives a verdict on request, an instance of a schema, and calls the tools that the last message names.
    """
    said = text_of(request.messages[-1]) if request.messages else request.text
    if "Yes or No" in said:
        # What a model gives its next token depends on the prompt alone, not on the seed.
        sure = random.Random(request.text).random()
        labels = [decode((token,)) for token in request.sampling.logprob_token_ids] or ["Yes", "No"]
        rivals = dict(zip(labels, (sure, 1 - sure), strict=False))
        return FakeReply(max(rivals, key=rivals.__getitem__), rivals)
    structured = request.sampling.structured
    called = [tool for tool in request.tools if tool["function"]["name"] in said]
    if called and (structured is None or structured["type"] == "structural_tag"):
        return FakeReply("\n".join(map(_call, called)))
    if structured and structured["type"] == "choice":
        return FakeReply(request.rng.choice(structured["choice"]))
    if structured:
        return FakeReply(json.dumps(instance(schema_in(structured), request.rng)))
    guess = len(said) % 10 if request.rng.random() < 0.6 else request.rng.randrange(10)
    return FakeReply(f"You said: {said[:200]}\n\nI think about it for a while.\n\nThe answer is \\boxed{{{guess}}}.")


def schema_in(response_format: Mapping[str, Any]) -> Any:
    """The schema of OpenAI's `response_format`, or the first one among the elements of a structural tag."""
    for element in response_format.get("format", {}).get("elements", ()):
        if "json_schema" in element:
            return element["json_schema"]
    schema = response_format.get("json_schema", {}).get("schema")
    return {"type": "object"} if schema is None else schema


def instance(schema: Any, rng: random.Random) -> Any:
    """A value that follows a schema, as far as its keywords are the common ones."""
    return _Instance(schema, rng).of(schema, 0)


@dataclass(frozen=True, slots=True)
class _Instance:
    root: Any
    rng: random.Random

    def of(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict) or depth > _DEPTH:
            return None
        if "$ref" in schema:
            return self.of(self._target(schema["$ref"]), depth + 1)
        if "const" in schema or "enum" in schema:
            return schema["const"] if "const" in schema else self.rng.choice(schema["enum"])
        if branches := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
            own = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf", "allOf")}
            return self.of(own | (branches[0] if isinstance(branches[0], dict) else {}), depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else "null")
        return self._of_type(kind[0] if isinstance(kind, list) else kind, schema, depth)

    def _of_type(self, kind: str, schema: dict[str, Any], depth: int) -> Any:
        match kind:
            case "object":
                wanted = schema.get("required") or []
                known = schema.get("properties") or {}
                return {name: self.of(known.get(name, {}), depth + 1) for name in dict.fromkeys([*known, *wanted])}
            case "array":
                return [self.of(schema.get("items", {}), depth + 1) for _ in range(schema.get("minItems", 1))]
            case "integer" | "number":
                least = schema.get("minimum", 0)
                return least + self.rng.randrange(min(10, int(schema.get("maximum", least + 9) - least) + 1))
            case "string":
                return "x" * max(schema.get("minLength", 1), 1)
            case "boolean":
                return self.rng.random() < 0.5
            case _:
                return None

    def _target(self, ref: str) -> Any:
        target = self.root
        for name in ref.removeprefix("#").strip("/").split("/") if ref.strip("#/") else []:
            target = target.get(name) if isinstance(target, dict) else None
        return target


def _call(tool: Mapping[str, Any]) -> str:
    function = tool["function"]
    schema = function.get("parameters") or {"type": "object"}
    call = {"name": function["name"], "arguments": instance(schema, random.Random(function["name"]))}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
