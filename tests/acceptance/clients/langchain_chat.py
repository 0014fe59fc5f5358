"""langchain-openai. Prints what came back as JSON."""

import asyncio
import json
import sys
from typing import Any

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Point(BaseModel):
    """A place with a label."""

    x: int
    label: str


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


async def streamed(chat: ChatOpenAI) -> dict[str, Any]:
    whole: Any = None
    pieces = 0
    async for chunk in chat.astream("What is 2 + 2?"):
        whole = chunk if whole is None else whole + chunk
        pieces += 1
    return {"text": whole.content, "pieces": pieces, "usage": whole.usage_metadata}


def main(url: str) -> dict[str, Any]:
    given: Any = {"model": "fake", "base_url": url, "api_key": "none", "max_retries": 0, "stream_usage": True}
    search = ChatOpenAI(**given, extra_body={"tts": {"strategy": "best_of_n", "n": 4}})
    plain = ChatOpenAI(**given, temperature=0.5, max_completion_tokens=20, stop=["zzz"], seed=3)
    answer = search.invoke([("system", "Be brief."), ("user", "What is 2 + 2?")])
    called: Any = plain.bind_tools([get_weather]).invoke("Use get_weather for Oslo.")
    point = plain.with_structured_output(Point, method="json_schema").invoke("Where?")
    return {
        "text": answer.content,
        "usage": answer.usage_metadata,
        "finish": answer.response_metadata["finish_reason"],
        "stream": asyncio.run(streamed(search)),
        "batch": [reply.content for reply in plain.batch(["one", "two", "three"])],
        "calls": called.tool_calls,
        "point": point.model_dump() if isinstance(point, Point) else point,
    }


print(json.dumps(main(sys.argv[1])))
