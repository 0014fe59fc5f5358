"""Verdicts read from an engine."""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from prm import Judge, PRMError, PRMInputError, StepScores
from prm.judge import judge_chat
from strategies.core.account import Account, Budget, BudgetSpent
from strategies.core.contracts import Chunk, Prompt, Refused, Sampling, TokenIds, TokenLogprob, text_of
from strategies.core.metered import MeteredPRM
from tts_server.engines.fake import FakeEngine, FakeReply
from tts_server.errors import APIError, EngineUnavailable
from tts_server.prm_serving.judge_engine import Verifier

CHAT = [{"role": "user", "content": "Is 2 + 2 = 4? Answer Yes or No."}]


class Letters:
    """An engine whose tokens are letters; says how likely each next token is."""

    model = "letters"
    max_model_len: int | None = 1000

    def __init__(
        self,
        next_token: Mapping[str, float],
        *,
        continues: bool = True,
        cached: int = 0,
        opening: str = "",
        error: Exception | None = None,
    ) -> None:
        self.continues = continues
        self.asked: list[tuple[Prompt, Sampling]] = []
        self.open = 0
        self._next = next_token
        self._cached = cached
        self._opening = opening
        self._error = error

    async def encode(self, prompt: Prompt) -> TokenIds:
        assert self.continues
        assert prompt.template == {"add_generation_prompt": False, "continue_final_message": True}
        *before, last = prompt.messages
        text = "".join(f"[{m['role']}]{text_of(m)}" for m in before)
        return tuple(map(ord, f"{text}[assistant]{self._opening}{text_of(last)}"))

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        self.asked.append((prompt, sampling))
        self.open += 1
        try:
            await asyncio.sleep(0)
            if self._error:
                raise self._error
            yield Chunk(
                0,
                text="?",
                completion_tokens=1,
                logprobs=(TokenLogprob("?", -1.0, 63, self._top(sampling)),),
                prompt_tokens=len(prompt.token_ids) or 100,
                cached_tokens=self._cached,
                finish_reason="length",
            )
        finally:
            self.open -= 1

    def _top(self, sampling: Sampling) -> tuple[TokenLogprob, ...]:
        def entry(token: str, p: float) -> TokenLogprob:
            return TokenLogprob(token, math.log(p) if p else -math.inf, ord(token[0]))

        wanted = sampling.logprob_token_ids
        if wanted:
            known = {ord(token[0]): entry(token, p) for token, p in self._next.items()}
            return tuple(known[token] for token in wanted if token in known)
        return tuple(entry(token, p) for token, p in self._next.items())


def ask(engine: Any, *chats: list[dict[str, str]]) -> list[float]:
    return asyncio.run(Verifier(engine)(chats or (CHAT,)))


def cost(engine: Any) -> int:
    tokens: list[int] = []
    asyncio.run(Verifier(engine)((CHAT,), on_tokens=tokens.append))
    return sum(tokens)


def test_the_labels_are_the_first_tokens_that_differ() -> None:
    engine = Letters({"Y": 0.3, "N": 0.1, "x": 0.6})
    [verdict] = ask(engine)
    assert verdict == pytest.approx(0.75)
    [(prompt, sampling)] = engine.asked
    assert "".join(map(chr, prompt.token_ids)) == f"[user]{CHAT[0]['content']}[assistant]"
    assert sampling.logprob_token_ids == (ord("Y"), ord("N"))
    assert (sampling.max_tokens, sampling.temperature, sampling.logprobs) == (1, 0.0, 2)


class Words(Letters):
    """An engine whose labels are single tokens, in each spelling another."""

    def __init__(self, next_token: Mapping[str, float], **options: Any) -> None:
        super().__init__(next_token, **options)
        self._ids = {token: 1000 + i for i, token in enumerate(next_token)}

    async def encode(self, prompt: Prompt) -> TokenIds:
        label = text_of(prompt.messages[-1])
        before = replace(prompt, messages=(*prompt.messages[:-1], {"role": "assistant", "content": ""}))
        return (*await super().encode(before), *([self._ids[label]] if label in self._ids else map(ord, label)))

    def _top(self, sampling: Sampling) -> tuple[TokenLogprob, ...]:
        told = [TokenLogprob(token, math.log(p), self._ids[token]) for token, p in self._next.items()]
        return tuple(t for t in told if not sampling.logprob_token_ids or t.token_id in sampling.logprob_token_ids)


