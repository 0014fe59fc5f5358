"""The tree of a search over thoughts: states, what may follow them, and what they are worth."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from strategies.core.concurrency import together
from strategies.core.contracts import Chunk, Final, Sample
from strategies.core.parents import numbers_of
from strategies.core.widening import Finishing
from strategies.search.stop_strings import first_stop, stopped_at, without_end
from strategies.search.thought_calls import UNVALUED, Evaluator, Policy, Value, nothing, vote_by_value, with_failed

SEPARATOR = "\n\n"
"""What ends a thought, and stands between two."""

_ENDING = r"If that ends the solution, put the final answer within \boxed{}."
_VOTE = (
    "Below are a problem and several beginnings of a solution to it. Decide which is the most promising. Compare them "
    'in a few words, then end with a line "The best choice is s", where s is its number.'
)
_CHOICE = re.compile(r"best choice is\D{0,20}(\d+)", re.IGNORECASE)
_BOX = re.compile(r"\\boxed\s*\{\s*[^\s}]")
_NUMBERED = re.compile(r"^ {0,3}(?:[*_#]{0,4}\(?\d{1,3}[.):]|[*_#]{1,4}\d{1,3}[*_]+:?)[*_]{0,2}\s+", re.MULTILINE)
_BULLETS = re.compile(r"^ {0,3}[-*•+]\s+", re.MULTILINE)
_LINES = re.compile(r"^(?=.*\S)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class State:
    """A partial solution."""

    thoughts: tuple[Sample, ...] = ()
    ended: bool = False
    value: Value = UNVALUED

    @property
    def text(self) -> str:
        return SEPARATOR.join(thought.text.strip() for thought in self.thoughts)

    @property
    def number(self) -> int | None:
        """That of the sample with which it ends."""
        return self.thoughts[-1].number if self.thoughts else None

    @property
    def completion_tokens(self) -> int:
        return sum(thought.completion_tokens for thought in self.thoughts)

    @property
    def sample(self) -> Sample:
        """The whole solution as one sample."""
        chunks: list[Chunk] = []
        for thought in self.thoughts:
            chunks += [Chunk(0, text=SEPARATOR), *thought.chunks] if chunks else thought.chunks
        return Sample(chunks)


@dataclass(slots=True)
class Tree:
    """One search under way. `leaves` are ended solutions, `cut` what the budget cut, `seen` all other states."""

    policy: Policy
    evaluator: Evaluator
    generator: Literal["sample", "propose"]
    n_generate: int
    n_evaluate: int
    voting: bool
    finishing: Finishing
    leaves: list[State] = field(default_factory=list)
    cut: list[State] = field(default_factory=list)
    seen: list[State] = field(default_factory=list)

    async def children(self, states: Sequence[State]) -> list[State]:
        """The states that follow, of all at once; equal ones and those that say nothing new are left out."""
        drawn: dict[int, list[State]] = {}

        async def expand(place: int) -> None:
            drawn[place] = await (self._sampled if self.generator == "sample" else self._proposed)(states[place])

        await together([expand(place) for place in range(len(states))])
        unique: dict[str, State] = {}
        for child in (child for place in range(len(states)) for child in drawn[place]):
            if self._whole(child) and child.thoughts[-1].text.strip():
                unique.setdefault(child.text, child)
        return list(unique.values())

    async def evaluated(self, states: Sequence[State]) -> list[State]:
        """The states with their values; as they are where the budget left none."""
        values = await (self._votes(states) if self.voting else self.evaluator.values(states, self.n_evaluate))
        valued = [replace(state, value=value) for state, value in zip(states, values, strict=True)]
        self.seen += valued
        return valued

    def retire(self, states: Sequence[State]) -> list[State]:
        """Those that can go on; the ended ones become leaves."""
        self.leaves += [state for state in states if state.ended]
        return [state for state in states if not state.ended]

    def is_late(self, states: Sequence[State]) -> bool:
        """Whether the rest of these solutions must be written now, so that it is there at the deadline."""
        return not self.policy.spent and self.finishing.due([state.completion_tokens for state in states])

    async def complete(self, states: Sequence[State]) -> str:
        """Writes the rest of each solution, which keeps its value; tells of it.

        Solutions that end in a thought of their own are valued whole. The rest that is written here at once is the
        paper's G(p, s, 1) of its last state, for which its calls are counted: another value of each would add
        `n_evaluate` calls a solution.
        """
        ends: dict[int, list[State]] = {}

        async def finish(place: int) -> None:
            state = states[place]
            what = "the rest of the solution" if state.thoughts else "the solution"
            request = rf"{_so_far(state)}Write {what}. Put the final answer within \boxed{{}}."
            prompt = self.policy.prompt_with(request, numbers_of(state.thoughts[-1:]))
            sampling = replace(self.policy.sampling, max_tokens=self._room(state))
            samples = await self.policy.think(prompt, sampling, 1, "rest", state.text)
            ends[place] = [self._grown(state, sample, ended=True) for sample in samples]

        await together([finish(place) for place in range(len(states))])
        done = [end for place in range(len(states)) for end in ends[place] if self._whole(end)]
        self.leaves += done
        for end in done:
            self.finishing.ended(end.completion_tokens)
        return f"{len(self.leaves)} solutions have ended"

    async def final(self, within_s: float | None) -> Final:
        """The end: a vote over the leaves; where there are none, the furthest of what was cut and the best before."""
        states = self.leaves or [*self.cut, *self.seen]
        if not states:
            return await vote_by_value([nothing(self.policy)], [UNVALUED], self.evaluator, within_s)
        samples, values = [self._ended(s) for s in states], [s.value for s in states]
        return with_failed(await vote_by_value(samples, values, self.evaluator, within_s), self.policy)

    def _ended(self, state: State) -> Sample:
        sample = state.sample
        if not state.ended and sample.finish_reason != "budget":
            # It stands at a thought's end, which is not an end of its own.
            sample = Sample([*sample.chunks, Chunk(0, finish_reason="budget" if self.policy.spent else "length")])
        return sample

    def _whole(self, state: State) -> bool:
        cut = state.thoughts[-1].finish_reason == "budget"
        if cut:
            self.cut.append(replace(state, ended=False))
        return not cut

    async def _sampled(self, state: State) -> list[State]:
        request = f"Write only the {_place(state)} step of the solution, in one paragraph. {_ENDING}"
        sampling = self.policy.sampling
        limited = replace(sampling, stop=(SEPARATOR, *sampling.stop), max_tokens=self._room(state))
        prompt = self.policy.prompt_with(_so_far(state) + request, numbers_of(state.thoughts[-1:]))
        samples = await self.policy.think(prompt, limited, self.n_generate, "sample", state.text)
        return [self._child(state, sample) for sample in samples]

    async def _proposed(self, state: State) -> list[State]:
        prompt = self.policy.prompt_with(
            f"{_so_far(state)}Propose {self.n_generate} different possibilities for the {_place(state)} step of the "
            f"solution, as a numbered list, one paragraph each and nothing else. {_ENDING}",
            numbers_of(state.thoughts[-1:]),
        )
        room = self._room(state)
        sampling = replace(self.policy.sampling, max_tokens=None if room is None else room * self.n_generate)
        listed = await self.policy.think(prompt, sampling, 1, "propose", state.text)
        thoughts = [thought for sample in listed for thought in proposals(sample)[: self.n_generate]]
        return [self._child(state, within(thought, room)) for thought in thoughts]

    def _child(self, state: State, thought: Sample) -> State:
        end = thought.chunks[-1]
        asked_to_stop = end.finish_reason == "stop" and end.stop in self.policy.task.sampling.stop
        ended = asked_to_stop or end.finish_reason == "length" or thought.withheld or bool(_BOX.search(thought.text))
        return replace(self._grown(state, thought, ended=ended), value=UNVALUED)

    def _grown(self, state: State, thought: Sample, *, ended: bool) -> State:
        """The state with one more thought. It has ended where a stop string of the client's lies across thoughts."""
        grown = replace(state, thoughts=(*state.thoughts, thought), ended=ended)
        stops, said = self.policy.task.sampling.stop, grown.sample
        found = first_stop(said.text, stops, len(state.sample.text)) if stops else None
        if not found:
            return grown
        whole = without_end(stopped_at(said, found.text), len(said.text) - found.start)
        return replace(grown, thoughts=(whole,), ended=True)

    def _room(self, state: State) -> int | None:
        limit = self.policy.task.sampling.max_tokens
        return None if limit is None else limit - state.completion_tokens

    async def _votes(self, states: Sequence[State]) -> list[Value]:
        """Each state's share of the votes; a single one has all without asking."""
        if len(states) < 2:
            return [Value(1.0) for _ in states]
        choices = "\n\n".join(f"Choice {i}:\n{state.text}" for i, state in enumerate(states, 1))
        parents = numbers_of(state.thoughts[-1] for state in states)
        question = f"{_VOTE}\n\nProblem:\n{self.policy.task.question}\n\n{choices}"
        said = await self.policy.judge(question, parents, self.n_evaluate, self.evaluator.tokens, "vote", choices)
        votes = [int(found[-1]) for text in said if (found := _CHOICE.findall(text))]
        return [Value(votes.count(i) / max(1, len(said))) for i in range(1, len(states) + 1)]


