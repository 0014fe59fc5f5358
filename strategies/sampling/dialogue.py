"""Asking the policy more than the client did: further turns of its conversation, and calls that are not the answer."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from strategies.core.contracts import Chunk, Engine, Message, Prompt, Sample, Sampling, Task, text_of
from strategies.core.prompts import conversation
from strategies.sampling.drawing import Drawing
from strategies.sampling.streams import sub_seed

_CONTROLS = {"continue_final_message", "add_generation_prompt"}


def followed_by(task: Task, turns: Sequence[Message], parents: tuple[int, ...] = ()) -> Prompt:
    """The conversation with further turns, the first of them the assistant's, which show samples of these numbers.

    A client's last turn that was to be continued is the beginning of that first one.
    """
    messages, template = conversation(task), task.prompt.template
    first, *rest = turns
    if template.get("continue_final_message"):
        first = {**first, "content": text_of(messages[-1]) + text_of(first)}
        messages = messages[:-1]
    kept = {name: value for name, value in template.items() if name not in _CONTROLS}
    return Prompt((*messages, first, *rest), template=kept, parents=parents)


def assistant_turn(text: str) -> Message:
    """The assistant's turn with a solution, without the thought before it."""
    return {"role": "assistant", "content": text.rpartition("</think>")[2].strip()}


def user_turn(text: str) -> Message:
    return {"role": "user", "content": text}


def aside(sampling: Sampling, max_tokens: int | None) -> Sampling:
    """How a text is drawn that the client will not see: without what concerns the form of the answer."""
    return replace(
        sampling,
        max_tokens=max_tokens,
        stop=(),
        include_stop=False,
        stop_token_ids=(),
        min_tokens=None,
        ignore_eos=False,
        logprobs=None,
        logprob_token_ids=(),
        structured=None,
    )


def seeded(sampling: Sampling, *place: object) -> Sampling:
    """With a seed of its own for this place of the search, where the request has one."""
    return sampling if sampling.seed is None else replace(sampling, seed=sub_seed(sampling.seed, *place))


async def ask(
    engine: Engine,
    prompt: Prompt,
    sampling: Sampling,
    index: int = 0,
    until: Callable[[Chunk], bool] | None = None,
) -> Sample:
    """One sample; a failure, or a budget that does not allow it, is its finish reason.

    It has no finish reason where `until`, asked of each chunk, ended it.
    """
    samples = await Drawing(engine, prompt, sampling, first=index).run(until)
    return samples[0] if samples else Sample([Chunk(index, finish_reason="budget")])
