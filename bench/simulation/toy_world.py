r"""A small world of reasoning whose chances are known: questions, and a policy that errs.

A question takes `depth` steps. Each is right with a known chance as long as all before it were; an error spoils what
follows, unless the policy recovers. A right path ends at the gold answer, a wrong one at one of a few wrong answers. A
step's text says whether the path is right after it, which the reward model reads and then blurs. Everything follows
from seeds. `World.go_on` is the whole policy, so any engine that can be scripted can play it; `ToyEngine` does so
without a server. `bench.simulation.closed_forms` has what the simplest strategies must reach in it.
"""

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from random import Random
from typing import Protocol

from prm import SEPARATOR
from strategies.core.contracts import Chunk, Prompt, Refused, Sampling, Task, TokenIds, TokenLogprob, text_of

STEP = re.compile(r"Step (\d+)/\d+ (right|wrong) ")
"""The beginning of a step: its number, and whether the path is right after it."""
_TOKEN = re.compile(r" ?\S+|\s")
_LABELS = (" right", " wrong")
_STEP_OVERHEAD = 6
"""Tokens of a step without filler: `Step 1/5 right 0a1b2:` and the separator's two."""
_ANSWER_TOKENS = 3
"""What the last step has more than others: the answer's four and the end of sequence, but no separator."""


class Request(Protocol):
    """What a scripted engine tells of one sample, as `tts_server.engines.fake.FakeRequest` does."""

    @property
    def text(self) -> str: ...
    @property
    def sampling(self) -> Sampling: ...
    @property
    def rng(self) -> Random: ...


@dataclass(frozen=True, slots=True)
class World:
    """One question and the policy that answers it."""

    seed: int = 0
    """Which question it is."""
    depth: int = 5
    """Steps of a solution; the last one names the answer."""
    p_step: float = 0.9
    """Chance that a step is right after only right ones."""
    recover: float = 0.0
    """Chance that a step after an error puts it right."""
    wrong: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    """How the wrong paths spread over the wrong answers: shares that sum to 1."""
    lengths: tuple[int, int] = (6, 14)
    """Tokens of a step, its separator included: uniform between these, ends included."""

    insight: float = 0.2
    """How much less probable the policy finds a wrong step than a right one, relatively: what logprobs tell."""

    def __post_init__(self) -> None:
        if self.lengths[0] < _STEP_OVERHEAD:
            raise ValueError(f"a step has at least {_STEP_OVERHEAD} tokens, got {self.lengths[0]}")
        if not math.isclose(sum(self.wrong), 1.0):
            raise ValueError(f"the shares of the wrong answers sum to 1, got {sum(self.wrong)}")

    @property
    def question(self) -> str:
        return f"Question {self.seed}: where do {self.depth} steps lead?"

    @property
    def gold(self) -> str:
        return str(1000 + 10 * (self.seed % 900))

    @property
    def answers(self) -> dict[str, float]:
        """Every answer with the chance that one sample gives it; gold first."""
        gold = int(self.gold)
        missed = 1 - self.p_solve
        return {self.gold: self.p_solve} | {str(gold + 1 + k): missed * share for k, share in enumerate(self.wrong)}

    @property
    def p_solve(self) -> float:
        """Chance that one sample is right."""
        right = 1.0
        for _ in range(self.depth):
            right = right * self.p_step + (1 - right) * self.recover
        return right

    @property
    def mean_tokens(self) -> float:
        """Tokens of one sample with `ToyEngine`, its end of sequence included."""
        return self.depth * sum(self.lengths) / 2 + _ANSWER_TOKENS

    def task(self, seed: int | None = None) -> Task:
        return Task(Prompt(({"role": "user", "content": self.question},)), Sampling(seed=seed))

    def script(self, request: Request) -> str:
        """The policy as a script of the fake engine."""
        return self.go_on(request.text, request.rng, greedy=request.sampling.temperature == 0)

    def go_on(self, text: str, rng: Random, *, greedy: bool = False) -> str:
        """What the policy writes after `text`, a rendered prompt, up to its end: the steps that are missing.

        Behind a finished solution it writes nothing; if something else stands there ("Wait"), it takes the last step
        again. `greedy` takes the likelier at every choice.
        """
        written = text.rpartition("<assistant>")[2]
        marks = STEP.findall(written)
        done, right = (int(marks[-1][0]), marks[-1][1] == "right") if marks else (0, True)
        steps: list[str] = []
        if done >= self.depth:
            tail = written[[match.end() for match in STEP.finditer(written)][-1] :]
            boxed, _, after = tail.rpartition("}.")
            if not boxed:
                return f" {self._answer(right, rng, greedy)}"
            if not after.strip():
                return ""
            done = self.depth - 1
        for number in range(done + 1, self.depth + 1):
            chance = self.p_step if right else self.recover
            right = chance >= 0.5 if greedy else rng.random() < chance
            steps.append(self._step(number, right, rng, greedy))
        begun = written and not written.endswith(SEPARATOR)
        return (SEPARATOR if begun else "") + SEPARATOR.join(steps)

    def _step(self, number: int, right: bool, rng: Random, greedy: bool) -> str:
        label = "right" if right else "wrong"
        filler = " so" * (rng.randint(*self.lengths) - _STEP_OVERHEAD)
        step = f"Step {number}/{self.depth} {label} {rng.getrandbits(20):05x}:{filler}"
        return f"{step} {self._answer(right, rng, greedy)}" if number == self.depth else step

    def _answer(self, right: bool, rng: Random, greedy: bool) -> str:
        gold, *wrong = self.answers
        likeliest = wrong[self.wrong.index(max(self.wrong))]
        answer = gold if right else likeliest if greedy else rng.choices(wrong, self.wrong)[0]
        return rf"The answer is \boxed{{{answer}}}."


