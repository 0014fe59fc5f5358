"""Request to task, strategy and budget: nothing that a client sent is lost on the way."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from serving import ask, body, serving

import strategies
from prm import FakePRM
from strategies.core.account import Budget
from strategies.core.contracts import Chunk, Prompt, Sampling, TokenIds
from tts_server.config import BudgetConfig, Preset, RequestLimit, Settings
from tts_server.engines.fake import FakeEngine
from tts_server.errors import InvalidRequest
from tts_server.planning.plan import budget_of, choose, plan
from tts_server.planning.service import Service
from tts_server.schema.chat import ChatRequest

Call = tuple[Prompt, Sampling, int]
Check = Callable[[Prompt, Sampling, int], object]

SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}

TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}

REACH: dict[str, tuple[Any, Check]] = {
    "messages": ([{"role": "user", "content": "one"}], lambda p, s, n: "one" in p.messages[-1]["content"]),
    "n": (2, lambda p, s, n: n >= 2),
    "max_completion_tokens": (7, lambda p, s, n: s.max_tokens == 7),
    "max_tokens": (8, lambda p, s, n: s.max_tokens == 8),
    "temperature": (0.3, lambda p, s, n: s.temperature == 0.3),
    "top_p": (0.4, lambda p, s, n: s.top_p == 0.4),
    "presence_penalty": (0.5, lambda p, s, n: s.presence_penalty == 0.5),
    "frequency_penalty": (0.6, lambda p, s, n: s.frequency_penalty == 0.6),
    "seed": (9, lambda p, s, n: s.seed is not None),
    "stop": (["§"], lambda p, s, n: "§" in s.stop),
    # A strategy may ask for more than the client, for its own use.
    "logprobs": (True, lambda p, s, n: s.logprobs is not None),
    "top_logprobs": (3, lambda p, s, n: s.logprobs is not None and s.logprobs >= 3),
    "response_format": (SCHEMA, lambda p, s, n: s.structured == SCHEMA),
    "structured_outputs": ({"choice": ["a"]}, lambda p, s, n: s.structured == {"type": "choice", "choice": ["a"]}),
    "include_stop_str_in_output": (True, lambda p, s, n: s.include_stop),
    "bad_words": (["x"], lambda p, s, n: s.bad_words == ("x",)),
    "allowed_token_ids": ([353], lambda p, s, n: s.allowed_token_ids == (353,)),
    "cache_salt": ("salt", lambda p, s, n: s.cache_salt == "salt"),
    "logit_bias": ({"5": -100}, lambda p, s, n: s.logit_bias == {5: -100}),
    "top_k": (11, lambda p, s, n: s.top_k == 11),
    "min_p": (0.1, lambda p, s, n: s.min_p == 0.1),
    "repetition_penalty": (1.2, lambda p, s, n: s.repetition_penalty == 1.2),
    "min_tokens": (2, lambda p, s, n: s.min_tokens == 2),
    "ignore_eos": (True, lambda p, s, n: s.ignore_eos),
    "stop_token_ids": ([3, 4], lambda p, s, n: s.stop_token_ids == (3, 4)),
    "chat_template_kwargs": ({"enable_thinking": False}, lambda p, s, n: p.template["enable_thinking"] is False),
    "tools": ([TOOL], lambda p, s, n: p.template["tools"] == [TOOL]),
    "tool_choice": ("required", lambda p, s, n: "find" in str(s.structured)),
    "parallel_tool_calls": (False, lambda p, s, n: s.structured["json_schema"]["schema"]["maxItems"] == 1),
    "add_generation_prompt": (False, lambda p, s, n: p.template["add_generation_prompt"] is False),
    "continue_final_message": (True, lambda p, s, n: p.template["continue_final_message"] is True),
}
NEEDS: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "tool_choice": {"tools": [TOOL]},
    "parallel_tool_calls": {"tools": [TOOL], "tool_choice": "required"},
}
TOOLS = {"tools", "tool_choice", "parallel_tool_calls"}
NOT_THE_ENGINE_S = {"model", "tts", "reasoning_effort", "include_reasoning", "stream", "stream_options"}
REFUSED = {"modalities"}

CALLED = {"name": "find", "arguments": "{}"}


class Recording(FakeEngine):
    """Remembers every call, and does not mind what the fake engine cannot do."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._prompts: dict[TokenIds, Prompt] = {}

    async def encode(self, prompt: Prompt) -> TokenIds:
        ids = await super().encode(prompt)
        self._prompts[ids] = prompt
        return ids

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        chat = next((p for ids, p in self._prompts.items() if prompt.token_ids[: len(ids)] == ids), prompt)
        self.calls.append((chat, sampling, n))
        plain: dict[str, Any] = {"structured": None, "bad_words": (), "allowed_token_ids": ()}
        async with aclosing(super().generate(prompt, replace(sampling, **plain), n)) as chunks:
            async for chunk in chunks:
                yield chunk