def families(states: Sequence[State]) -> list[list[State]]:
    """The states by what they follow."""
    groups: dict[tuple[int, ...], list[State]] = {}
    for state in states:
        groups.setdefault(tuple(id(thought) for thought in state.thoughts[:-1]), []).append(state)
    return list(groups.values())


def _so_far(state: State) -> str:
    return f"The solution so far:\n{state.text}\n\n" if state.thoughts else ""


def _place(state: State) -> str:
    return "next" if state.thoughts else "first"


def proposals(listed: Sample) -> list[Sample]:
    """The items of a list, each as a sample of its own: numbered, else with bullets, else the lines.

    What stands before the first item is none. The last one of a list that was cut is left out unless it is the only
    one.
    """
    text = listed.text
    marks = next(filter(None, (list(form.finditer(text)) for form in (_NUMBERED, _BULLETS, _LINES))), [])
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    items = [_slice(listed, mark.end(), end) for mark, end in zip(marks, ends, strict=False)]
    items = [item for item in items if item.chunks]
    if not listed.finished and len(items) > 1:
        return items[:-1]
    end = listed.chunks[-1]
    if items:
        items[-1].chunks[-1] = replace(items[-1].chunks[-1], finish_reason=end.finish_reason, stop=end.stop)
    return items


def _slice(sample: Sample, start: int, end: int) -> Sample:
    """The chunks of a part of the text, blanks around it left out; it ends by itself."""
    text = sample.text
    end = start + len(text[start:end].rstrip())
    chunks: list[Chunk] = []
    at = 0
    for chunk in sample.chunks:
        shared = chunk.text[max(0, start - at) : max(0, end - at)]
        at += len(chunk.text)
        if shared:
            chunks.append(replace(chunk, text=shared, prompt_tokens=0, cached_tokens=0, finish_reason=None))
    if chunks:
        chunks[-1] = replace(chunks[-1], finish_reason="eos", number=sample.number)
    return Sample(chunks)


def within(thought: Sample, room: int | None) -> Sample:
    """The thought cut to the tokens that there is room for."""
    if room is None or thought.completion_tokens <= room:
        return thought
    chunks: list[Chunk] = []
    for chunk in thought.chunks:
        room -= chunk.completion_tokens
        if room < 0:
            break
        chunks.append(chunk)
    return Sample([*chunks, Chunk(0, finish_reason="length")])
