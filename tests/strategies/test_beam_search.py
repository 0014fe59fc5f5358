"""Which beams are kept, and what they cost."""

from dataclasses import replace

from letters import TASK, Done

from strategies.core.account import Budget
from strategies.core.contracts import Sampling
from tts_server.engines.fake import FakeRequest


def test_it_keeps_the_best_n_over_width_beams() -> None:
    done = Done("beam_search", n=4, beam_width=2, aggregation="prod")
    # Of a, b, c, d two are kept; each grows a and b: aa .81, ab .54, ba .54, bb .36; then aa and ab end.
    assert sorted(done.paths) == ["aaa", "aab", "aba", "abb"]
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


def test_equal_steps_of_one_parent_count_as_one() -> None:
    done = Done("beam_search", depth=1, n=8, beam_width=2)
    assert sorted(done.paths) == ["a", "b", "c", "d"]
    assert len(done.scored) == 4


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
