"""LiteLLM, by its `openai/` and its `hosted_vllm/` provider. Prints what came back as JSON."""

import asyncio
import json
import sys
from typing import Any

import litellm

QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def main(url: str, provider: str) -> dict[str, Any]:
    given: dict[str, Any] = {"model": f"{provider}/fake", "api_base": url, "api_key": "none", "num_retries": 0}
    search = {"extra_body": {"tts": {"strategy": "best_of_n", "n": 4}}}

    def failure(**fields: Any) -> str:
        try:
            litellm.completion(**{**given, "messages": QUESTION, **fields})
        except Exception as error:
            return type(error).__name__
        raise SystemExit("nothing was refused")

    async def together() -> int:
        asked = (litellm.acompletion(messages=QUESTION, **given) for _ in range(3))
        return len([reply for reply in await asyncio.gather(*asked) if reply.choices[0].message.content])

    plain = litellm.completion(messages=QUESTION, **given, **search)
    chunks = list(
        litellm.completion(messages=QUESTION, stream=True, stream_options={"include_usage": True}, **given, **search)
    )
    called = litellm.completion(
        messages=[{"role": "user", "content": "Use get_weather for Oslo."}], tools=[WEATHER], **given
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    return {
        "text": plain.choices[0].message.content,
        "usage": plain.usage.model_dump(),
        "streamed": "".join(delta.content or "" for delta in deltas),
        "reasoning": "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas),
        "stream_usage": [chunk.usage.model_dump() for chunk in chunks if getattr(chunk, "usage", None)],
        "finish": called.choices[0].finish_reason,
        "call": called.choices[0].message.tool_calls[0].function.name,
        "unknown": failure(model=f"{provider}/nobody"),
        "wrong": failure(temperature=3),
        "overflow": failure(messages=[{"role": "user", "content": "word " * 40_000}]),
        "together": asyncio.run(together()),
    }


print(json.dumps({provider: main(sys.argv[1], provider) for provider in ("openai", "hosted_vllm")}))