@pytest.mark.parametrize("continues", [True, False])
def test_all_spellings_of_a_label_are_summed_however_it_is_read(continues: bool) -> None:
    spelled = {"Yes": 0.2, "No": 0.1, "yes": 0.1, " Yes": 0.3, " no": 0.1, "Yesterday": 0.2}
    assert ask(Words(spelled, continues=continues)) == pytest.approx([0.6 / 0.8])


def test_what_the_template_opens_an_answer_with_belongs_to_the_prompt() -> None:
    engine = Letters({"Y": 0.5, "N": 0.5}, opening="<think></think>")
    ask(engine)
    [(prompt, _)] = engine.asked
    assert "".join(map(chr, prompt.token_ids)).endswith("[assistant]<think></think>")


def test_labels_are_found_once_for_many_chats() -> None:
    engine = Letters({"Y": 0.3, "N": 0.1})
    other = [{"role": "user", "content": "Yes? No? <|im_end|> Answer Yes or No."}]
    assert ask(engine, CHAT, other, CHAT) == pytest.approx([0.75] * 3)
    assert "".join(map(chr, engine.asked[1][0].token_ids)) == f"[user]{other[0]['content']}[assistant]"


def test_tokens_are_what_was_computed() -> None:
    whole = len(f"[user]{CHAT[0]['content']}[assistant]") + 1
    assert cost(Letters({"Y": 0.5, "N": 0.5})) == whole
    assert cost(Letters({"Y": 0.5, "N": 0.5}, cached=30)) == whole - 30
    assert cost(Letters({"Yes": 0.5, "No": 0.5}, continues=False)) == 101


