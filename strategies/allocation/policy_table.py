"""The policy table: for each difficulty, what each way to spend compute has reached and cost on one model.

A JSON file, written by `tts-bench calibrate` and read by the server. It holds for one model, one reward model and one
prompt: accuracies and costs of others are others.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, with_config

from strategies.allocation.difficulty import CHECKED, FEATURES, Difficulty, Share
from strategies.core.account import Account
from strategies.core.plain_words import reason
from strategies.core.prompts import BOXED
from strategies.core.registry import registry

STOP = "stop"
"""The arm that draws nothing more: the answer is the pilot's vote."""
ALLOCATOR = "compute_optimal"
"""The strategy that reads the table, and so is none of its arms."""
PROMPT_OPTIONS = ("system_prompt", "examples")
"""Of the request, not of an arm: the pilot and the arm have one prompt."""

Amount = Annotated[float, Field(ge=0)]


class PolicyError(ValueError):
    """The file is no policy; the message names the field."""


@with_config(CHECKED)
@dataclass(frozen=True, slots=True)
class Tokens:
    """What requests cost; the whole request, its pilot included."""

    p50: Amount
    p95: Amount
    mean: Amount


@with_config(CHECKED)
@dataclass(frozen=True, slots=True)
class Seconds:
    """How long requests took, from their arrival to their answer."""

    p50: Amount
    p95: Amount


@with_config(CHECKED)
@dataclass(frozen=True, slots=True)
class Cell:
    """One way to answer questions of one difficulty, and what came of it."""

    bin: Annotated[int, Field(ge=0)]
    """0 is the hardest."""
    strategy: str
    """A registered one, or `stop`."""
    options: Mapping[str, Any]
    accuracy: Share
    low: Share
    """The lower end of the accuracy's interval: what the choice goes by."""
    high: Share
    problems: Annotated[int, Field(ge=0)]
    """On which it was measured; 0: it was not."""
    tokens: Tokens
    """Generated."""
    prm_tokens: Tokens
    wall_s: Seconds


@with_config(CHECKED)
@dataclass(frozen=True, slots=True)
class Pilot:
    """The first samples of every question."""

    n: Annotated[int, Field(ge=1, le=64)] = 4
    """Beta stopping at 0.95 never stops before four agree."""


@with_config(CHECKED)
@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy table and the model of difficulty that goes with it."""

    version: Literal[1] = 1
    model: Annotated[str, Field(min_length=1)]
    """As clients call it."""
    prm: str | None
    """The reward model's name; None: none was used."""
    prompt: str
    """The system prompt's text, or `boxed`, as the option `system_prompt` has it; empty: none."""
    created: str
    """ISO 8601."""
    source: str
    """What it was fitted from."""
    pilot: Pilot
    difficulty: Difficulty | None
    """None: the votes alone tell the difficulty."""
    edges: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    """Of P(one sample is right), rising; bin i is from edge i - 1 up to, but not, edge i."""
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]
    """Of questions whose pilots do not agree: only for those an arm is chosen."""
    agreed: Share | None
    """Accuracy of the pilots that agree, which are the answer; None: there were none."""

    def bin_of(self, p: float) -> int:
        """The bin of a question of which one sample is right with the chance p."""
        return bisect_right(self.edges, p)

    def cells_of(self, place: int) -> list[Cell]:
        """The cells of a bin; of one without any, those of the nearest that has some, the harder of two."""
        nearest = min({cell.bin for cell in self.cells}, key=lambda other: (abs(other - place), other))
        return [cell for cell in self.cells if cell.bin == nearest]

    def mismatch(self, model: str, prm: str | None, prompt: str) -> str | None:
        """Why it does not hold for a request; None if it does.

        A policy that was fitted without a reward model holds beside any: none is used.

        Args:
            model: as clients call it.
            prm: the name of the reward model that there is.
            prompt: the system prompt's text.
        """
        if model != self.model:
            return f"the policy was fitted for the model {self.model!r}, not {model!r}"
        if self.prm is not None and prm != self.prm:
            return f"the policy was fitted with the reward model {self.prm!r}, not {prm or 'none'!r}"
        if prompt.strip() != self.system_prompt:
            return f"the policy was fitted with the system prompt {self.prompt[:60]!r}"
        return None

    @property
    def system_prompt(self) -> str:
        """The prompt's text."""
        return BOXED if self.prompt == "boxed" else self.prompt.strip()


@dataclass(frozen=True, slots=True)
class InUse:
    """A policy that a server was started with."""

    policy: Policy
    forced: bool = False
    """Whether it is used whatever it was fitted for."""

    def mismatch(self, model: str, prm: str | None, prompt: str) -> str | None:
        """Why it is not used for a request, see `Policy.mismatch`; None if it is."""
        return None if self.forced else self.policy.mismatch(model, prm, prompt)


