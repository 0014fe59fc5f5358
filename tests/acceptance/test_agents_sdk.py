"""OpenAI's Agents SDK, unmodified, runs an agent with one tool against a server as its user starts it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from served import served

agents = pytest.importorskip("agents", reason="pip install openai-agents")

MODELS = ["fake", "fake@self_consistency"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served("--engine", "fake", "--prm", "fake") as (url, _):
        yield url


class Forecast(BaseModel):
    """What an agent answers with."""

    city: str
    degrees: int


class World:
    """An agent whose one tool writes down what it is asked."""

    def __init__(self, url: str, model: str, **options: Any) -> None:
        self.cities: list[str] = []

        @agents.function_tool  # type: ignore[untyped-decorator]
        def get_weather(city: str) -> str:
            """Tells a city's weather."""
            self.cities.append(city)
            return "It is sunny."

        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        responses = agents.OpenAIResponsesModel(model, self.client)
        self.agent = agents.Agent("weather", instructions="Help.", model=responses, tools=[get_weather], **options)

    def run(self, work: Any) -> Any:
        async def main() -> Any:
            agents.set_tracing_disabled(True)
            async with self.client:
                return await work(self.agent)

        return asyncio.run(main())


@pytest.mark.parametrize("model", MODELS)
def test_an_agent_calls_its_tool_and_answers(url: str, model: str) -> None:
    world = World(url, model)
    result = world.run(lambda agent: agents.Runner.run(agent, "Use get_weather for me."))
    assert len(world.cities) == 1
    assert result.final_output.startswith("You said: It is sunny.")
    assert len(result.raw_responses) == 2
    assert result.context_wrapper.usage.output_tokens > 0


@pytest.mark.parametrize("model", MODELS)
def test_an_agent_streams(url: str, model: str) -> None:
    world = World(url, model)

    async def work(agent: Any) -> tuple[str, Any]:
        result = agents.Runner.run_streamed(agent, "Use get_weather for me.")
        text = ""
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                text += event.data.delta
        return text, result.final_output

    text, final = world.run(work)
    assert len(world.cities) == 1
    assert text == final
    assert final.startswith("You said: It is sunny.")


def test_an_agent_goes_on_with_what_was_said(url: str) -> None:
    world = World(url, "fake@best_of_n")

    async def work(agent: Any) -> Any:
        first = await agents.Runner.run(agent, "Use get_weather for me.")
        return await agents.Runner.run(agent, [*first.to_input_list(), {"role": "user", "content": "Thanks."}])

    assert world.run(work).final_output.startswith("You said: Thanks.")
    assert len(world.cities) == 1


def test_an_agent_answers_in_a_type(url: str) -> None:
    world = World(url, "fake", output_type=Forecast)
    world.agent.tools.clear()
    result = world.run(lambda agent: agents.Runner.run(agent, "How is the weather?"))
    assert isinstance(result.final_output, Forecast)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_calls_its_tool_and_answers_in_a_type(url: str, model: str, streamed: bool) -> None:
    world = World(url, model, output_type=Forecast)

    async def work(agent: Any) -> Any:
        if not streamed:
            return (await agents.Runner.run(agent, "Use get_weather for me.")).final_output
        result = agents.Runner.run_streamed(agent, "Use get_weather for me.")
        async for _ in result.stream_events():
            pass
        return result.final_output

    assert isinstance(world.run(work), Forecast)
    assert len(world.cities) == 1


def test_an_agent_does_so_by_chats_too(url: str) -> None:
    world = World(url, "fake", output_type=Forecast)
    world.agent.model = agents.OpenAIChatCompletionsModel("fake", world.client)
    result = world.run(lambda agent: agents.Runner.run(agent, "Use get_weather for me."))
    assert isinstance(result.final_output, Forecast)
    assert len(world.cities) == 1


def test_an_agent_learns_what_was_refused(url: str) -> None:
    world = World(url, "fake", model_settings=agents.ModelSettings(store=True))
    with pytest.raises(openai.BadRequestError, match="store"):
        world.run(lambda agent: agents.Runner.run(agent, "Hello."))