def test_every_field_of_a_request_is_in_the_table() -> None:
    assert REACH.keys() | NOT_THE_ENGINE_S | REFUSED == ChatRequest.model_fields.keys()


@pytest.mark.parametrize("strategy", strategies.registry())
def test_what_a_client_sent_reaches_the_engine_or_is_refused(strategy: str) -> None:
    async def main() -> None:
        engine = Recording()
        async with serving(engine, [FakePRM()]) as client:
            for field, (value, reached) in REACH.items():
                engine.calls.clear()
                response = await ask(client, **{field: value}, **NEEDS.get(field, {}), tts={"strategy": strategy})
                if response.status_code == 400:
                    error = response.json()["error"]
                    named = {"top_logprobs": "logprobs"}.get(field, "tools" if field in TOOLS else field)
                    assert (error["param"], error["code"]) == (named, "unsupported_parameter")
                    assert not engine.calls
                else:
                    assert response.status_code == 200, (field, response.text)
                    assert any(reached(*call) for call in engine.calls), field

    asyncio.run(main())


@pytest.mark.parametrize("strategy", ["single", "self_consistency", "best_of_n"])
def test_sampling_strategies_refuse_nothing(strategy: str) -> None:
    async def main() -> None:
        engine = Recording()
        async with serving(engine, [FakePRM()]) as client:
            # A choice goes neither with JSON nor with tools, a reward model with no salt.
            left_out = TOOLS | {"structured_outputs", "cache_salt"}
            sent = {field: value for field, (value, _) in REACH.items() if field not in left_out}
            everything: dict[str, Any] = sent | {"temperature": 0}
            response = await ask(client, **everything, tts={"strategy": strategy})
            assert response.status_code == 200, response.text
            (call,) = engine.calls
            assert call[1].temperature == 0
            # The newer name wins.
            assert call[1].max_tokens == 7

    asyncio.run(main())


def test_roles_and_their_extras_reach_the_template_as_they_were_sent() -> None:
    async def main() -> None:
        engine = Recording()
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "User: a"}], "name": "ann"},
            {"role": "assistant", "content": "b", "reasoning_content": "why"},
            {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": CALLED}]},
            {"role": "tool", "content": "c", "tool_call_id": "1"},
        ]
        async with serving(engine) as client:
            assert (await ask(client, messages=messages)).status_code == 200
        # Templates look for a thought under either name.
        messages[2] |= {"reasoning": "why"}
        assert list(engine.calls[0][0].messages) == messages

    asyncio.run(main())


def service(settings: Settings | None = None, engine: FakeEngine | None = None) -> Service:
    prm = FakePRM()
    return Service(engine or FakeEngine(), {prm.name: prm}, settings or Settings(), created=0)


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate(body(**fields))


PRESETS = Settings(
    presets={
        "quick": Preset.model_validate(
            {"strategy": "best_of_n", "n": 2, "selector": "majority", "budget": {"max_tokens": 50, "deadline_s": 9}}
        )
    },
    efforts={"minimal": "quick"},
    default_preset="self_consistency",
)


