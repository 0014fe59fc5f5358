"""When to use which strategy and what it costs: what its page says and neither signature nor docstring does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Guide:
    """One strategy's."""

    when: str
    cost: str
    """Generated tokens; L are those of one solution."""
    rounds: str
    """Calls that wait for one another; T are the steps of one solution."""
    example: Mapping[str, Any] = field(default_factory=dict)
    """Options of the example request."""
    toy: Mapping[str, Any] = field(default_factory=dict)
    """What the search in the figure has beside them."""


GUIDES = {
    "ab_mcts": Guide(
        "a reward model can rank whole solutions and revising them helps", "n · L", "n / batch", {"n": 8, "batch": 2}
    ),
    "beam_search": Guide(
        "problems are hard for the policy and the reward model is good at single steps",
        "n · L; with lookahead k up to n · L · (k + 1)",
        "T, each with a scoring pass; with lookahead k (k + 1) · T",
        {"n": 4, "beam_width": 2},
    ),
    "best_of_n": Guide("a reward model fits the task", "n · L", "1 and a scoring pass", {"n": 4}),
    "budget_forcing": Guide(
        "a reasoning model stops thinking too early or too late",
        "n · L and what is thought after each wait",
        "1 and one for each wait",
        {"min_waits": 2},
    ),
    "chain_of_action_thought": Guide(
        "the model was trained on Satori's action tokens; with any other it is an emulation", "n · L", "1"
    ),
    "compute_optimal": Guide(
        "questions differ in difficulty, and each should cost what it deserves within one budget",
        "4 · L where the pilot agrees, else what the chosen arm costs",
        "1 where the pilot agrees, else those of the chosen arm and one for each doubling of a vote",
        {"confidence": 0.95},
        {"target_accuracy": 0.7},
    ),
    "confidence": Guide(
        "there is no reward model, answers can be compared and the engine gives logprobs",
        "n · L; online less, as unsure traces are cut",
        "1; online the warm-up and then waves",
        {"n": 6, "keep": 0.5},
    ),
    "dvts": Guide(
        "the budget is large and beams would all become alike",
        "n · L",
        "T, each with a scoring pass",
        {"n": 4, "beam_width": 2},
    ),
    "early_exit": Guide(
        "a reasoning model goes on thinking after it has found its answer",
        "n · L at most, and the probes: n · L / every · probe_tokens at most",
        "L / every, with a probe each",
        {"every": 64, "agree": 3},
        {"every": 8, "agree": 2},
    ),
    "graph_of_thoughts": Guide(
        "partial results can be merged, or you want to say yourself what is done in which order",
        "one L a thought that is written, and the evaluations of the policy where there is no reward model",
        "as many as operations on the longest path",
    ),
    "mcts": Guide(
        "problems are hard and need to go back to early steps",
        "n · (branch steps an expansion + a rollout of at most L)",
        "n / parallel rollouts of up to T steps",
        {"n": 4, "branch": 2, "parallel": 1},
    ),
    "mixture_of_agents": Guide(
        "the answer is a text that gains from several drafts; there is no reward model",
        "((layers - 1) · proposers + 1) · L",
        "layers",
        {"layers": 3, "proposers": 3},
    ),
    "particle_filter": Guide(
        "the reward model is imperfect, so that always keeping the best would be misled",
        "iterations · n · L",
        "T, each with a scoring pass, for each iteration",
        {"n": 4},
    ),
    "rebase": Guide(
        "beam search's use, with a budget shared by rewards in place of a fixed width",
        "n · L at most: the width shrinks as solutions end",
        "T, each with a scoring pass",
        {"n": 4},
    ),
    "self_consistency": Guide(
        "answers can be compared and there is no reward model to trust",
        "n · L; with a stop about 4 · L where samples agree",
        "1; with a stop as many as waves",
        {"n": 5},
    ),
    "self_refine": Guide(
        "the model finds its own errors, or the reward model tells which revisions to keep",
        "n · (1 + 2 · revisions) · L at most",
        "1 + 2 · revisions",
        {"revisions": 2},
    ),
    "single": Guide("latency matters most", "L", "1"),
    "tree_of_thoughts": Guide(
        "problems need planning, and single thoughts can be judged",
        "breadth · n_generate thoughts a step, n_evaluate evaluations of each where there is no reward model, and "
        "breadth ends",
        "2 · max_steps + 1",
        {"n_generate": 2, "breadth": 2, "max_steps": 2},
    ),
    "universal_self_consistency": Guide(
        "answers are texts that cannot be compared exactly", "n · L and a verdict", "2", {"n": 4}
    ),
}
