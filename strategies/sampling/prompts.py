"""How a task is put to the model: system prompts and few-shot examples, options of every sampling strategy."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from strategies.core.contracts import Message, Task, text_of

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
"""The prompt of the Qwen2.5-Math report (2409.12122) and of most process reward models."""


class Example(TypedDict):
    """A solved problem."""

    question: str
    answer: str


SystemPrompt = Annotated[
    str | None,
    Field(
        max_length=20_000,
        description="Put before the conversation's own system message. `boxed` stands for: " + BOXED,
    ),
]
Examples = Annotated[
    list[Example] | None,
    Field(max_length=64, description="Few-shot examples: turns of user and assistant before the conversation."),
]


def prompted(task: Task, system_prompt: str | None, examples: list[Example] | None) -> Task:
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