class Breaking(Letters):
    """Answers two chats; in the third, and any after it, it hangs or fails after it has read the prompt."""

    def __init__(self, error: Exception | None = None, *, as_chunk: bool = False) -> None:
        super().__init__({"Y": 0.5, "N": 0.5}, cached=30)
        self.computed = 0
        self._breaks_with = error
        self._as_chunk = as_chunk

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        before = len(self.asked)
        async with aclosing(super().generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                read = Chunk(0, prompt_tokens=chunk.prompt_tokens, cached_tokens=chunk.cached_tokens)
                self.computed += chunk.prompt_tokens - chunk.cached_tokens
                if before < 2:
                    self.computed += chunk.completion_tokens
                    yield chunk
                elif self._breaks_with and self._as_chunk:
                    yield replace(read, finish_reason="error", error=self._breaks_with)
                else:
                    yield read
                    await self._break()

    async def _break(self) -> None:
        if self._breaks_with:
            raise self._breaks_with
        await asyncio.sleep(3600)


SOLUTION = [["one", "two", "three", "four"]]


def test_a_call_that_the_deadline_cuts_is_paid_to_the_token() -> None:
    engine, account = Breaking(), Account(Budget(deadline_s=0.1))
    judge = MeteredPRM(Judge(Verifier(engine, concurrency=2)), account)
    with pytest.raises(BudgetSpent):
        asyncio.run(judge.score("What is 2 + 2?", SOLUTION))
    assert len(engine.asked) == 4
    assert engine.open == 0
    assert account.usage.prm_tokens == engine.computed > 0


@pytest.mark.parametrize("as_chunk", [True, False])
def test_a_call_that_fails_halfway_is_paid_to_the_token(as_chunk: bool) -> None:
    engine, account = Breaking(OSError("gone"), as_chunk=as_chunk), Account()
    judge = MeteredPRM(Judge(Verifier(engine, concurrency=1)), account)
    with pytest.raises(PRMError, match="gone"):
        asyncio.run(judge.score("What is 2 + 2?", SOLUTION))
    assert len(engine.asked) == 3
    assert account.usage.prm_tokens == engine.computed > 0


@pytest.mark.parametrize(("p_yes", "p_no", "probability"), [(1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1e-300, 1e-300, 0.5)])
def test_extreme_probabilities_are_exact(p_yes: float, p_no: float, probability: float) -> None:
    assert ask(Letters({"Y": p_yes, "N": p_no})) == [probability]


@pytest.mark.parametrize(
    ("seen", "probability"),
    [
        ({"Yes": 0.6, "No": 0.2}, 0.75),
        ({"Yes": 0.3, " yes": 0.2, "YES\n": 0.1, "no": 0.2, "Maybe": 0.1}, 0.75),
        ({"Yes": 0.6, "Maybe": 0.3, "Well": 0.1}, 6 / 7),
        ({"No": 0.6, "Maybe": 0.3, "Well": 0.1}, 1 / 7),
        ({"Yes": 1.0}, 0.5),
    ],
)
def test_without_token_ids_the_likeliest_tokens_are_read(seen: dict[str, float], probability: float) -> None:
    engine = Letters(seen, continues=False)
    assert ask(engine) == pytest.approx([probability])
    [(prompt, sampling)] = engine.asked
    assert prompt == Prompt(messages=tuple(CHAT))
    assert (sampling.logprobs, sampling.logprob_token_ids) == (20, ())


class Unnamed(Letters):
    """Tells no logprobs of tokens that are named."""

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        if sampling.logprob_token_ids:
            self.asked.append((prompt, sampling))
            raise Refused("not named ones", "logprob_token_ids")
        async with aclosing(super().generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                yield chunk


def test_an_engine_that_names_no_labels_is_asked_once_and_then_for_the_likeliest_tokens() -> None:
    engine = Unnamed({"Yes": 0.6, "No": 0.2})
    judge = Verifier(engine)
    assert asyncio.run(judge([CHAT])) == [pytest.approx(0.75)]
    assert asyncio.run(judge([CHAT, CHAT])) == [pytest.approx(0.75)] * 2
    assert [bool(sampling.logprob_token_ids) for _, sampling in engine.asked] == [True, False, False, False]


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (Letters({"<think>": 0.9, "Yesterday": 0.1}, continues=False), "neither Yes nor No is among .*'<think>'"),
        (Letters({}, continues=False), "told no logprobs"),
        (Letters({"Y": 0.5}), r"no logprob of the labels' tokens \[78\]"),
        (Letters({"Y": 0.0, "N": 0.0}), "neither label any probability"),
        (Letters({}, error=Refused("no logprobs here", "logprobs")), "gave no verdict: no logprobs here"),
        (Letters({}, error=OSError("gone")), "'letters' gave no verdict: gone"),
    ],
)
def test_where_there_is_no_verdict_there_is_an_error(engine: Letters, said: str) -> None:
    with pytest.raises(PRMError, match=said):
        ask(engine)
    assert engine.open == 0


def test_a_template_that_drops_the_answer_is_an_error() -> None:
    class Dropping(Letters):
        async def encode(self, prompt: Prompt) -> TokenIds:
            return (1, 2, 3)

    with pytest.raises(PRMError, match="drops the answer"):
        ask(Dropping({}))


def test_a_template_whose_answers_differ_is_an_error() -> None:
    class Fickle(Letters):
        async def encode(self, prompt: Prompt) -> TokenIds:
            return (len(text_of(prompt.messages[0])), 7 if text_of(prompt.messages[-1]) == "Yes" else 8, 9)[
                : 3 if len(self.asked) == 0 else 2
            ]

    async def main() -> None:
        verify = Verifier(Fickle({"\x07": 0.5, "\x08": 0.5}))
        await verify([CHAT])
        await verify([CHAT])

    with pytest.raises(PRMError, match="from chat to chat"):
        asyncio.run(main())


