"""A stand-in for vLLM's AsyncLLM that can be killed, and does not need vLLM. A token is a character."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tts_server.engines.vllm_parts import host as vllm_host
from tts_server.engines.vllm_parts import wire as vllm_wire


class EngineDead(Exception):
    """What vLLM raises from each of its queues when its core is gone."""


class Tokenizer:
    """One character a token."""

    chat_template = "letters"

    def __init__(self) -> None:
        self.added_tokens_decoder: dict[int, Any] = {}

    def apply_chat_template(
        self,
        messages: list[dict[str, Any]],
        tokenize: bool,
        add_generation_prompt: bool,
        continue_final_message: bool = False,
    ) -> str:
        return "".join(f"<{message['role']}>{message['content']}\n" for message in messages)

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(map(ord, text))

    def decode(self, token_ids: list[int], **_: Any) -> str:
        return "".join(map(chr, token_ids))

    def __len__(self) -> int:
        return 256


class Queue:
    """What a request's outputs come through: the last one that was not read, as vLLM's own."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.output: Any = None

    def put(self, output: Any) -> None:
        self.output = output
        self.ready.set()

    def get_nowait(self) -> Any:
        output, self.output = self.output, None
        if isinstance(output, Exception):
            raise output
        return output


class LLM:
    """Answers nothing by itself: `say` does."""

    def __init__(self) -> None:
        self.errored = False
        self.output_handler = None
        self.queues: list[Queue] = []
        self.prompts: list[list[int]] = []
        self.aborted: list[str] = []
        self.answers = False
        """Whether each request is answered at once, by `4`."""
        scheduler = SimpleNamespace(max_num_seqs=8)
        self.vllm_config = SimpleNamespace(
            scheduler_config=scheduler, structured_outputs_config=SimpleNamespace(reasoning_parser="")
        )
        self.model_config = SimpleNamespace(max_model_len=500, get_diff_sampling_param=dict)

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer()

    async def get_supported_tasks(self) -> list[str]:
        return ["generate"]

    async def add_request(self, request_id: str, prompt: Any, params: Any, lora_request: Any = None) -> Queue:
        if self.errored:
            raise EngineDead
        self.queues.append(Queue())
        self.prompts.append(prompt["prompt_token_ids"])
        if self.answers:
            self.say(len(self.queues) - 1, "4", ends=True)
        return self.queues[-1]

    async def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)

    def say(self, index: int, text: str, *, ends: bool = False) -> None:
        """What the request of this number grows by."""
        delta = SimpleNamespace(
            text=text,
            token_ids=list(map(ord, text)),
            logprobs=None,
            finish_reason="stop" if ends else None,
            stop_reason=None,
        )
        prompt = self.prompts[index]
        self.queues[index].put(
            SimpleNamespace(outputs=[delta], prompt_logprobs=None, prompt_token_ids=prompt, num_cached_tokens=0)
        )

    def die(self) -> None:
        self.errored = True
        for queue in self.queues:
            queue.put(EngineDead())


class Builder:
    """Makes a new stand-in for each start, in place of `vllm_host.build`."""

    def __init__(self) -> None:
        self.made: list[LLM] = []
        self.ended: list[LLM] = []
        self.failures = 0
        """Starts that fail next."""

    @property
    def last(self) -> LLM:
        return self.made[-1]

    def __call__(self, *_: Any) -> LLM:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no memory is left")
        self.made.append(LLM())
        return self.last


def install(monkeypatch: pytest.MonkeyPatch) -> Builder:
    """Puts the stand-in where vLLM would be."""
    builder = Builder()
    monkeypatch.setattr(vllm_host, "build", builder)
    monkeypatch.setattr(vllm_host, "processes_of", lambda llm: [])
    monkeypatch.setattr(vllm_host, "end", lambda llm, processes: builder.ended.append(llm))
    monkeypatch.setattr(vllm_host, "splits_seeded_prefills", lambda scheduler: False)
    monkeypatch.setattr(vllm_wire, "sampling_params", lambda sampling, defaults, room: SimpleNamespace())
    monkeypatch.setattr(vllm_wire, "client_errors", lambda: (ValueError,))
    return builder
