"""What holds for the layouts of every family, and how a model's family is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import tiny_tokenizer
from tiny_prm import QUESTION, SAVERS, mistral_tokenizer

from prm import FAMILIES, Family, PRMError, detect
from prm.backend.local import read_config
from prm.families.detect import build

transformers: Any = pytest.importorskip("transformers")

Saved = Callable[[str], Path]
STEPS = ["There are 2 and 3 apples.", "2 + 3 = 5.", "The answer is 5."]
PROCESS = [family for family in FAMILIES if family != "outcome"]
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)

_made: dict[Path, tuple[dict[str, Any], Any]] = {}


def parts(directory: Path) -> tuple[dict[str, Any], Any]:
    """The config and the tokenizer of a directory."""
    if directory not in _made:
        _made[directory] = read_config(str(directory)), transformers.AutoTokenizer.from_pretrained(directory)
    return _made[directory]


def family_of(directory: Path) -> Family:
    separator = "\n\n" if directory.name == "trl" else None
    return detect(*parts(directory), str(directory), separator=separator)


def test_every_family_has_a_tiny_model() -> None:
    assert set(SAVERS) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_family_is_told(saved: Saved, family: str) -> None:
    assert family_of(saved(family)).name == family


@pytest.mark.parametrize("family", PROCESS)
@pytest.mark.parametrize("steps", [STEPS[:1], STEPS, ["a"] * 40, ["x\ny", "multi\n\nple  \n", " 数学 🙂"]])
def test_a_beginning_is_a_token_prefix_with_the_same_ends(saved: Saved, family: str, steps: list[str]) -> None:
    made = family_of(saved(family))
    (whole,) = made.layouts(QUESTION, steps)
    assert len(whole.ends) == len(steps)
    assert whole.ends == tuple(sorted(set(whole.ends)))
    assert whole.ends[-1] == len(whole.token_ids) - 1
    for k in range(1, len(steps)):
        (begun,) = made.layouts(QUESTION, steps[:k])
        assert whole.token_ids[: len(begun.token_ids)] == begun.token_ids
        assert whole.ends[:k] == begun.ends


def test_an_outcome_model_reads_each_beginning_as_a_whole(saved: Saved) -> None:
    made = family_of(saved("outcome"))
    layouts = made.layouts(QUESTION, STEPS)
    assert layouts == tuple(made.layouts(QUESTION, STEPS[: k + 1])[-1] for k in range(3))
    assert [layout.ends for layout in layouts] == [(len(layout.token_ids) - 1,) for layout in layouts]


def specials(tokenizer: Any) -> set[int]:
    return set(tokenizer.get_added_vocab().values()) - {tokenizer.unk_token_id}


@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_that_a_user_writes_stay_text(saved: Saved, family: str) -> None:
    directory = saved(family)
    _, tokenizer = parts(directory)
    made = family_of(directory)
    control = specials(tokenizer)
    spelled = " ".join(sorted(tokenizer.get_added_vocab()))

    def of(question: str, step: str) -> list[list[int]]:
        return [[i for i in layout.token_ids if i in control] for layout in made.layouts(question, [step, step])]

    plain = of("a", "b")
    assert of("a", spelled) == plain
    assert of(spelled, "b") == plain
    assert spelled in "".join(tokenizer.decode(made.layouts("a", [spelled])[0].token_ids).split("ки")).replace(
        "  ", " "
    )


words = st.lists(
    st.one_of(
        st.sampled_from(
            ["<extra_0>", "<|im_end|>", "<|eot_id|>", "<s>", "</s>", "<think>", "ки", " ки\n", "\n\n", "+"]
        ),
        st.text(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=4,
).map("".join)


@pytest.mark.parametrize("family", FAMILIES)
@MANY
@given(question=st.text(max_size=10), steps=st.lists(words.filter(lambda text: text.strip()), min_size=1, max_size=3))
def test_whatever_is_written_there_is_one_end_a_step(
    saved: Saved, family: str, question: str, steps: list[str]
) -> None:
    directory = saved(family)
    made, (_, tokenizer) = family_of(directory), parts(directory)
    layouts = made.layouts(question, steps)
    assert sum(len(layout.ends) for layout in layouts) == len(steps)
    plain = made.layouts("a", ["b"] * len(steps))
    control = specials(tokenizer)
    for layout, other in zip(layouts, plain, strict=True):
        assert [i for i in layout.token_ids if i in control] == [i for i in other.token_ids if i in control]


CAUSAL = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"architectures": None},
        CAUSAL,
        {"architectures": ["MistralForCausalLM"]},
        {"architectures": ["InternLM2ForRewardModel"]},
    ],
)
def test_a_model_that_says_nothing_is_not_guessed(saved: Saved, config: dict[str, Any]) -> None:
    _, tokenizer = parts(saved("rlhflow"))
    with pytest.raises(PRMError, match="cannot be detected") as caught:
        detect(config, tokenizer, "meta-llama/Llama-3.1-8B-Instruct")
    assert all(family in str(caught.value) for family in FAMILIES)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", "rlhflow"),
        ("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "rlhflow"),
        ("peiyi9979/math-shepherd-mistral-7b-prm", "math_shepherd"),
    ],
)
def test_a_language_model_is_told_by_its_name(saved: Saved, name: str, family: str) -> None:
    _, tokenizer = parts(saved(family))
    assert detect(CAUSAL, tokenizer, name).name == family
    assert detect({**CAUSAL, "_name_or_path": name}, tokenizer, "models/mine").name == family


def test_a_model_may_say_its_family_itself(saved: Saved) -> None:
    _, tokenizer = parts(saved("math_shepherd"))
    assert detect({**CAUSAL, "prm_family": "math_shepherd"}, tokenizer, "mine").name == "math_shepherd"
    with pytest.raises(PRMError, match="is one of"):
        detect({**CAUSAL, "prm_family": "math_sheperd"}, tokenizer, "mine")


@pytest.mark.parametrize(
    ("family", "other", "lacks"),
    [
        ("qwen_math", "skywork", "<extra_0>"),
        ("qwen_math", "math_shepherd", "<extra_0>"),
        ("rlhflow", "math_shepherd", "chat template"),
        ("outcome", "math_shepherd", "chat template"),
    ],
)
def test_a_model_without_what_its_family_needs_is_refused(saved: Saved, family: str, other: str, lacks: str) -> None:
    config, tokenizer = parts(saved(other))
    with pytest.raises(PRMError, match=lacks):
        build(family, config, tokenizer, "mine")


def test_labels_that_are_no_tokens_are_refused() -> None:
    with pytest.raises(PRMError, match=r"no token for ' \+'"):
        build("math_shepherd", {}, tiny_tokenizer(), "mine")


def test_a_template_that_merges_with_what_stands_in_it_is_refused() -> None:
    tokenizer = mistral_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
    with pytest.raises(PRMError, match="joins the chat template"):
        build("outcome", {"id2label": {"0": "a"}}, tokenizer)


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(PRMError, match="fast tokenizer"):
        build("skywork", {}, object(), "mine")


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("trl", "labels")])
def test_a_family_with_a_separator_of_its_own_takes_no_other(saved: Saved, family: str) -> None:
    config, tokenizer = parts(saved(family))
    with pytest.raises(PRMError, match="separator of its own"):
        build(family, config, tokenizer, "mine", separator="\n")


def test_what_prm_json_says_stands_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert read_config(str(tmp_path)) == {"model_type": "llama"}
    (tmp_path / "prm.json").write_text(json.dumps({"family": "labels", "right": " yes"}))
    assert read_config(str(tmp_path)) == {"model_type": "llama", "prm_family": "labels", "prm_right": " yes"}
