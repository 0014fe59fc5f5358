"""How a task is put to the model: its conversation, a system prompt and few-shot examples."""

from dataclasses import replace

from typing_extensions import TypedDict

from strategies.core.contracts import Message, Refused, Task, text_of

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
"""The prompt of the Qwen2.5-Math report (2409.12122) and of most process reward models."""


class Example(TypedDict):
    """A solved problem."""

    question: str
    answer: str


def prompted(task: Task, system_prompt: str | None = None, examples: list[Example] | None = None) -> Task:
    """The task with a system prompt and few-shot turns (2201.11903) put before its conversation."""
    if not system_prompt and not examples:
        return task
    messages = task.prompt.messages
    own = [m for m in messages[:1] if m["role"] in ("system", "developer")]
    wanted = BOXED if system_prompt == "boxed" else system_prompt
    system = "\n\n".join(filter(None, [wanted, *map(text_of, own)]))
    shots: list[Message] = []
    for example in examples or []:
        shots += [
            {"role": "user", "content": example["question"]},
            {"role": "assistant", "content": example["answer"]},
        ]
    head: list[Message] = [{"role": "system", "content": system}] if system else []
    return replace(task, prompt=replace(task.prompt, messages=(*head, *shots, *messages[len(own) :])))


def conversation(task: Task) -> tuple[Message, ...]:
    """The client's turns, which other turns can follow.

    Raises:
        Refused: the prompt is no conversation.
    """
    if not task.prompt.messages:
        raise Refused("this strategy goes on with a conversation and the request has none", "messages")
    return task.prompt.messages
