"""An engine as the judge's verifier: one token a chat, of which only the probabilities of Yes and No are read."""

import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from prm import OnTokens, PRMError, PRMInputError
from prm.judge import Chat
from strategies.core.concurrency import pooled
from strategies.core.contracts import Engine, Prompt, Refused, Sample, Sampling, TokenIds, TokenLogprob
from tts_server.admission.engine import AdmittedEngine
from tts_server.errors import APIError, ContextTooLong

_YES, _NO = "Yes", "No"
_SEEN = 20
"""The most rivals of a token that an OpenAI-compatible upstream tells."""
_ONE_TOKEN = Sampling(max_tokens=1, temperature=0.0, logprobs=_SEEN)


@dataclass(frozen=True, slots=True)
class _Answers:
    """The token ids by which a chat's Yes and No go on after what they share."""

    yes: TokenIds
    no: TokenIds
    spellings_of_yes: TokenIds
    """Each is one token that says it: in another case, or behind a blank."""
    spellings_of_no: TokenIds


class Verifier:
    """Reads verdicts from an engine's logprobs.

    An engine that takes token ids is asked for the two labels exactly. `Engine` encodes chats only, so the labels come
    from the same chat answered Yes and answered No: what the two encodings share is the prompt, and the first token in
    which they differ is the label. That holds for every tokenizer (labels of several tokens, labels that merge with
    the text before) and every template (one that opens an answer with an empty thinking block has it in the prompt).
    Any other engine, and one that tells no logprobs of tokens that are named, is asked for the likeliest tokens, which
    are read as text.

    Args:
        engine: what answers; its tokens are told as the verdicts', so it is not metered itself.
        concurrency: chats that are asked at once in one call.
    """

    def __init__(self, engine: Engine, concurrency: int = 32) -> None:
        self._engine = engine
        self._reader = AdmittedEngine(engine)
        self._concurrency = concurrency
        self._answers: _Answers | None = None
        self._names_labels = True
        """Until it refuses to tell the logprobs of tokens that are named."""

    async def __call__(
        self, chats: Sequence[Chat], *, on_tokens: OnTokens | None = None
    ) -> list[float | PRMInputError]:
        """See `prm.judge.Verify`."""
        return await pooled(partial(self._ask, on_tokens), chats, self._concurrency)

    async def _ask(self, on_tokens: OnTokens | None, chat: Chat) -> float | PRMInputError:
        try:
            return await self._verdict(chat, on_tokens)
        except ContextTooLong as error:
            # The other chats are answered all the same.
            return PRMInputError(f"a solution is too long for its judge. {error.message}")
        except (APIError, PRMError):
            raise
        except Exception as error:
            raise PRMError(f"the engine {self._engine.model!r} gave no verdict: {error}") from error

    async def _verdict(self, chat: Chat, on_tokens: OnTokens | None) -> float:
        if self._names_labels and self._engine.continues:
            try:
                return await self._by_ids(chat, on_tokens)
            except Refused:
                # It takes token ids, and tells the likeliest tokens' logprobs only.
                self._names_labels = False
        return await self._by_text(chat, on_tokens)

    async def _by_ids(self, chat: Chat, on_tokens: OnTokens | None) -> float:
        # The answers' tokens are found once: chats differ before their last turn only, and a turn's beginning is a
        # token boundary. Two first calls at once find the same.
        answers = self._answers = self._answers or await self._find_answers(chat)
        ids = await self._answered(chat, _YES)
        shared = len(ids) - len(answers.yes)
        if ids[shared:] != answers.yes:
            raise PRMError("the chat template writes an answer differently from chat to chat: no label can be found")
        yes, no = answers.spellings_of_yes, answers.spellings_of_no
        return await label_share(self._reader, ids[:shared], yes, no, on_tokens)

    async def _by_text(self, chat: Chat, on_tokens: OnTokens | None) -> float:
        sample = await sampled(self._reader, Prompt(messages=tuple(chat)), _ONE_TOKEN, on_tokens)
        top = _first(sample).top
        yes, no = _mass(top, _YES), _mass(top, _NO)
        if yes is None and no is None:
            seen = ", ".join(repr(token.token) for token in top[:5])
            raise PRMError(f"neither Yes nor No is among the likeliest answers of {self._engine.model!r} ({seen})")
        # A label that is not seen is less likely than all that are: the verdict is too timid, but on the right side.
        least = min(token.logprob for token in top)
        return share(least if yes is None else yes, least if no is None else no)

    async def _find_answers(self, chat: Chat) -> _Answers:
        yes, no = await self._answered(chat, _YES), await self._answered(chat, _NO)
        shared = next((i for i, (a, b) in enumerate(zip(yes, no, strict=False)) if a != b), None)
        if shared is None:
            raise PRMError("the chat template drops the answer it is given: no label can be found")
        says_yes, says_no = await self._spellings(chat, _YES, yes, shared), await self._spellings(chat, _NO, no, shared)
        return _Answers(yes[shared:], no[shared:], says_yes, says_no)

    async def _spellings(self, chat: Chat, label: str, answered: TokenIds, shared: int) -> TokenIds:
        """The label's first token, and the tokens that say it whole in another case or behind a blank."""
        tokens = [answered[shared]]
        for spelling in (label.lower(), label.upper(), f" {label}", f" {label.lower()}"):
            ids = await self._answered(chat, spelling)
            if len(ids) == shared + 1 and ids[:shared] == answered[:shared]:
                tokens.append(ids[shared])
        return tuple(dict.fromkeys(tokens))

    async def _answered(self, chat: Chat, answer: str) -> TokenIds:
        template = {"add_generation_prompt": False, "continue_final_message": True}
        messages = (*chat, {"role": "assistant", "content": answer})
        return await self._engine.encode(Prompt(messages=messages, template=template))