def test_an_api_error_of_the_engine_passes_unchanged() -> None:
    error = EngineUnavailable("starting")
    with pytest.raises(APIError) as caught:
        ask(Letters({}, error=error))
    assert caught.value is error


@pytest.mark.parametrize("continues", [True, False])
def test_too_long_is_an_input_error_that_names_the_limit_while_others_are_answered(continues: bool) -> None:
    engine = FakeEngine(lambda _: FakeReply("Yes", {"Yes": 0.8, "No": 0.2}), max_model_len=60, continues=continues)
    long = [{"role": "user", "content": "Is it? " * 60}]
    judged, fault, again = asyncio.run(Verifier(engine)([CHAT, long, CHAT]))
    assert isinstance(fault, PRMInputError)
    assert "maximum context length is 60 tokens" in str(fault)
    assert fault.param == "steps"
    assert isinstance(judged, float)
    assert again == pytest.approx(judged)
    assert engine.live == 0


def test_a_sample_that_ends_in_error_is_an_error() -> None:
    class Failing(Letters):
        async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
            yield Chunk(0, finish_reason="error", error=OSError("worker died"))

    with pytest.raises(PRMError, match="worker died"):
        ask(Failing({}))


def test_chats_are_asked_at_once_but_bounded_and_a_failure_stops_the_rest() -> None:
    most = 0

    class Counting(Letters):
        async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
            nonlocal most
            async for chunk in super().generate(prompt, sampling, n):
                most = max(most, self.open)
                yield chunk

    chats = [[{"role": "user", "content": str(i)}] for i in range(20)]
    asyncio.run(Verifier(Counting({"Y": 0.5, "N": 0.5}), concurrency=4)(chats))
    assert most == 4
    failing = Letters({}, error=OSError("gone"))
    with pytest.raises(PRMError, match="gone"):
        asyncio.run(Verifier(failing, concurrency=4)(chats))
    assert len(failing.asked) <= 4
    assert failing.open == 0


@pytest.mark.parametrize("continues", [True, False])
def test_the_fake_engine_has_an_opinion_of_each_step(continues: bool) -> None:
    async def main() -> tuple[float, ...]:
        judge = Judge(Verifier(FakeEngine(continues=continues)))
        [result] = await judge.score("What is 2 + 2?", [[f"Step {k}." for k in range(20)]])
        return result.scores

    scores = asyncio.run(main())
    assert all(0 < score < 1 for score in scores)
    assert min(scores) < 0.3
    assert max(scores) > 0.7
    assert len(set(scores)) == 20
    assert asyncio.run(main()) == scores


@pytest.mark.real
def test_verdicts_equal_those_of_a_plain_forward_pass() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tts_server.engines.transformers import TransformersEngine
    from tts_server.weights.catalog import resolve

    path = str(resolve("smollm2-135m-instruct"))
    solutions = [["2 + 2 = 4.", "The answer is 4."], ["2 + 2 = 4.", "Yes?\n¿No? 🍎"]]

    async def main() -> list[StepScores]:
        engine = TransformersEngine(path, name="smollm2")
        await engine.start()
        try:
            return await Judge(Verifier(engine)).score("What is 2 + 2?", solutions)
        finally:
            await engine.close()

    scored = asyncio.run(main())
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    def spellings(label: str) -> list[int]:
        encoded = map(tokenizer.encode, (label, label.lower(), label.upper(), f" {label}", f" {label.lower()}"))
        return [ids[0] for ids in encoded if len(ids) == 1]

    for steps, result in zip(solutions, scored, strict=True):
        for k, score in enumerate(result.scores):
            chat = [dict(turn) for turn in judge_chat("What is 2 + 2?", steps[: k + 1])]
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.no_grad():
                logits = model(ids).logits[0, -1]
            yes, no = (logits.softmax(-1)[spellings(label)].sum().item() for label in ("Yes", "No"))
            assert score == pytest.approx(yes / (yes + no), abs=1e-4)