@pytest.mark.parametrize(
    ("fields", "strategy", "options"),
    [
        ({}, "self_consistency", {}),
        ({"tts": {}}, "self_consistency", {}),
        ({"tts": {"return_candidates": True}}, "self_consistency", {}),
        ({"tts": {"n": 3}}, "self_consistency", {"n": 3}),
        ({"tts": {"strategy": "single"}}, "single", {}),
        ({"model": "fake@single"}, "single", {}),
        ({"model": "fake@best_of_n", "tts": {"n": 4}}, "best_of_n", {"n": 4}),
        ({"model": "fake@best_of_n", "tts": {"strategy": "best_of_n"}}, "best_of_n", {}),
        ({"model": "fake@quick"}, "best_of_n", {"n": 2, "selector": "majority"}),
        ({"model": "fake@quick", "tts": {"n": 3}}, "best_of_n", {"n": 3, "selector": "majority"}),
        ({"model": "fake@quick", "reasoning_effort": "high"}, "best_of_n", {"n": 2, "selector": "majority"}),
        ({"reasoning_effort": "none"}, "single", {}),
        ({"reasoning_effort": "minimal"}, "best_of_n", {"n": 2, "selector": "majority"}),
        ({"reasoning_effort": "low"}, "compute_optimal", {}),
        ({"reasoning_effort": "medium"}, "compute_optimal", {}),
        ({"reasoning_effort": "high"}, "compute_optimal", {}),
        ({"reasoning_effort": "xhigh"}, "compute_optimal", {}),
        ({"reasoning_effort": "high", "tts": {"strategy": "single"}}, "single", {}),
        ({"reasoning_effort": "high", "tts": {"return_candidates": True}}, "compute_optimal", {}),
        ({"reasoning_effort": "high", "tts": {"exploration": 0.5}}, "compute_optimal", {"exploration": 0.5}),
    ],
    ids=str,
)
def test_which_strategy_answers(fields: dict[str, Any], strategy: str, options: dict[str, Any]) -> None:
    chosen = choose(request(**fields), service(PRESETS))
    assert (chosen.strategy, chosen.options) == (strategy, options)
    assert plan(request(**fields), service(PRESETS)).strategy == strategy


def test_a_request_s_budget_is_laid_over_its_preset_s_and_held_under_the_server_s() -> None:
    settings = PRESETS.model_copy(
        update={"max_request": RequestLimit(max_samples=10, max_tokens=100, max_prm_tokens=30, deadline_s=5)}
    )
    planned = plan(request(model="fake@quick", tts={"budget": {"max_tokens": 60, "max_samples": 3}}), service(settings))
    assert planned.account.budget == Budget(max_samples=3, max_tokens=60, max_prm_tokens=30, deadline_s=5)
    planned = plan(request(tts={"budget": {"max_tokens": 1000}}), service(settings))
    assert planned.account.budget == Budget(max_samples=10, max_tokens=100, max_prm_tokens=30, deadline_s=5)


@pytest.mark.parametrize(
    ("effort", "most"), [("none", None), ("low", 4096), ("medium", 8192), ("high", 16384), ("xhigh", 32768)]
)
def test_an_effort_is_a_budget(effort: str, most: int | None) -> None:
    assert plan(request(reasoning_effort=effort), service()).account.budget.max_tokens == most
    asked = request(reasoning_effort=effort, tts={"budget": {"max_tokens": 99}})
    assert plan(asked, service()).account.budget.max_tokens == 99


def test_no_limit_is_no_limit() -> None:
    assert budget_of(BudgetConfig(), BudgetConfig()) == Budget()
    assert plan(request(), service()).account.budget == Budget(max_samples=256)


def test_a_strategy_that_continues_needs_an_engine_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(strategies.get("single"), continues=True)
    monkeypatch.setattr(strategies, "registry", lambda: {**dict.fromkeys(PRESETS.presets), "single": entry})
    with pytest.raises(InvalidRequest, match="continues from token ids") as caught:
        plan(request(tts={"strategy": "single"}), service(engine=FakeEngine(continues=False)))
    assert (caught.value.param, caught.value.code) == ("tts.strategy", "unsupported_parameter")


def test_without_a_reward_model_what_needs_one_says_how_to_get_it() -> None:
    async def main() -> None:
        async with serving() as client:
            error = (await ask(client, tts={"strategy": "best_of_n"})).json()["error"]
            assert error["param"] == "tts.selector"
            assert "start the server with --prm" in error["message"]
            named = (await ask(client, tts={"strategy": "best_of_n", "prm": "fake"})).json()["error"]
            assert named["message"] == "unknown reward model 'fake'; known: none is loaded"
            voted = await ask(client, tts={"strategy": "best_of_n", "selector": "majority"})
            assert voted.status_code == 200

    asyncio.run(main())


def test_the_named_reward_model_scores() -> None:
    first, second = FakePRM(lambda q, s: [0.1] * len(s)), FakePRM(lambda q, s: [0.9] * len(s), name="other")

    async def main() -> None:
        async with serving(prms=[first, second]) as client:
            for fields, score in (({}, 0.1), ({"prm": "other"}, 0.9), ({"prm": "fake"}, 0.1)):
                response = await ask(client, tts={"strategy": "best_of_n", **fields})
                assert response.json()["tts"]["score"] == score

    asyncio.run(main())


def test_fields_without_effect_are_told_in_the_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "tts_server")
    plan(request(thinking={}, user="me"), service())
    assert "fields without effect: 'thinking, user'" in caplog.text
