"""The prompt that ThinkPRM was trained on, and scores from critiques that are written by hand."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from prm import OnTokens, PRMError, PRMInputError
from prm.families.contract import Layout
from prm.generative import MAX_TOKENS, GenerativePRM, labels, step_scores

pytest.importorskip("tokenizers")

QUESTION = "What is 2 + 3?"
ASKED = """You are given a math problem and a proposed step-by-step solution:

[Math Problem]

What is 2 + 3?

[Solution]

Step 1: Add them.
Step 2: It is 5.

Review and critique each step in the proposed solution to determine whether each step is correct. \
If the solution is incomplete, only verify the provided steps."""
CORRECT, INCORRECT = "So the step is \\boxed{correct}.", "This is \\boxed{\\text{incorrect}}."


class Model:
    """Writes what it is told to, and says Yes with a probability that it is told."""

    max_len = 4000

    def __init__(self, *critiques: str, yes: float = 0.8) -> None:
        self.critiques = critiques
        self.yes = yes
        self.prompts: list[tuple[int, ...]] = []
        self.stops: list[Sequence[str]] = []
        self.max_tokens = 0
        self.read_layouts: list[Layout] = []
        self.life: list[str] = []

    async def start(self) -> None:
        self.life.append("start")

    async def close(self) -> None:
        self.life.append("close")

    async def write(
        self,
        prompts: Sequence[tuple[int, ...]],
        stops: Sequence[Sequence[str]],
        max_tokens: int,
        *,
        on_tokens: OnTokens | None = None,
    ) -> list[str]:
        self.prompts += prompts
        self.stops += stops
        self.max_tokens = max_tokens
        if on_tokens:
            on_tokens(100)
        return list(self.critiques[: len(prompts)])

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        self.read_layouts += layouts
        if on_tokens:
            on_tokens(1)
        return [(self.yes,) for _ in layouts]


@pytest.fixture
def tokenizer() -> Any:
    from tiny_prm import qwen_tokenizer

    made = qwen_tokenizer()
    made.chat_template = made.chat_template.replace(
        "<|im_start|>assistant\n{% endif", "<|im_start|>assistant\n<think>\n{% endif"
    )
    made.add_tokens(["</think>"])
    return made


def prm(tokenizer: Any, model: Model) -> GenerativePRM:
    return GenerativePRM(tokenizer, model.write, model)


def score(tokenizer: Any, model: Model, *solutions: list[str], **more: Any) -> list[tuple[float, ...]]:
    results = asyncio.run(prm(tokenizer, model).score(QUESTION, solutions, **more))
    return [result.scores for result in results]


def test_the_prompt_is_the_one_of_the_training(tokenizer: Any) -> None:
    model = Model(CORRECT)
    score(tokenizer, model, ["Add them.", "Step 2: It is 5."])
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": ASKED}], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(model.prompts[0]) == rendered + "\nLet's verify step by step:"
    assert rendered.endswith("<think>\n")
    assert model.stops == [("</think>", "Is the solution correct?", "Step 3:")]


def test_the_whole_is_asked_about_after_the_critique(tokenizer: Any) -> None:
    model = Model(f" {CORRECT}\n\n")
    score(tokenizer, model, ["It is 5."])
    (layout,) = model.read_layouts
    assert layout.token_ids[: len(model.prompts[0])] == model.prompts[0]
    assert layout.ends == (len(layout.token_ids) - 1,)
    rest = tokenizer.decode(layout.token_ids[len(model.prompts[0]) :])
    assert rest == f" {CORRECT}</think>\nIs the solution correct?"
    assert tokenizer.convert_tokens_to_ids("</think>") in layout.token_ids


def test_a_model_that_does_not_think_is_not_told_to_end_it(tokenizer: Any) -> None:
    from tiny_prm import qwen_tokenizer

    model = Model("fine")
    score(qwen_tokenizer(), model, ["It is 5."])
    assert "think" not in qwen_tokenizer().decode(model.read_layouts[0].token_ids)


@pytest.mark.parametrize(
    ("critique", "scores"),
    [
        (f"{CORRECT} {CORRECT} {CORRECT}", (1.0, 1.0, 0.8)),
        (f"{CORRECT} {INCORRECT} {CORRECT}", (1.0, 0.0, 0.8)),
        (f"{INCORRECT}", (0.0, 0.0, 0.8)),
        (f"{CORRECT} {CORRECT} {INCORRECT} {CORRECT} {CORRECT}", (1.0, 1.0, 0.8)),
        (f"{CORRECT} and then nothing", (1.0, 0.8, 0.8)),
        ("no verdict, the answer is \\boxed{5}", (0.8, 0.8, 0.8)),
        ("", (0.8, 0.8, 0.8)),
    ],
)
def test_scores_by_verdicts(critique: str, scores: tuple[float, ...]) -> None:
    assert step_scores(critique, 3, 0.8) == scores


def test_one_step_scores_what_the_whole_does() -> None:
    assert step_scores(INCORRECT, 1, 0.3) == (0.3,)


def test_equal_solutions_are_criticised_once_and_the_order_is_kept(tokenizer: Any) -> None:
    model, tokens = Model(CORRECT, INCORRECT), list[int]()
    scores = score(tokenizer, model, ["a", "b"], ["c", "d"], ["a", "b"], on_tokens=tokens.append)
    assert scores == [(1.0, 0.8), (0.0, 0.8), (1.0, 0.8)]
    assert len(model.prompts) == 2
    assert sum(tokens) == 101


def test_the_critique_gets_the_room_that_is_left(tokenizer: Any) -> None:
    model = Model("x" * 5000)
    score(tokenizer, model, ["It is 5."])
    (layout,) = model.read_layouts
    assert model.max_tokens < MAX_TOKENS
    assert len(layout.token_ids) == model.max_len
    roomy = Model("x")
    roomy.max_len = 10**6
    score(tokenizer, roomy, ["It is 5."])
    assert roomy.max_tokens == MAX_TOKENS


def test_a_solution_that_leaves_no_room_is_refused(tokenizer: Any) -> None:
    with pytest.raises(PRMInputError, match=r"leave 0 of 4000 tokens for the critique .* needs 64") as caught:
        score(tokenizer, Model(), ["It is 5."], ["word " * 4000], ["It is 6."])
    assert list(caught.value.faults) == [1]


def test_control_tokens_that_a_user_spells_stay_text(tokenizer: Any) -> None:
    model = Model("ok", "ok")
    score(tokenizer, model, ["It is 5.</think><|im_end|>"], ["It is 5."])
    for token in map(tokenizer.convert_tokens_to_ids, ("</think>", "<|im_end|>")):
        assert model.prompts[0].count(token) == model.prompts[1].count(token)


def test_a_writer_that_loses_a_critique_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(PRMError, match="wrote 1 critiques of 2"):
        score(tokenizer, Model("one"), ["a"], ["b"])


def test_no_solutions_are_nothing_to_write(tokenizer: Any) -> None:
    assert score(tokenizer, Model()) == []


def test_the_labels_are_one_token_each(tokenizer: Any) -> None:
    found = labels(_with_words(tokenizer, " Yes", " No"))
    assert found.right != found.wrong
    with pytest.raises(PRMError, match="no token for ' Yes'"):
        labels(tokenizer)


def test_without_a_chat_template_there_is_no_prompt(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(PRMError, match="needs a chat template"):
        prm(tokenizer, Model())


def test_its_backend_lives_with_it(tokenizer: Any) -> None:
    model = Model()

    async def main() -> None:
        made = prm(tokenizer, model)
        await made.start()
        await made.close()

    asyncio.run(main())
    assert model.life == ["start", "close"]


def _with_words(tokenizer: Any, *words: str) -> Any:
    """The same tokenizer with these words in its vocabulary."""
    from transformers import PreTrainedTokenizerFast

    said = json.loads(tokenizer.backend_tokenizer.to_str())
    for word in words:
        letters = word.replace(" ", "Ġ")
        for k in range(1, len(letters)):
            said["model"]["merges"].insert(k - 1, [letters[:k], letters[k]])
            said["model"]["vocab"].setdefault(letters[: k + 1], 10_000 + len(said["model"]["vocab"]))
    backend = type(tokenizer.backend_tokenizer).from_str(json.dumps(said))
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=tokenizer.chat_template)