def in_use(account: Account) -> InUse | None:
    """The policy that an account was given, if one was."""
    return account.policy if isinstance(account.policy, InUse) else None


def choose(cells: Sequence[Cell], target: float | None = None) -> Cell | None:
    """The cell with the highest lower bound of its accuracy, the cheaper of equals; None of none.

    With a target, the cheapest of those whose lower bound reaches it; where none does, as without one.
    """
    enough = [cell for cell in cells if target is not None and cell.low >= target]
    if enough:
        return min(enough, key=lambda cell: (cell.tokens.mean, -cell.low))
    return max(cells, key=lambda cell: (cell.low, -cell.tokens.mean), default=None)


def read(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        PolicyError: there is none, or it is wrong; the message names the file and the field.
    """
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from None
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def parse(text: str | bytes) -> Policy:
    """The policy that a JSON text is.

    Raises:
        PolicyError: it is none; the message names the field.
    """
    try:
        policy = TypeAdapter(Policy).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise PolicyError(f"{place}: {reason(first)}" if place else reason(first)) from None
    check(policy)
    return policy


def write(policy: Policy, path: Path) -> None:
    """Writes a policy to a file.

    Raises:
        PolicyError: it could not be read again; the message names the field.
    """
    text = json.dumps(asdict(policy), indent=1, ensure_ascii=False)
    parse(text)
    path.write_text(text + "\n")


def check(policy: Policy) -> None:
    """Raises PolicyError, naming the field, unless the parts of a policy go together."""
    try:
        datetime.fromisoformat(policy.created)
    except ValueError:
        raise PolicyError(f"created: an ISO 8601 time, got {policy.created!r}") from None
    if list(policy.edges) != sorted(set(policy.edges)):
        raise PolicyError(f"edges: they rise, got {list(policy.edges)}")
    if policy.difficulty:
        _check_difficulty(policy.difficulty)
    for place, cell in enumerate(policy.cells):
        _check_cell(cell, len(policy.edges), f"cells.{place}")


def _check_difficulty(model: Difficulty) -> None:
    unknown = [name for name in model.features if name not in FEATURES]
    if unknown:
        raise PolicyError(f"difficulty.features: unknown feature {unknown[0]!r}; known: {', '.join(FEATURES)}")
    for name in ("mean", "scale", "coefficients"):
        if len(getattr(model, name)) != len(model.features):
            raise PolicyError(f"difficulty.{name}: one for each of {len(model.features)} features")
    x, y = model.isotonic.x, model.isotonic.y
    if len(x) != len(y):
        raise PolicyError(f"difficulty.isotonic.y: one for each of {len(x)} x, got {len(y)}")
    if list(x) != sorted(x) or list(y) != sorted(y):
        raise PolicyError("difficulty.isotonic: neither x nor y may fall")


def _check_cell(cell: Cell, hardest: int, place: str) -> None:
    if cell.bin > hardest:
        raise PolicyError(f"{place}.bin: at most {hardest} with {hardest} edges, got {cell.bin}")
    if not cell.low <= cell.accuracy <= cell.high:
        raise PolicyError(f"{place}.accuracy: between low and high, got {cell.low}, {cell.accuracy}, {cell.high}")
    for name in ("tokens", "prm_tokens", "wall_s"):
        amount = getattr(cell, name)
        if amount.p50 > amount.p95:
            raise PolicyError(f"{place}.{name}.p95: at least p50, got {amount.p95}")
    if cell.strategy == STOP:
        if cell.options:
            raise PolicyError(f"{place}.options: {STOP!r} has none")
        return
    if misplaced := sorted(set(PROMPT_OPTIONS) & cell.options.keys()):
        raise PolicyError(f"{place}.options.{misplaced[0]}: it is the request's, see `prompt`")
    complete_options(cell, place)


def complete_options(cell: Cell, place: str = "cell") -> dict[str, Any]:
    """The options of a cell's strategy, typed and complete.

    Raises:
        PolicyError: there is no such strategy, or it has no such option.
    """
    known = registry()
    if cell.strategy not in known or cell.strategy == ALLOCATOR:
        arms = ", ".join(name for name in (STOP, *known) if name != ALLOCATOR)
        raise PolicyError(f"{place}.strategy: unknown arm {cell.strategy!r}; known: {arms}")
    entry = known[cell.strategy]
    try:
        checked: BaseModel = entry.options.model_validate(dict(cell.options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PolicyError(f"{place}.options.{'.'.join(map(str, first['loc']))}: {reason(first)}") from None
    return {name: getattr(checked, name) for name in entry.options.model_fields}