async def sampled(engine: Engine, prompt: Prompt, sampling: Sampling, on_tokens: OnTokens | None = None) -> Sample:
    """One sample; `on_tokens` is told of what it computes, prompt included, as it does.

    Raises:
        Exception: the sample failed.
    """
    sample = Sample()
    async with aclosing(engine.generate(prompt, sampling)) as chunks:
        async for chunk in chunks:
            if on_tokens:
                on_tokens(chunk.prompt_tokens - chunk.cached_tokens + chunk.completion_tokens)
            if chunk.error:
                raise chunk.error
            sample.chunks.append(chunk)
    return sample


async def label_share(
    engine: Engine, token_ids: TokenIds, right: TokenIds, wrong: TokenIds, on_tokens: OnTokens | None = None
) -> float:
    """P(right) / (P(right) + P(wrong)) of the token that comes after `token_ids`, each the sum of some tokens'.

    Raises:
        PRMError: the engine tells no logprobs of the two, or they have no probability.
    """
    # The two labels proper stand first, then their other spellings.
    labels = (right[0], wrong[0], *right[1:], *wrong[1:])
    sampling = Sampling(max_tokens=1, temperature=0.0, logprobs=len(labels), logprob_token_ids=labels)
    sample = await sampled(engine, Prompt(token_ids=token_ids), sampling, on_tokens)
    seen = {token.token_id: token.logprob for token in _first(sample).top}
    if missing := [token for token in labels if token not in seen]:
        raise PRMError(f"the engine told no logprob of the labels' tokens {missing}")
    return share(_sum([seen[token] for token in right]), _sum([seen[token] for token in wrong]))


def _first(sample: Sample) -> TokenLogprob:
    if not sample.logprobs or not sample.logprobs[0].top:
        raise PRMError("the engine told no logprobs")
    return sample.logprobs[0]


def _mass(top: Sequence[TokenLogprob], label: str) -> float | None:
    """The label's probability, in any case and spacing, as its logarithm; None if it is not there."""
    seen = [token.logprob for token in top if token.token.strip().lower() == label.lower()]
    return _sum(seen) if seen else None


def _sum(logprobs: Sequence[float]) -> float:
    """The logarithm of the sum of the probabilities."""
    most = max(logprobs)
    if not math.isfinite(most):
        return most
    return most + math.log(math.fsum(math.exp(logprob - most) for logprob in logprobs))


def share(right: float, wrong: float) -> float:
    """P(right) / (P(right) + P(wrong)) from their logarithms.

    Raises:
        PRMError: neither has any.
    """
    most = max(right, wrong)
    if not math.isfinite(most):
        raise PRMError("the model gives neither label any probability")
    odds, against = math.exp(right - most), math.exp(wrong - most)
    return odds / (odds + against)