class ToyEngine:
    """The world's policy as an engine: a token is a word, a chunk is a step, and there is no context limit."""

    model = "toy"
    max_model_len: int | None = None
    continues = True

    def __init__(self, world: World, *, seed: int = 0) -> None:
        self._world = world
        self._rng = Random(seed)

    async def encode(self, prompt: Prompt) -> TokenIds:
        return prompt.token_ids or _ids(_TOKEN.findall(render(prompt)))

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        if sampling.structured:
            raise Refused("the toy engine cannot constrain its output", "response_format")
        text = _text(prompt.token_ids) if prompt.token_ids else render(prompt)
        read = len(prompt.token_ids) or len(_TOKEN.findall(text))
        seed = self._rng.getrandbits(64) if sampling.seed is None else sampling.seed
        samples = [self._sample(text, sampling, Random(f"{seed}|{text}|{i}"), i, read) for i in range(n)]
        for chunks in zip_longest(*samples):
            await asyncio.sleep(0)
            for chunk in chunks:
                if chunk:
                    yield chunk

    def _sample(self, text: str, sampling: Sampling, rng: Random, index: int, read: int) -> Iterator[Chunk]:
        said, stop = _cut(self._world.go_on(text, rng, greedy=sampling.temperature == 0), sampling)
        tokens = _TOKEN.findall(said)
        full = sampling.max_tokens is not None and len(tokens) + (stop is None) > sampling.max_tokens
        tokens = tokens[: sampling.max_tokens] if full else tokens
        ends = [i + 2 for i in range(len(tokens) - 2) if tokens[i] + tokens[i + 1] == SEPARATOR]
        logprobs = self._logprobs(tokens, rng) if sampling.logprobs is not None else []
        for start, end in zip([0, *ends], [*ends, len(tokens)], strict=True):
            last = end == len(tokens)
            ended = last and stop is None and not full
            yield Chunk(
                index,
                "".join(tokens[start:end]),
                _ids(tokens[start:end]),
                # The end of sequence is a token without text.
                completion_tokens=end - start + ended,
                logprobs=tuple(logprobs[start:end]),
                prompt_tokens=0 if start else read,
                cached_tokens=0 if start or not index else read - 1,
                finish_reason=None if not last else "length" if full else "eos" if ended else "stop",
                stop=stop if last and not full else None,
            )

    def _logprobs(self, tokens: Sequence[str], rng: Random) -> list[TokenLogprob]:
        """The policy's doubt is where a step turns out right or wrong; of all else it is sure."""
        found = []
        for token in tokens:
            chances = {token: 1.0}
            if token in _LABELS:
                sure = (0.5 + rng.random() / 2) * (1.0 if token == _LABELS[0] else 1 - self._world.insight)
                rival = next(label for label in _LABELS if label != token)
                chances = {token: sure, rival: 1 - sure}
            top = tuple(TokenLogprob(t, math.log(p), _id(t)) for t, p in chances.items())
            found.append(TokenLogprob(token, top[0].logprob, top[0].token_id, top))
        return found


def render(prompt: Prompt) -> str:
    """The toy's chat template."""
    turns = "".join(f"<{m['role']}>{text_of(m)}\n" for m in prompt.messages)
    if prompt.template.get("continue_final_message"):
        return turns.removesuffix("\n")
    return turns + "<assistant>" if prompt.template.get("add_generation_prompt", True) else turns


def _cut(text: str, sampling: Sampling) -> tuple[str, str | None]:
    found = min(((at, stop) for stop in sampling.stop if (at := text.find(stop)) >= 0), default=None)
    if not found:
        return text, None
    at, stop = found
    return text[: at + len(stop) * sampling.include_stop], stop


def _id(token: str) -> int:
    return int.from_bytes(b"\x01" + token.encode())


def _ids(tokens: Sequence[str]) -> TokenIds:
    return tuple(map(_id, tokens))


def _text(token_ids: TokenIds) -> str:
    return "".join(t.to_bytes((t.bit_length() + 7) // 8).removeprefix(b"\x01").decode() for t in token_ids)
