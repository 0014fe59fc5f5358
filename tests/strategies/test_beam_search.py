"""Which beams are kept, and what they cost."""

from dataclasses import replace

from letters import TASK, Done

from strategies.core.account import Budget
from strategies.core.contracts import Sampling
from tts_server.engines.fake import FakeRequest


def test_it_keeps_the_best_n_over_width_beams() -> None:
    done = Done("beam_search", n=4, beam_width=2, aggregation="prod")
    # Of a, b, c, d two are kept; each grows a and b: aa .81, ab .54, ba .54, bb .36. Of the equal ones ba is its
    # parent's best; then aa and ba end.
    assert sorted(done.paths) == ["aaa", "aab", "baa", "bab"]
    assert done.final.best.text.startswith("a1\n\na2\n\na3")


def test_the_aggregation_decides_which_beams_are_kept() -> None:
    last = Done("beam_search", n=4, beam_width=2, aggregation="last")
    # By the last step alone aa and ba are equal and come first.
    assert sorted(last.paths) == ["aaa", "aab", "baa", "bab"]


def test_a_search_of_n_beams_ends_with_n_solutions_at_most() -> None:
    done = Done("beam_search", n=8, beam_width=4)
    assert len(done.final.candidates) <= 8


def test_finished_beams_give_their_place_up_and_are_not_continued() -> None:
    done = Done("beam_search", depth=1, n=4, beam_width=2)
    assert sorted(done.paths) == ["a", "b", "c", "d"]
    assert done.account.usage.samples == 4


def test_equal_steps_of_one_parent_grow_once_and_equal_ends_are_as_many_votes() -> None:
    growing = Done("beam_search", depth=2, n=8, beam_width=2)
    assert len([steps for steps in growing.scored if len(steps) == 1]) == 4
    ended = Done("beam_search", depth=1, n=8, beam_width=2)
    assert sorted(ended.paths) == ["a", "a", "b", "b", "c", "c", "d", "d"]


def giving_up(request: FakeRequest) -> str:
    """A policy of six steps that gives up before each of them with a chance of 0.3."""
    done = request.text.rpartition("<assistant>")[2].count("\n\n")
    if request.rng.random() < 0.3:
        return f"I give up {request.rng.random()}: \\boxed{{0}}"
    return f"A good step {request.rng.random()}" + ("\n\n" if done < 5 else ": \\boxed{1}")


def test_early_ends_that_are_not_kept_take_no_place_and_do_not_outvote_the_rest() -> None:
    for seed in range(10):
        task = replace(TASK, sampling=Sampling(seed=seed))
        done = Done("beam_search", script=giving_up, task=task, n=8, beam_width=4, letters=False)
        assert done.final.best.answer == "1"
        assert len(done.final.candidates) <= 8


def test_scores_that_say_nothing_leave_a_search_as_wide_as_it_was() -> None:
    def script(request: FakeRequest) -> str:
        done = request.text.rpartition("<assistant>")[2].count("\n\n")
        return f"{request.rng.random()}" + ("\n\n" if done < 3 else ": \\boxed{1}")

    done = Done("beam_search", script=script, n=16, beam_width=4, letters=False)
    assert len({candidate.text.split("\n\n")[0] for candidate in done.final.candidates}) == 4


def test_max_steps_is_exact() -> None:
    done = Done("beam_search", depth=9, n=4, beam_width=2, max_steps=3)
    assert {len(path) for path in done.paths} == {3}
    assert done.final.best.sample.finish_reason == "length"


def test_the_rolled_out_text_is_scored_and_then_forgotten() -> None:
    done = Done("beam_search", n=4, beam_width=2, lookahead=1)
    first = done.scored[:4]
    assert [steps[0][0] for steps in first] == ["a", "b", "c", "d"]
    assert {len(steps) for steps in first} == {2}
    assert all(path.count("a") >= 1 for path in done.paths)


def test_what_lookahead_generates_is_counted() -> None:
    plain, ahead = (Done("beam_search", n=4, beam_width=2, lookahead=k) for k in (0, 1))
    assert ahead.account.usage.completion_tokens > plain.account.usage.completion_tokens
    assert ahead.account.usage.completion_tokens == ahead.engine.generated


def test_a_step_that_reaches_its_own_limit_is_no_end() -> None:
    whole = "a long step that has many words"

    def script(request: FakeRequest) -> str:
        return whole.removeprefix(request.text.rpartition("<assistant>")[2])

    done = Done("beam_search", script=script, n=2, beam_width=2, step_tokens=2)
    assert done.final.best.text == whole
    assert done.final.best.sample.finish_reason == "eos"


def test_the_answer_never_exceeds_the_clients_max_tokens() -> None:
    task = replace(TASK, sampling=Sampling(seed=1, max_tokens=3))
    done = Done("beam_search", task=task, n=4, beam_width=2)
    assert all(c.sample.completion_tokens <= 3 for c in done.final.candidates)
    assert done.final.best.sample.finish_reason == "length"


def test_the_clients_stop_string_ends_the_answer_and_is_not_in_it() -> None:
    task = replace(TASK, sampling=Sampling(seed=1, stop=("2",)))
    done = Done("beam_search", task=task, n=4, beam_width=2)
    assert done.final.best.text == "a1\n\na"
    assert done.final.best.sample.finish_reason == "stop"


def test_a_spent_budget_returns_the_best_unfinished_beam() -> None:
    done = Done("beam_search", depth=9, n=4, beam_width=2, budget=Budget(max_tokens=25))
    assert done.account.stop_reason == "max_tokens"
    assert done.final.best.text.startswith("a1\n\na2")
