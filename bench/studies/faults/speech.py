"""What the stand-in says, and how `vllm serve` writes it."""

import math
import random
from typing import Any

Json = dict[str, Any]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def rendered(body: Json) -> str:
    """Its chat template."""
    text = "".join(f"<{turn['role']}>{turn['content']}\n" for turn in body["messages"])
    if body.get("continue_final_message"):
        return text.removesuffix("\n")
    return text + "<assistant>" if body.get("add_generation_prompt", True) else text


def solution(rng: random.Random) -> str:
    """Some steps and an answer."""
    steps = []
    for _ in range(rng.randrange(3)):
        a, b = rng.randrange(90), rng.randrange(90)
        steps.append(f"First {a} and {b} make {a + b}.")
    return "\n\n".join([*steps, f"The answer is \\boxed{{{rng.choice('4445')}}}."])


def limited(text: str, body: Json) -> tuple[str, str, str | None]:
    """The text as far as it may go, why it ends, and at which stop string."""
    stop = None
    stops = body.get("stop") or []
    found = [(at, s) for s in ([stops] if isinstance(stops, str) else stops) if (at := text.find(s)) >= 0]
    if found:
        at, stop = min(found)
        text = text[: at + len(stop) if body.get("include_stop_str_in_output") else at]
    limit = body.get("max_tokens") or 16
    return (text[:limit], "length", None) if len(text) > limit else (text, "stop", stop)


def logprobs(piece: str, body: Json, rng: random.Random) -> Json | None:
    """As vLLM tells them, where they are asked for."""
    if (k := body.get("logprobs")) is None:
        return None
    named = body.get("return_tokens_as_token_ids")
    name = (lambda char: f"token_id:{ord(char)}") if named else str
    asked = body.get("logprob_token_ids")
    rivals = list(map(chr, asked)) if asked else list("0123456789"[:k])
    tops = []
    for char in piece:
        shares = [rng.uniform(0.05, 1) for _ in rivals]
        tops.append({name(char): -9.0} | {name(r): math.log(s / 2) for r, s in zip(rivals, shares, strict=True)})
    return {"tokens": [name(c) for c in piece], "token_logprobs": [-0.5] * len(piece), "top_logprobs": tops}
