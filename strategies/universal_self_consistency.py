"""Universal self-consistency: the model reads all answers and names the most consistent (Chen et al. 2311.17311).

It needs no answer that can be extracted, so it also works where the answer is a text: a summary, a program, advice.
"""

import random
import re
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import Candidate, Engine, Event, Final, Message, Progress, Prompt, Sample, Sampling, Task
from strategies.core.options import Examples, SampleCount, SystemPrompt
from strategies.core.parents import numbers_of
from strategies.core.prompts import prompted
from strategies.sampling.draw import candidates_of, draw, elect
from strategies.sampling.streams import sub_seed

_ASK = (
    "Evaluate these responses. Select the most consistent response based on majority consensus. Start your answer "
    'with "The most consistent response is Response X" (without quotes).'
)
_VERDICT = re.compile(r"most consistent response(?: is|:)?[\s:*_#(\"'“]*Response[\s:*_#(]*(\d{1,6})", re.IGNORECASE)
_MENTION = re.compile(r"\bResponse[\s:*_#(]*(\d{1,6})", re.IGNORECASE)


@strategy("universal_self_consistency", paper="2311.17311", whole=True)
async def universal_self_consistency(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: SampleCount = 8,
    fallback: Annotated[
        Literal["majority", "medoid"],
        Field(
            description="Without a verdict that can be read. majority: the most frequent answer if one is given "
            "twice, else the medoid; medoid: the response whose words are the most like the others'."
        ),
    ] = "majority",
    verdict_tokens: Annotated[int, Field(ge=1, description="Tokens of the verdict, at most.")] = 1024,
    verdict_temperature: Annotated[float, Field(ge=0, le=2, description="Of the verdict.")] = 0.0,
    system_prompt: SystemPrompt = None,
    examples: Examples = None,
) -> AsyncGenerator[Event, None]:
    """Draws n samples and returns the one that the model, asked, calls the most consistent with the others."""
    samples: list[Sample] = []
    async with aclosing(draw(prompted(task, system_prompt, examples), engine, n, samples)) as progress:
        async for line in progress:
            yield line
    candidates = candidates_of(samples)
    texts = [_response(candidate) for candidate in candidates]
    offered = [i for i, candidate in enumerate(candidates) if candidate.sample.finished and texts[i]]
    chosen = offered[0] if len(offered) == 1 else None
    if len(offered) > 1:
        # The model favours some places in the list, so no sample has one of its own.
        seed = task.sampling.seed
        random.Random(None if seed is None else sub_seed(seed, "order")).shuffle(offered)
        own_seed = None if seed is None else sub_seed(seed, "verdict")
        judging = Sampling(max_tokens=verdict_tokens, temperature=verdict_temperature, seed=own_seed)
        place = None
        try:
            parents = numbers_of(candidates[i].sample for i in offered)
            reply = await _answer(engine, asking(task, [texts[i] for i in offered], parents), judging)
            place = verdict(reply, len(offered))
        except BudgetSpent:
            reply = "no budget is left"
        except Exception as error:
            reply = f"the engine failed: {error}"
        chosen = None if place is None else offered[place]
        yield Progress(f"no verdict: {reply[:200]}" if chosen is None else f"the verdict is sample {chosen + 1}")
    yield await _final(candidates, chosen, sorted(offered), fallback, account)


def asking(task: Task, responses: Sequence[str], parents: tuple[int, ...] = ()) -> Prompt:
    """The paper's question, in the place of the last user turn; what the system was told is for the samples alone."""
    messages = task.prompt.messages
    last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=len(messages))
    earlier = [m for m in messages[:last] if m["role"] not in ("system", "developer")]
    listed = "\n\n".join(f"Response {i}: {text}" for i, text in enumerate(responses))
    content = f"I have generated the following responses to the question: {task.question}\n\n{listed}\n\n{_ASK}"
    template = {**task.prompt.template, "add_generation_prompt": True, "continue_final_message": False}
    ask: Message = {"role": "user", "content": content}
    return Prompt((*earlier, ask), template=template, parents=parents)


def verdict(text: str, responses: int) -> int | None:
    """Which response a verdict names: in the words asked for, or as the only one it mentions; None if none is clear."""
    text = text.rpartition("</think>")[2]
    named = _VERDICT.search(text)
    numbers = {int(named[1])} if named else {int(number) for number in _MENTION.findall(text)}
    place = numbers.pop() if len(numbers) == 1 else responses
    return place if place < responses else None


def medoid(texts: Sequence[str]) -> int:
    """The text with the most words in common with the others, by mean Dice coefficient; the first of equal ones."""
    bags = [Counter(re.findall(r"\w+", text.lower())) for text in texts]
    sizes = [bag.total() for bag in bags]

    def likeness(i: int) -> float:
        others = (j for j in range(len(bags)) if j != i)
        return sum(2 * (bags[i] & bags[j]).total() / max(1, sizes[i] + sizes[j]) for j in others)

    return max(range(len(texts)), key=likeness)


def _response(candidate: Candidate) -> str:
    """What a sample says aloud: a thought before it would fill the verdict's context."""
    return candidate.text.rpartition("</think>")[2].strip()


async def _answer(engine: Engine, prompt: Prompt, sampling: Sampling) -> str:
    async with aclosing(engine.generate(prompt, sampling)) as chunks:
        sample = Sample([chunk async for chunk in chunks])
    if error := sample.chunks[-1].error:
        raise error
    return sample.text


async def _final(
    candidates: Sequence[Candidate],
    chosen: int | None,
    offered: Sequence[int],
    fallback: Literal["majority", "medoid"],
    account: Account,
) -> Final:
    """The votes as they are; ahead of all the response that was chosen, with its own answer's others behind."""
    counted = await elect(candidates, "majority", account.seconds_left)
    repeated = counted.votes and counted.votes[0].count > 1
    if chosen is None and offered and not (fallback == "majority" and repeated):
        chosen = offered[medoid([_response(candidates[i]) for i in offered])]
    if chosen is None:
        return counted
    marked = [replace(c, score=float(i == chosen)) for i, c in enumerate(candidates)]
    ranking = (await elect(marked, "best", account.seconds_left)).ranking
    return replace(counted, ranking=ranking, selector=None, confidence=None)
