"""The policy of a server: which one it takes, and what its answers say of the decision."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from serving import ask, body, frames, serving

from prm import FakePRM
from strategies.allocation.policy_table import Cell, Pilot, Policy, Seconds, Tokens, write
from tts_server.app import create_app
from tts_server.config import BudgetConfig, ConfigError, Preset, Settings
from tts_server.engines.fake import FakeEngine
from tts_server.planning.policy_tables import policy_of

COST = Tokens(100.0, 100.0, 100.0)


def policy(**changed: Any) -> Policy:
    cells = tuple(
        Cell(place, strategy, options, low, low, low, 9, COST, Tokens(0, 0, 0), Seconds(1.0, 1.0))
        for place in range(3)
        for strategy, options, low in (("stop", {}, 0.25), ("self_consistency", {"n": 6}, 0.5))
    )
    fields: dict[str, Any] = {
        "model": "fake",
        "prm": None,
        "prompt": "",
        "created": "2026-11-21",
        "source": "a test",
        "pilot": Pilot(4),
        "difficulty": None,
        "edges": (0.1, 0.5),
        "agreed": None,
        "cells": cells,
    }
    return Policy(**{**fields, **changed})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(policy(), tmp_path / "policy.json")
    return tmp_path / "policy.json"


def test_without_one_there_is_none() -> None:
    assert policy_of(Settings(), "fake", []) is None


def test_it_is_read(file: Path) -> None:
    used = policy_of(Settings(policy=file), "fake", ["judge"])
    assert used is not None
    assert (used.policy, used.forced) == (policy(), False)


def test_what_is_no_policy_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text(json.dumps({**asdict(policy()), "edges": [0.5, 0.1]}))
    with pytest.raises(ConfigError, match=r"policy: .*wrong\.json: edges: they rise"):
        policy_of(Settings(policy=tmp_path / "wrong.json"), "fake", [])
    with pytest.raises(ConfigError, match=r"policy: .*none\.json: No such file"):
        policy_of(Settings(policy=tmp_path / "none.json"), "fake", [])


def test_one_of_another_model_is_refused_unless_forced(file: Path) -> None:
    said = r"policy\.json does not hold here: the policy was fitted for the model 'fake', not 'other'; .*--policy-force"
    with pytest.raises(ConfigError, match=said):
        create_app(FakeEngine(model="other"), settings=Settings(policy=file))
    used = policy_of(Settings(policy=file, policy_force=True), "other", [])
    assert used is not None
    assert used.forced
    # A model that only the upstream names is looked at when it is known.
    assert policy_of(Settings(policy=file), "", []) is not None


def test_one_of_another_reward_model_is_refused(tmp_path: Path) -> None:
    write(policy(prm="teacher", prompt="boxed"), tmp_path / "policy.json")
    settings = Settings(policy=tmp_path / "policy.json")
    with pytest.raises(ConfigError, match="with the reward model 'teacher', not 'none'"):
        policy_of(settings, "fake", [])
    with pytest.raises(ConfigError, match="with the reward model 'teacher', not 'judge'"):
        policy_of(settings, "fake", ["judge"])
    assert policy_of(settings, "fake", ["judge", "teacher"]) is not None


FIELDS = {"tts": {"strategy": "compute_optimal"}, "seed": 5}


def split(text: str) -> Any:
    """Answers that differ, so that the pilot does not agree."""
    return FakeEngine(lambda request: rf"{text} The answer is \boxed{{{request.rng.randrange(1000)}}}.")


def test_whole_and_streamed_answers_and_the_trace_tell_the_decision(file: Path, tmp_path: Path) -> None:
    async def main() -> None:
        settings = Settings(policy=file, data_dir=tmp_path, traces="redacted")
        async with serving(split("So."), settings=settings) as client:
            whole = (await ask(client, **FIELDS)).json()
            told = whole["tts"]["decision"]
            assert (told["policy"], told["chosen"], told["options"]) == ("fitted", "self_consistency", {"n": 6})
            assert (told["predicted_accuracy"], told["predicted_tokens"]) == (0.5, 100)
            assert whole["tts"]["samples"] == 6
            last = [chunk for chunk in await frames(client, **FIELDS) if "tts" in chunk]
            assert [chunk["tts"]["decision"] for chunk in last] == [told]
            trace = (await client.get(f"/v1/traces/{whole['tts']['trace_id']}")).json()
            assert trace["final"]["decision"] == told
            other = (await ask(client, tts={"strategy": "single"})).json()
            assert "decision" not in other["tts"]

    asyncio.run(main())


def test_an_effort_is_a_budget_of_the_allocation() -> None:
    async def main() -> None:
        async with serving(split("So.")) as client:
            low = (await ask(client, reasoning_effort="low")).json()["tts"]
            assert low["strategy"] == "compute_optimal"
            assert low["decision"]["policy"] == "prior"
            none = (await ask(client, reasoning_effort="none")).json()["tts"]
            assert none["strategy"] == "single"
            answer = await client.post(
                "/v1/responses", json={"model": "fake", "input": "Is it 7?", "reasoning": {"effort": "low"}}
            )
            assert answer.json()["tts"]["decision"]["policy"] == "prior"

    asyncio.run(main())


def test_an_effort_s_budget_is_kept_and_can_be_configured() -> None:
    async def main() -> None:
        long = split("word " * 200)
        async with serving(long, [FakePRM()]) as client:
            spent = {}
            for effort in ("low", "medium"):
                answer = (await ask(client, reasoning_effort=effort, seed=1)).json()
                spent[effort] = answer["usage"]["completion_tokens"]
            assert spent["low"] <= 4096 + 4 * 2
            assert spent["low"] < spent["medium"] <= 8192 + 16 * 2
        small = Preset(strategy="compute_optimal", budget=BudgetConfig(max_tokens=300))
        async with serving(long, settings=Settings(presets={"low": small})) as client:
            assert (await ask(client, reasoning_effort="low")).json()["usage"]["completion_tokens"] <= 302

    asyncio.run(main())


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 3},
        {"response_format": {"type": "json_object"}},
        {"presence_penalty": 0.5},
        {"logprobs": True, "top_logprobs": 2},
        {"max_tokens": 5},
    ],
    ids=str,
)
def test_an_effort_refuses_nothing(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with serving(FakeEngine(lambda request: '{"answer": ' + str(request.rng.randrange(9)) + "}")) as client:
            response = await client.post("/v1/chat/completions", json=body(reasoning_effort="high", **fields))
            assert response.status_code == 200, response.text
            assert len(response.json()["choices"]) == fields.get("n", 1)

    asyncio.run(main())
