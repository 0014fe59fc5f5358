"""Prompts: how a question is put to a model. A run records the whole of the one it used."""

import hashlib
import json
from dataclasses import asdict, dataclass

from strategies.core.prompts import BOXED

__all__ = ["PROMPTS", "PromptTemplate", "prompt"]


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A chat around a question: a system message, solved examples as earlier turns, the question."""

    name: str
    about: str
    """What it is and whose."""
    system: str | None = None
    shots: tuple[tuple[str, str], ...] = ()
    """Questions with their solutions."""

    def messages(self, question: str) -> list[dict[str, str]]:
        """The chat that asks the question."""
        turns = [("system", self.system)] if self.system is not None else []
        for example, solution in self.shots:
            turns += [("user", example), ("assistant", solution)]
        return [{"role": role, "content": content or ""} for role, content in [*turns, ("user", question)]]

    @property
    def sha256(self) -> str:
        """Of all that reaches the model, so that two runs can tell whether they asked alike."""
        asked = {name: value for name, value in asdict(self).items() if name in ("system", "shots")}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


_STEPS = r"""Solve the following math problem efficiently and clearly:

- For simple problems (2 steps or fewer):
Provide a concise solution with minimal explanation.

- For complex problems (3 steps or more):
Use this step-by-step format:

## Step 1: [Concise description]
[Brief explanation and calculations]

## Step 2: [Concise description]
[Brief explanation and calculations]

...

Regardless of the approach, always conclude with:

Therefore, the final answer is: $\boxed{answer}$. I hope it is correct.

Where [answer] is just the final number or expression that solves the problem."""

_EXEMPLARS = (
    (
        "There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are done,"
        " there will be 21 trees. How many trees did the grove workers plant today?",
        "There are 15 trees originally. Then there were 21 trees after some more were planted. So there must have"
        " been 21 - 15 = 6. The answer is 6.",
    ),
    (
        "If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?",
        "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5.",
    ),
    (
        "Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?",
        "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After eating "
        "35, they had 74 - 35 = 39. The answer is 39.",
    ),
    (
        "Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many lollipops did"
        " Jason give to Denny?",
        "Jason started with 20 lollipops. Then he had 12 after giving some to Denny. So he gave Denny 20 - 12 = "
        "8. The answer is 8.",
    ),
    (
        "Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does he "
        "have now?",
        "Shawn started with 5 toys. If he got 2 toys each from his mom and dad, then that is 4 more toys. 5 + 4 ="
        " 9. The answer is 9.",
    ),
    (
        "There were nine computers in the server room. Five more computers were installed each day, from monday "
        "to thursday. How many computers are now in the server room?",
        "There were originally 9 computers. For each of 4 days, 5 more computers were added. So 5 * 4 = 20 "
        "computers were added. 9 + 20 is 29. The answer is 29.",
    ),
    (
        "Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 more. How many "
        "golf balls did he have at the end of wednesday?",
        "Michael started with 58 golf balls. After losing 23 on tuesday, he had 58 - 23 = 35. After losing 2 "
        "more, he had 35 - 2 = 33 golf balls. The answer is 33.",
    ),
    (
        "Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
        "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 "
        "dollars left. 23 - 15 is 8. The answer is 8.",
    ),
)

PROMPTS = {
    template.name: template
    for template in (
        PromptTemplate("boxed", "zero-shot, the system prompt of the Qwen2.5-Math report (2409.12122)", BOXED),
        PromptTemplate("steps", "zero-shot, `## Step N`, the system prompt of huggingface/search-and-learn", _STEPS),
        PromptTemplate(
            "cot8", "8-shot chain of thought, the exemplars of 2201.11903 (table 20) as earlier turns", None, _EXEMPLARS
        ),
        PromptTemplate("plain", "the question alone"),
    )
}
"""Every prompt by name."""


def prompt(name: str) -> PromptTemplate:
    """The prompt `name`.

    Raises:
        KeyError: there is none of that name; says which there are.
    """
    if name not in PROMPTS:
        raise KeyError(f"there is no prompt {name!r}; there are {', '.join(PROMPTS)}")
    return PROMPTS[name]
