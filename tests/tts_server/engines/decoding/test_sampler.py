import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from strategies.core.contracts import Sampling
from tts_server.engines.decoding.sampler import Sampler

torch: Any = pytest.importorskip("torch")

PROBS = (0.5, 0.3, 0.15, 0.05)
ROWS = 4000


def rows(values: tuple[float, ...], n: int = 1) -> Any:
    return torch.tensor(values).expand(n, -1)


def sampler(n: int = 1, prompt: tuple[int, ...] = (), ends: tuple[int, ...] = (), **fields: Any) -> Sampler:
    return Sampler(Sampling(**fields), prompt, n, ends)


def shares(probs: tuple[float, ...], **fields: Any) -> dict[int, float]:
    """How often each token is drawn from these probabilities."""
    drawn = Counter(sampler(ROWS, seed=1, **fields).draw(rows(probs, ROWS).log()))
    return {token: count / ROWS for token, count in sorted(drawn.items())}


def close(found: Mapping[int, float], wanted: Mapping[int, float]) -> bool:
    """Equal up to four standard deviations."""
    return found.keys() == wanted.keys() and all(
        abs(found[t] - p) <= 4 * math.sqrt(p * (1 - p) / ROWS) for t, p in wanted.items()
    )


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, {0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}),
        ({"top_k": 0}, {0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}),
        ({"top_k": -1, "top_p": 1.0, "min_p": 0.0}, {0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}),
        ({"top_k": 9}, {0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}),
        ({"top_k": 2}, {0: 0.625, 1: 0.375}),
        ({"top_p": 0.7}, {0: 0.625, 1: 0.375}),
        ({"top_p": 0.4}, {0: 1.0}),
        ({"top_p": 1e-9}, {0: 1.0}),
        ({"top_k": 3, "top_p": 0.6}, {0: 0.625, 1: 0.375}),
        ({"min_p": 0.25}, {0: 0.5 / 0.95, 1: 0.3 / 0.95, 2: 0.15 / 0.95}),
        ({"temperature": 0.5}, {t: p * p / 0.365 for t, p in enumerate(PROBS)}),
        ({"temperature": 0.5, "min_p": 0.3}, {0: 0.25 / 0.34, 1: 0.09 / 0.34}),
        ({"temperature": 0.0}, {0: 1.0}),
        ({"temperature": 1e-7}, {0: 1.0}),
        ({"logit_bias": {0: -100.0, 3: math.log(6)}}, {1: 0.4, 2: 0.2, 3: 0.4}),
        ({"allowed_token_ids": (1, 2)}, {1: 2 / 3, 2: 1 / 3}),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should(fields: dict[str, Any], wanted: dict[int, float]) -> None:
    assert close(shares(PROBS, **fields), wanted)


def test_top_p_looks_beyond_the_head_of_a_flat_distribution() -> None:
    weights = torch.arange(5000, 0, -1, dtype=torch.float64)
    probs = weights / weights.sum()
    kept = int((probs.cumsum(0) - probs < 0.9).sum())
    drawn = sampler(ROWS, seed=1, top_p=0.9).draw(probs.log().float().expand(ROWS, -1))
    assert 0.95 * kept < max(drawn) < kept


@pytest.mark.parametrize(
    ("fields", "logits", "wanted"),
    [
        # Token 0 stands in the prompt, token 1 was drawn twice, token 2 never.
        ({"repetition_penalty": 2.0}, (2.0, 0.0, 0.99), 0),
        ({"repetition_penalty": 2.0}, (2.0, 0.0, 1.01), 2),
        ({"repetition_penalty": 2.0}, (-9.0, 2.0, 0.99), 1),
        ({"repetition_penalty": 2.0}, (-9.0, 2.0, 1.01), 2),
        ({"repetition_penalty": 2.0}, (-1.0, -9.0, -1.99), 2),
        ({"repetition_penalty": 2.0}, (-1.0, -9.0, -2.01), 0),
        ({"frequency_penalty": 0.5}, (2.0, 0.0, 1.99), 0),
        ({"frequency_penalty": 0.5}, (-9.0, 2.0, 0.99), 1),
        ({"frequency_penalty": 0.5}, (-9.0, 2.0, 1.01), 2),
        ({"presence_penalty": 0.5}, (2.0, 0.0, 1.99), 0),
        ({"presence_penalty": 0.5}, (-9.0, 2.0, 1.49), 1),
        ({"presence_penalty": 0.5}, (-9.0, 2.0, 1.51), 2),
        ({"presence_penalty": -0.5}, (-9.0, 2.0, 2.49), 1),
        ({"repetition_penalty": 2.0, "frequency_penalty": 0.25, "presence_penalty": 0.5}, (-9.0, 4.0, 0.99), 1),
        ({"repetition_penalty": 2.0, "frequency_penalty": 0.25, "presence_penalty": 0.5}, (-9.0, 4.0, 1.01), 2),
        ({"repetition_penalty": 2.0, "logit_bias": {1: 2.0}}, (-9.0, 2.0, 1.99), 1),
        ({"repetition_penalty": 2.0, "logit_bias": {1: 2.0}}, (-9.0, 2.0, 2.01), 2),
    ],
)
def test_penalties_move_logits_by_the_amounts_computed_by_hand(
    fields: dict[str, Any], logits: tuple[float, ...], wanted: int
) -> None:
    drawing = sampler(prompt=(0, 0), temperature=0.0, **fields)
    for _ in range(2):
        assert drawing.draw(rows((0.0, 99.0, 0.0))) == [1]
    assert drawing.draw(rows(logits)) == [wanted]


def test_penalties_belong_to_their_row() -> None:
    drawing = sampler(2, temperature=0.0, presence_penalty=1.0)
    drawing.draw(torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]))
    drawing.keep([1])
    assert drawing.draw(rows((2.0, 2.5, 0.0))) == [0]


def test_ends_are_forbidden_until_min_tokens() -> None:
    drawing = sampler(ends=(1, 2), temperature=0.0, min_tokens=2, logit_bias={1: 5.0})
    assert [drawing.draw(rows((0.0, 9.0, 9.0)))[0] for _ in range(4)] == [0, 0, 1, 1]


def test_a_seeded_sample_does_not_depend_on_those_beside_it() -> None:
    logits = torch.zeros(1, 1000)
    many, few = sampler(4, seed=7), sampler(2, seed=7)
    assert many.draw(logits.expand(4, -1))[:2] == few.draw(logits.expand(2, -1))
    many.keep([1, 3])
    few.keep([1])
    assert many.draw(logits.expand(2, -1))[0] == few.draw(logits)[0]


def test_samples_differ_by_index_by_seed_and_without_one() -> None:
    logits = torch.zeros(3, 100_000)
    draws = [sampler(3, seed=seed).draw(logits) for seed in (1, 2, None, None)]
    assert len({token for drawn in draws for token in drawn}) == 12


@pytest.mark.parametrize("logits", [(0.0, math.nan), (0.0, math.inf), (-math.inf, -math.inf)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_fails_numerically_is_an_error(logits: tuple[float, ...], temperature: float) -> None:
    with pytest.raises(ArithmeticError, match="finite"):
        sampler(temperature=temperature).draw(rows(logits))
