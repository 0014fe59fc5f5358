"""What the kit promises to plug-ins: a name may come, and none may go."""

from strategies import kit

NAMES = [
    "Account", "Aggregation", "BudgetSpent", "Candidate", "Chunk", "Delta", "Engine", "EngineGone", "Event", "Examples",
    "Final", "Incumbent", "Message", "PRMError", "ProcessRewardModel", "Progress", "Prompt", "Refused", "Sample",
    "Sampling", "Selector", "StepScores", "SystemPrompt", "Task", "TokenLogprob", "Vote", "aggregate", "answer_of",
    "candidates_of", "draw", "elect", "prompted", "refuse_choices", "refuse_logprobs", "refuse_unscored", "scored",
    "split_steps", "strategy", "text_of",
]  # fmt: skip


def test_the_names_are_kept() -> None:
    assert kit.__all__ == NAMES


def test_the_names_are_sorted_and_are_all_that_it_has() -> None:
    assert sorted(kit.__all__) == kit.__all__
    assert {name for name in vars(kit) if not name.startswith("_")} == set(kit.__all__)
