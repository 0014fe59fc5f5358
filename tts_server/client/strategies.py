"""A class for each strategy of the server, with its options typed.

`python docs/tools/write_client.py` writes this file from the strategies' own signatures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tts_server.client.options import UNSET, StrategyOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ABMCTS(StrategyOptions):
    """Generates solutions one after another, each a fresh one or a revision, whichever promises the better score."""

    strategy: ClassVar[str] = "ab_mcts"
    n: int = UNSET
    batch: int = UNSET
    dist_type: Literal["gaussian", "beta"] = UNSET
    selector: Literal["best", "weighted", "majority"] | None = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamSearch(StrategyOptions):
    """Samples n first steps, then keeps the best n / beam_width and samples beam_width continuations of each."""

    strategy: ClassVar[str] = "beam_search"
    n: int = UNSET
    beam_width: int = UNSET
    lookahead: int = UNSET
    max_steps: int = UNSET
    step_tokens: int | None = UNSET
    separator: str = UNSET
    selector: Literal["best", "weighted", "majority"] = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfN(StrategyOptions):
    """Draws n samples and returns the one that the reward model, or a vote weighted by it, prefers."""

    strategy: ClassVar[str] = "best_of_n"
    n: int = UNSET
    selector: Literal["best", "weighted", "majority"] | None = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetForcing(StrategyOptions):
    """Puts a thought's end off with "Wait", or closes it at a limit, then lets the model answer."""

    strategy: ClassVar[str] = "budget_forcing"
    n: int = UNSET
    min_waits: int = UNSET
    wait: str = UNSET
    max_thinking_tokens: int = UNSET
    answer_prompt: str = UNSET
    think_open: str = UNSET
    think_close: str = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOfActionThought(StrategyOptions):
    """Lets the model go on, reflect or start over step by step, and returns the solution without those markers."""

    strategy: ClassVar[str] = "chain_of_action_thought"
    n: int = UNSET
    mode: Literal["auto", "tokens", "prompt"] = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeOptimal(StrategyOptions):
    """Draws a few samples, and spends on the question what its difficulty deserves and the budget allows."""

    strategy: ClassVar[str] = "compute_optimal"
    target_accuracy: float | None = UNSET
    accept_score: float | None = UNSET
    confidence: float = UNSET
    min_gain: float = UNSET
    exploration: float = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence(StrategyOptions):
    """Draws traces and lets those vote of which the model itself was the surest, by its logprobs."""

    strategy: ClassVar[str] = "confidence"
    n: int = UNSET
    mode: Literal["offline", "online"] = UNSET
    choose: Literal["vote", "best"] = UNSET
    keep: float = UNSET
    measure: Literal["lowest", "bottom", "tail", "mean", "logprob"] | None = UNSET
    window: int = UNSET
    window_share: float = UNSET
    top_logprobs: int = UNSET
    warmup: int = UNSET
    consensus: float = UNSET
    parallel: int = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class DVTS(StrategyOptions):
    """Searches n / beam_width independent subtrees greedily; the last candidates of all of them vote."""

    strategy: ClassVar[str] = "dvts"
    n: int = UNSET
    beam_width: int = UNSET
    max_steps: int = UNSET
    step_tokens: int | None = UNSET
    separator: str = UNSET
    selector: Literal["best", "weighted", "majority"] = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExit(StrategyOptions):
    """Probes a thought for its answer as it grows, and ends it with that answer once several probes agree."""

    strategy: ClassVar[str] = "early_exit"
    n: int = UNSET
    every: int = UNSET
    agree: int = UNSET
    probe: str = UNSET
    probe_tokens: int = UNSET
    think_open: str = UNSET
    think_close: str = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOfThoughts(StrategyOptions):
    """Runs a graph of operations on whole solutions: generate, score, keep the best, aggregate and refine."""

    strategy: ClassVar[str] = "graph_of_thoughts"
    graph: Sequence[Mapping[str, Any]] | None = UNSET
    evaluation_tokens: int = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class MCTS(StrategyOptions):
    """Rolls solutions out through a tree of steps, more often where earlier ones were good; all that ended vote."""

    strategy: ClassVar[str] = "mcts"
    n: int = UNSET
    branch: int = UNSET
    selection: Literal["puct", "uct"] = UNSET
    exploration: float | None = UNSET
    value: Literal["prm", "rollout"] | None = UNSET
    parallel: int = UNSET
    root_noise: float = UNSET
    noise_alpha: float = UNSET
    max_steps: int = UNSET
    step_tokens: int | None = UNSET
    separator: str = UNSET
    selector: Literal["best", "weighted", "majority"] | None = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureOfAgents(StrategyOptions):
    """Draws proposals in layers that build on one another, and has the model write one answer from the last."""

    strategy: ClassVar[str] = "mixture_of_agents"
    layers: int = UNSET
    proposers: int = UNSET
    proposer_prompts: Sequence[str] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticleFilter(StrategyOptions):
    """Extends all particles by a step, then draws them anew in proportion to the odds of their last steps' scores."""

    strategy: ClassVar[str] = "particle_filter"
    n: int = UNSET
    iterations: int = UNSET
    resampling: Literal["multinomial", "systematic"] = UNSET
    weight_temperature: float = UNSET
    max_steps: int = UNSET
    step_tokens: int | None = UNSET
    separator: str = UNSET
    selector: Literal["best", "weighted", "majority"] = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class REBASE(StrategyOptions):
    """Shares the tree's width among its nodes by the softmax of their last steps' scores, depth by depth."""

    strategy: ClassVar[str] = "rebase"
    n: int = UNSET
    balance_temperature: float = UNSET
    max_steps: int = UNSET
    step_tokens: int | None = UNSET
    separator: str = UNSET
    selector: Literal["best", "weighted", "majority"] = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfConsistency(StrategyOptions):
    """Draws samples and returns the answer that most of them, or most of their weight, agree on."""

    strategy: ClassVar[str] = "self_consistency"
    n: int = UNSET
    selector: Literal["majority", "logprob", "weighted"] = UNSET
    stopping: Literal["none", "beta", "esc"] = UNSET
    confidence: float = UNSET
    window: int = UNSET
    parallel: int | None = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfRefine(StrategyOptions):
    """Has the model review its solution and revise it, in one or more chains; a reward model keeps what got better."""

    strategy: ClassVar[str] = "self_refine"
    n: int = UNSET
    revisions: int = UNSET
    accept: Literal["score", "majority", "last"] | None = UNSET
    feedback_tokens: int = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Single(StrategyOptions):
    """Answers with one sample, streamed from its first token; n choices are n samples."""

    strategy: ClassVar[str] = "single"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeOfThoughts(StrategyOptions):
    """Searches a tree whose nodes are partial solutions, which the policy itself or a reward model evaluates."""

    strategy: ClassVar[str] = "tree_of_thoughts"
    generator: Literal["sample", "propose"] = UNSET
    evaluator: Literal["value", "vote", "prm"] | None = UNSET
    search: Literal["bfs", "dfs"] = UNSET
    n_generate: int = UNSET
    n_evaluate: int = UNSET
    breadth: int = UNSET
    max_steps: int = UNSET
    threshold: float = UNSET
    max_visits: int = UNSET
    evaluation_tokens: int = UNSET
    aggregation: Literal["last", "min", "prod", "mean"] | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class UniversalSelfConsistency(StrategyOptions):
    """Draws n samples and returns the one that the model, asked, calls the most consistent with the others."""

    strategy: ClassVar[str] = "universal_self_consistency"
    n: int = UNSET
    fallback: Literal["majority", "medoid"] = UNSET
    verdict_tokens: int = UNSET
    verdict_temperature: float = UNSET
