"""Fine-tuning of a language model to a process reward model: LoRA, binary cross-entropy at step ends.

Knows layouts and heads (`prm.families.contract`), not where labels come from or how good the result is.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prm.families.contract import Classes, Family, Head, LabelTokens, Layout, Sigmoid

EXTRA = "training needs torch, transformers and peft; in a checkout: pip install '.[train]'"
_HEADS = {"lm_head", "score", "classifier"}
"""Linear layers that are no part of the network's body."""


@dataclass(frozen=True, slots=True)
class Options:
    """How it is trained."""

    epochs: int = 2
    batch: int = 16
    """Solutions an update."""
    micro_tokens: int = 4096
    """Tokens a forward pass, padding included; a batch of more is accumulated."""
    learning_rate: float = 2e-4
    warmup: float = 0.05
    """Share of the updates in which the learning rate rises; then it falls as a cosine to 0."""
    rank: int = 16
    dropout: float = 0.05
    clip: float = 1.0
    """Largest norm of a gradient."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """One solution as the model reads it."""

    id: str
    layout: Layout
    targets: tuple[float | None, ...]
    """P(right) of each of the layout's ends, None where it is not trained on."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A model that is, or will be, a reward model."""

    model: Any
    """Of PEFT."""
    tokenizer: Any
    family: Family
    device: str
    dtype: str
    """Of the weights that are not trained."""

    @property
    def max_len(self) -> int:
        """Tokens of the longest input."""
        return int(self.model.config.max_position_embeddings)

    @property
    def trained(self) -> list[Any]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def adapted(model: Any, options: Options, *, classifies: bool) -> Any:
    """The model with a fresh LoRA adapter (2106.09685) on every linear layer of its body; only that is trained, and
    a classification head with it.

    Raises:
        ImportError: the extra `train` is not installed.
    """
    try:
        from peft import LoraConfig, TaskType, get_peft_model  # noqa: PLC0415
        from torch import nn  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(EXTRA) from error
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    config = LoraConfig(
        task_type=TaskType.TOKEN_CLS if classifies else TaskType.CAUSAL_LM,
        r=options.rank,
        lora_alpha=2 * options.rank,
        lora_dropout=options.dropout,
        target_modules=sorted(linear - _HEADS),
    )
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            # Small updates would be rounded away.
            parameter.data = parameter.data.float()
    return adapted


def example(
    family: Family, question: str, steps: Sequence[str], targets: Sequence[float | None], id_: str, max_len: int
) -> Example:
    """A solution as the family lays it out, up to the last step that ends within `max_len` tokens.

    No end is left where the question and the first step are longer.
    """
    (layout,) = family.layouts(question, steps)
    ends = tuple(end for end in layout.ends if end < max_len)
    token_ids = layout.token_ids[: ends[-1] + 1] if ends else ()
    return Example(id_, Layout(token_ids, ends), tuple(targets[: len(ends)]))


def train(tuned: Tuned, examples: Sequence[Example], options: Options, on_update: Callable[[float], None]) -> None:
    """Trains on the examples, in another order each epoch; `on_update` is told each update's mean loss a step."""
    import torch  # noqa: PLC0415

    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    optimizer = torch.optim.AdamW(tuned.trained, lr=options.learning_rate, weight_decay=0.0)
    total = updates(len(examples), options)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _rate(done, total, options.warmup))
    tuned.model.train()
    for _ in range(options.epochs):
        order = rng.sample(examples, len(examples))
        for start in range(0, len(order), options.batch):
            loss = _accumulated(tuned, order[start : start + options.batch], options.micro_tokens)
            torch.nn.utils.clip_grad_norm_(tuned.trained, options.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            on_update(loss)


def updates(examples: int, options: Options) -> int:
    """How many updates a training of so many examples has."""
    return options.epochs * math.ceil(examples / options.batch)


def score(tuned: Tuned, examples: Sequence[Example], micro_tokens: int) -> dict[str, tuple[float, ...]]:
    """P(right) at each end of each example, by its id."""
    import torch  # noqa: PLC0415

    tuned.model.eval()
    scores: dict[str, tuple[float, ...]] = {example.id: () for example in examples}
    with torch.inference_mode():
        for group in packed([example for example in examples if example.layout.ends], micro_tokens):
            at = iter(torch.sigmoid(_margins(tuned, group)).tolist())
            scores |= {example.id: tuple(next(at) for _ in example.layout.ends) for example in group}
    return scores


def packed(examples: Sequence[Example], tokens: int) -> Iterator[list[Example]]:
    """The examples in groups of similar length, none of more than `tokens` padded tokens unless it is one example."""
    group: list[Example] = []
    for candidate in sorted(examples, key=lambda example: -len(example.layout.token_ids)):
        if group and len(group[0].layout.token_ids) * (len(group) + 1) > tokens:
            yield group
            group = []
        group.append(candidate)
    if group:
        yield group


def _rate(done: int, total: int, warmup: float) -> float:
    rising = math.ceil(warmup * total)
    if done < rising:
        return (done + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (done - rising) / max(1, total - rising)))


def _accumulated(tuned: Tuned, batch: Sequence[Example], micro_tokens: int) -> float:
    """Leaves the gradient of the batch's mean loss a step in the parameters, and returns that loss."""
    import torch  # noqa: PLC0415

    steps = sum(target is not None for example in batch for target in example.targets)
    loss_sum = 0.0
    for group in packed(batch, micro_tokens):
        targets = [target for example in group for target in example.targets]
        known = [i for i, target in enumerate(targets) if target is not None]
        wanted = torch.tensor([targets[i] for i in known], dtype=torch.float32, device=tuned.device)
        margins = _margins(tuned, group)[known]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(margins, wanted, reduction="sum") / steps
        loss.backward()  # type: ignore[no-untyped-call]
        loss_sum += loss.item()
    return loss_sum


def _margins(tuned: Tuned, group: Sequence[Example]) -> Any:
    """ln(P(right) / P(wrong)) at every end of every example, in order; float32."""
    import torch  # noqa: PLC0415

    width = max(len(example.layout.token_ids) for example in group)
    ids = torch.zeros(len(group), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(group):
        length = len(example.layout.token_ids)
        ids[row, :length] = torch.tensor(example.layout.token_ids)
        mask[row, :length] = 1
    whole = tuned.model.get_base_model()
    inputs = {"input_ids": ids.to(tuned.device), "attention_mask": mask.to(tuned.device)}
    hidden = whole.base_model(**inputs, use_cache=False).last_hidden_state
    rows = [row for row, example in enumerate(group) for _ in example.layout.ends]
    ends = [end for example in group for end in example.layout.ends]
    return _head(whole, tuned.family.head, hidden[rows, ends])


def _head(model: Any, head: Head, hidden: Any) -> Any:
    """The head alone, at the few positions that are wanted; of a whole vocabulary, two rows."""
    import torch  # noqa: PLC0415

    match head:
        case LabelTokens(right, wrong):
            layer = model.get_output_embeddings()
            weight = layer.weight[[right, wrong]].float()
            bias = None if layer.bias is None else layer.bias[[right, wrong]].float()
            outputs = torch.nn.functional.linear(hidden.float(), weight, bias)
            return outputs[:, 0] - outputs[:, 1]
        case Classes(right):
            outputs = model.score(hidden.float())
            others = [i for i in range(outputs.shape[1]) if i != right]
            return outputs[:, right] - outputs[:, others].logsumexp(-1)
        case Sigmoid():
            return model.score(hidden.float())[:, 0]
