"""The openai package 2.x, which LiteLLM still needs. Prints what came back as JSON."""

import asyncio
import json
import sys
from typing import Any

import openai

QUESTION: Any = [{"role": "user", "content": "What is 2 + 2?"}]
SEARCH = {"tts": {"strategy": "best_of_n", "n": 4}}


def failure(client: openai.OpenAI, **fields: Any) -> dict[str, Any]:
    try:
        client.chat.completions.create(**{"model": "fake", "messages": QUESTION, **fields})
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "code": error.code, "param": error.param, "said": str(error)}
    raise SystemExit("nothing was refused")


async def together(url: str) -> int:
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        asked = (client.chat.completions.create(model="fake", messages=QUESTION) for _ in range(4))
        return len([reply for reply in await asyncio.gather(*asked) if reply.choices[0].message.content])


def main(url: str) -> dict[str, Any]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        plain = client.chat.completions.create(model="fake", messages=QUESTION, extra_body=SEARCH)
        stream = client.chat.completions.create(
            model="fake@best_of_n", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk.model_dump() for chunk in stream]
        return {
            "version": openai.__version__,
            "models": [model.id for model in client.models.list()],
            "one": client.models.retrieve("fake@best_of_n").id,
            "plain": plain.model_dump(),
            "chunks": chunks,
            "unknown": failure(client, model="nobody"),
            "wrong": failure(client, temperature=3),
            "overflow": failure(client, messages=[{"role": "user", "content": "word " * 40_000}]),
            "together": asyncio.run(together(url)),
        }


print(json.dumps(main(sys.argv[1])))
