"""Reading with kept states against reading in full."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from prm import Layout, PRMError

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

from prm.backend.incremental import Costs, IncrementalReader, Limits  # noqa: E402

BIG = 2**40
SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
}


def llama() -> Any:
    return transformers.LlamaModel(transformers.LlamaConfig(**SHAPE))


def qwen() -> Any:
    return transformers.Qwen2Model(transformers.Qwen2Config(**SHAPE))


def windowed() -> Any:
    return transformers.MistralModel(transformers.MistralConfig(**SHAPE, sliding_window=8))


def gpt2() -> Any:
    return transformers.GPT2Model(transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2))


def made(model: Any) -> Any:
    torch.manual_seed(0)
    return model().eval()


def score(hidden: Any) -> Any:
    return (hidden.sum(-1) / 3).sigmoid()


def reader(backbone: Any, tokens: int = 2048, memory: int = BIG, cache: int = BIG) -> IncrementalReader:
    return IncrementalReader(backbone, score, Limits(tokens, memory, cache))


def read_all(reader: IncrementalReader, layouts: Sequence[Layout]) -> tuple[list[tuple[float, ...]], list[int]]:
    """All scores, batch by batch, and the tokens of each batch."""
    waiting, scores, tokens = list(range(len(layouts))), dict[int, tuple[float, ...]](), list[int]()
    while waiting:
        planned = reader.choose([layouts[i] for i in waiting])
        batch = [waiting[place] for place, _ in planned]
        tokens.append(sum(each.tokens for each in planned))
        scores |= zip(batch, reader.read([layouts[i] for i in batch]), strict=True)
        waiting = [i for i in waiting if i not in batch]
    return [scores[i] for i in range(len(layouts))], tokens


def in_full(backbone: Any, layout: Layout) -> list[float]:
    with torch.no_grad():
        hidden = backbone(input_ids=torch.tensor([layout.token_ids])).last_hidden_state[0]
    scores: list[float] = score(hidden[list(layout.ends)]).tolist()
    return scores


def grown(seed: int, rounds: int = 6, beams: int = 5) -> list[list[Layout]]:
    """What a search scores in each round: each beam goes on from one of the round before."""
    draw = random.Random(seed)
    opening = tuple(draw.randrange(50) for _ in range(20))
    kept, every = [Layout(opening, ())], list[list[Layout]]()
    for _ in range(rounds):
        kept = [
            Layout(
                parent.token_ids + (step := tuple(draw.randrange(50) for _ in range(draw.randint(1, 12)))),
                (*parent.ends, len(parent.token_ids) + len(step) - 1),
            )
            for parent in draw.choices(kept, k=beams)
        ]
        every.append(kept)
    return every


@pytest.mark.parametrize("model", [llama, qwen, windowed, gpt2])
@pytest.mark.parametrize("cache", [BIG, 20_000, 0])
def test_scores_are_those_of_full_reading(model: Any, cache: int) -> None:
    backbone = made(model)
    incremental = reader(backbone, tokens=64, cache=cache)
    for layouts in grown(seed=1):
        scores, _ = read_all(incremental, layouts)
        for layout, got in zip(layouts, scores, strict=True):
            assert got == pytest.approx(in_full(backbone, layout), abs=1e-4)


def test_a_next_step_costs_its_tokens() -> None:
    incremental = reader(made(llama))
    first = Layout(tuple(range(30)), (9, 29))
    assert read_all(incremental, [first])[1] == [30]
    assert read_all(incremental, [Layout((*first.token_ids, 1, 2, 3), (9, 29, 32))])[1] == [3]
    assert read_all(incremental, [first])[1] == [0]
    assert read_all(incremental, [Layout(first.token_ids[:10], (9,))])[1] == [0]


def test_an_end_that_was_not_read_before_is_read_again_from_there() -> None:
    backbone = made(llama)
    incremental = reader(backbone)
    read_all(incremental, [Layout(tuple(range(30)), (29,))])
    layout = Layout(tuple(range(30)), (10, 29))
    (scores,), tokens = read_all(incremental, [layout])
    assert tokens == [20]
    assert scores == pytest.approx(in_full(backbone, layout), abs=1e-5)


def test_what_a_batch_has_in_common_is_computed_once() -> None:
    shared = tuple(range(40)) * 3
    layouts = [Layout((*shared, i, i), (121,)) for i in range(6)]
    scores, tokens = read_all(reader(made(llama)), layouts)
    assert tokens == [122, 10]
    assert len(set(scores)) == 6
    assert read_all(reader(made(llama), cache=0), layouts)[1] == [6 * 122]


def test_layouts_of_a_size_share_a_batch_and_the_oldest_is_in_it() -> None:
    lengths = [30, 4, 31, 5, 29, 6]
    layouts = [Layout((i, *range(n - 1)), (n - 1,)) for i, n in enumerate(lengths)]
    incremental = reader(made(llama), tokens=100)
    batches = []
    while layouts:
        planned = incremental.choose(layouts)
        assert 0 in [place for place, _ in planned]
        batches.append(sorted(len(layouts[place].token_ids) for place, _ in planned))
        incremental.read([layouts[place] for place, _ in planned])
        layouts = [layout for i, layout in enumerate(layouts) if i not in {place for place, _ in planned}]
    assert batches == [[29, 30, 31], [4, 5, 6]]


class Widths:
    """A backbone that notes the size of what it computes."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone
        self.sizes: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def __call__(self, **inputs: Any) -> Any:
        self.sizes.append(tuple(inputs["input_ids"].shape))
        return self._backbone(**inputs)


def test_one_layout_longer_than_a_batch_is_read_in_parts() -> None:
    backbone = Widths(made(windowed))
    layout = Layout(tuple(i % 50 for i in range(70)), (3, 40, 69))
    (scores,), tokens = read_all(reader(backbone, tokens=32), [layout])
    assert backbone.sizes == [(1, 32), (1, 32), (1, 6)]
    assert tokens == [70]
    assert scores == pytest.approx(in_full(made(windowed), layout), abs=1e-4)


def test_a_batch_that_would_not_fit_is_split_before_it_is_tried() -> None:
    backbone = Widths(made(llama))
    layouts = [Layout((i, *range(19)), (19,)) for i in range(8)]
    three = Costs.of(backbone).bytes(3, 0, 20)
    read_all(reader(backbone, memory=three), layouts)
    assert [rows for rows, _ in backbone.sizes] == [3, 3, 2]


class Averaging:
    """A model that reads both ways."""

    device, dtype = torch.device("cpu"), torch.float32
    config = transformers.LlamaConfig(**SHAPE)

    def __init__(self) -> None:
        self._embeddings = torch.nn.Embedding(50, 32)

    def get_input_embeddings(self) -> Any:
        return self._embeddings

    def __call__(self, *, input_ids: Any, past_key_values: Any, **inputs: Any) -> Any:
        hidden = self._embeddings(input_ids)
        past_key_values.update(hidden[:, None], hidden[:, None], 0)
        mean = hidden.mean(1, keepdim=True).expand_as(hidden)
        return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=mean)


def test_a_model_that_is_not_causal_is_found_at_the_start() -> None:
    torch.manual_seed(0)
    with pytest.raises(PRMError, match="it is not causal"):
        reader(Averaging()).check()
    reader(made(llama)).check()
