from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.answers.voting import Outcome, vote
from strategies.core.contracts import Candidate, Chunk, FinishReason, Sample, Selector, TokenLogprob, Vote

SELECTORS: tuple[Selector, ...] = ("majority", "weighted", "best")


def candidate(
    answer: str | None = None, score: float | None = None, finish: FinishReason = "eos", text: str = "text"
) -> Candidate:
    return Candidate(Sample([Chunk(0, text=text, finish_reason=finish)]), answer=answer, score=score)


def outcome(candidates: list[Candidate], selector: Selector) -> Outcome:
    return vote(candidates, [c.answer for c in candidates], selector)


def test_majority_counts_answers() -> None:
    result = outcome([candidate("a"), candidate("b"), candidate("b")], "majority")
    assert result == Outcome(
        ranking=(1, 0, 2),
        weights=(1.0, 1.0, 1.0),
        votes=(Vote("b", 2, 2.0), Vote("a", 1, 1.0)),
        confidence=2 / 3,
    )


def test_weighted_sums_scores_and_does_not_average_them() -> None:
    result = outcome([candidate("a", 0.75), candidate("b", 0.5), candidate("b", 0.5)], "weighted")
    assert result == Outcome(
        ranking=(1, 0, 2),
        weights=(0.75, 0.5, 0.5),
        votes=(Vote("b", 2, 1.0), Vote("a", 1, 0.75)),
        confidence=1.0 / 1.75,
    )


def test_best_takes_the_highest_score() -> None:
    result = outcome([candidate("a", 0.25), candidate("b", 0.5), candidate("b", 0.75), candidate("a", 0.5)], "best")
    assert result == Outcome(
        ranking=(2, 3, 1, 0),
        weights=(0.25, 0.5, 0.75, 0.5),
        votes=(Vote("b", 2, 0.75), Vote("a", 2, 0.5)),
        confidence=0.75,
    )


@pytest.mark.parametrize("selector", SELECTORS)
def test_ties_go_to_the_first_seen(selector: Selector) -> None:
    tied = [candidate("a", 0.5), candidate("b", 0.5), candidate("b", 0.5), candidate("a", 0.5)]
    assert outcome(tied, selector).ranking == (0, 1, 3, 2)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("score", [0.46879, 0.0])
def test_among_equal_scores_the_answer_with_more_votes_wins(selector: Selector, score: float) -> None:
    tied = [candidate("7", score), *[candidate("5", score)] * 3, candidate("9", 0.0)]
    assert outcome(tied, selector).votes[0].answer == "5"


def test_scores_that_differ_by_rounding_are_equal() -> None:
    noisy = [candidate("7", 0.32082130731838393), *[candidate("5", 0.32082129433083023)] * 2]
    assert outcome(noisy, "best").votes[0].answer == "5"


def test_among_equal_scores_and_votes_the_higher_sum_of_scores_wins() -> None:
    tied = [candidate("a", 0.5), candidate("a", 0.25), candidate("b", 0.5), candidate("b", 0.375)]
    assert outcome(tied, "best").ranking[0] == 2


def sampled(answer: str, *logprobs: float, score: float | None = None) -> Candidate:
    tokens = tuple(TokenLogprob("x", logprob) for logprob in logprobs)
    return Candidate(Sample([Chunk(0, text="x", logprobs=tokens, finish_reason="eos")]), answer=answer, score=score)


@pytest.mark.parametrize("selector", SELECTORS)
def test_an_even_vote_goes_to_the_answer_of_which_the_model_was_surer(selector: Selector) -> None:
    even = [sampled("a", -1.0, -0.5, score=0.5), sampled("b", -0.25, score=0.5)]
    assert outcome(even, selector).ranking == (1, 0)
    assert outcome([*even, sampled("a", -9.0, score=0.5)], selector).votes[0].answer == "a"


def test_where_a_sample_has_no_logprobs_those_of_the_others_decide_nothing() -> None:
    assert outcome([sampled("a", -1.0), sampled("b", -0.25), candidate("c")], "majority").ranking == (0, 1, 2)


def test_the_best_of_a_cluster_stands_for_it() -> None:
    cluster = [candidate("a", 0.5, "length"), candidate("a", 0.5), candidate("a", 0.75), candidate("a")]
    assert outcome(cluster, "majority").ranking == (2, 1, 0, 3)


def test_one_without_an_answer_has_no_vote() -> None:
    result = outcome([candidate(None), candidate(None), candidate("a"), candidate(None)], "majority")
    assert result.ranking == (2, 0, 1, 3)
    assert result.weights == (0, 0, 1, 0)
    assert result.votes == (Vote("a", 1, 1.0),)
    assert result.confidence == 1.0


@pytest.mark.parametrize("selector", SELECTORS)
def test_without_any_answer_the_score_decides(selector: Selector) -> None:
    result = outcome([candidate(score=0.25), candidate(score=0.75), candidate()], selector)
    assert (result.ranking, result.votes, result.confidence) == ((1, 0, 2), (), 0.75)


@pytest.mark.parametrize("selector", SELECTORS)
def test_without_any_answer_or_score_the_first_finished_one_wins(selector: Selector) -> None:
    cut = candidate(finish="budget", text="a long text")
    result = outcome([cut, candidate(text="x"), candidate(text="y")], selector)
    assert (result.ranking, result.votes, result.confidence) == ((1, 2, 0), (), None)


@pytest.mark.parametrize("selector", SELECTORS)
def test_if_none_finished_the_longest_wins(selector: Selector) -> None:
    texts = ["", "so", "so 2 + 2", ""]
    result = outcome([candidate(finish="budget", text=text) for text in texts], selector)
    assert result.ranking == (2, 1, 0, 3)


@pytest.mark.parametrize("selector", SELECTORS)
def test_failed_ones_stand_last_and_never_vote(selector: Selector) -> None:
    failed = candidate("b", 1.0, "error")
    result = outcome([failed, failed, candidate("a", 0.25), candidate(finish="budget", text="")], selector)
    assert result.ranking == (2, 3, 0, 1)
    assert result.weights[:2] == (0, 0)
    assert [v.answer for v in result.votes] == ["a"]


@pytest.mark.parametrize("selector", SELECTORS)
def test_if_all_failed_one_of_them_is_returned(selector: Selector) -> None:
    result = outcome([candidate(finish="error"), candidate("a", 1.0, "error")], selector)
    assert (result.ranking, result.votes, result.confidence) == ((0, 1), (), None)


@pytest.mark.parametrize("selector", SELECTORS)
def test_an_unfinished_one_with_an_answer_takes_part(selector: Selector) -> None:
    cut = candidate("b", 0.75, "length")
    result = outcome([candidate("a", 0.5), cut, cut], selector)
    assert result.ranking[0] == 1


def test_an_unfinished_one_without_an_answer_cannot_be_the_best() -> None:
    result = outcome([candidate(None, 0.9, "budget"), candidate(None, 0.1), candidate("a", 0.2)], "best")
    assert result.ranking == (2, 1, 0)


def test_best_takes_a_finished_one_without_an_answer() -> None:
    result = outcome([candidate("a", 0.2), candidate(None, 0.9), candidate("a", 0.1)], "best")
    assert (result.ranking, result.votes, result.confidence) == ((1, 0, 2), (Vote("a", 2, 0.2),), 0.9)


@pytest.mark.parametrize("selector", ["weighted", "best"])
def test_without_any_score_the_majority_decides(selector: Selector) -> None:
    result = outcome([candidate("a"), candidate("b"), candidate("b")], selector)
    assert result == outcome([candidate("a"), candidate("b"), candidate("b")], "majority")


def test_a_missing_or_negative_score_weighs_nothing() -> None:
    result = outcome([candidate("a"), candidate("a", -1.0), candidate("b", 0.1)], "weighted")
    assert (result.ranking, result.weights, result.confidence) == ((2, 1, 0), (0, 0, 0.1), 1.0)


def test_a_vote_of_zeros_has_no_confidence() -> None:
    result = outcome([candidate("a", 0.0), candidate("b", 0.0)], "weighted")
    assert (result.ranking, result.confidence) == ((0, 1), None)


def test_votes_are_by_key_and_name_the_answer_of_the_representative() -> None:
    halves = [candidate("0.5", 0.2), candidate("1/2", 0.7), candidate("3", 0.8)]
    assert vote(halves, ["1/2", "1/2", "3"], "weighted").votes == (Vote("1/2", 2, 0.2 + 0.7), Vote("3", 1, 0.8))


SUM = r"48 + 24"


@pytest.mark.parametrize("scores", [(None, None), (0.5, 0.5)])
def test_of_equal_members_the_one_that_gives_the_value_stands_for_the_others(scores: tuple[float | None, ...]) -> None:
    pool = [candidate(SUM, scores[0]), candidate("72", scores[1])]
    result = vote(pool, ["72", "72"], "weighted")
    assert (result.ranking, [v.answer for v in result.votes]) == ((1, 0), ["72"])


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_vote_shows_the_value_also_where_a_better_member_gives_a_calculation(selector: Selector) -> None:
    result = vote([candidate("72", 0.25), candidate(SUM, 0.75)], ["72", "72"], selector)
    assert (result.ranking, [v.answer for v in result.votes]) == ((1, 0), ["72"])


@pytest.mark.parametrize(
    ("answers", "key", "shown"),
    [
        (["x = 5", "5"], "5", "5"),
        ([r"\frac{6400}{2}", "3200"], "3200", "3200"),
        ([r"\frac{1}{2}", "0.5", "1/2"], "1/2", "0.5"),
        (["50%", "50"], "50", "50%"),
        ([r"\sqrt{9800}", r"70\sqrt{2}"], "98.99", r"\sqrt{9800}"),
        (["monday", "Monday"], "monday", "monday"),
    ],
)
def test_the_first_that_gives_the_value_is_shown_else_the_first(answers: list[str], key: str, shown: str) -> None:
    result = vote([candidate(answer) for answer in answers], [key] * len(answers), "majority")
    assert [v.answer for v in result.votes] == [shown]


def test_nothing_to_choose_from() -> None:
    assert vote([], [], "majority") == Outcome((), (), (), None)


def test_there_is_one_key_for_each_candidate() -> None:
    with pytest.raises(ValueError, match="2 candidates need as many keys, got 1"):
        vote([candidate("a"), candidate("a")], ["a"], "majority")


candidates = st.lists(
    st.builds(
        candidate,
        st.sampled_from([None, "a", "b", "c"]),
        st.none() | st.floats(0, 1),
        st.sampled_from(["eos", "stop", "length", "budget", "error"]),
        st.text(max_size=3),
    ),
    max_size=8,
)
selectors = st.sampled_from(SELECTORS)


@given(candidates, selectors)
def test_every_candidate_is_ranked_once(pool: list[Candidate], selector: Selector) -> None:
    assert sorted(outcome(pool, selector).ranking) == list(range(len(pool)))


@given(candidates, selectors)
def test_votes_partition_the_sound_answers(pool: list[Candidate], selector: Selector) -> None:
    answers = Counter(c.answer for c in pool if c.answer and c.sample.finish_reason != "error")
    assert {v.answer: v.count for v in outcome(pool, selector).votes} == answers


@given(candidates, selectors)
def test_the_winner_is_heaviest(pool: list[Candidate], selector: Selector) -> None:
    result = outcome(pool, selector)
    weights = [v.weight for v in result.votes]
    assert all(weight >= next_one - 1e-4 for weight, next_one in pairwise(weights))
    assert all(weight >= 0 for weight in result.weights)
    if result.votes and pool[result.ranking[0]].answer is not None:
        assert result.votes[0].answer == pool[result.ranking[0]].answer
    if result.confidence is not None:
        assert 0 <= result.confidence <= 1 + 1e-9


@given(candidates, selectors)
def test_equal_answers_stand_behind_distinct_ones(pool: list[Candidate], selector: Selector) -> None:
    result = outcome(pool, selector)
    sound = [pool[i].answer for i in result.ranking if pool[i].sample.finish_reason != "error" and pool[i].answer]
    distinct = len(set(sound))
    assert len(set(sound[:distinct])) == distinct


@given(candidates, selectors, st.randoms(use_true_random=False))
def test_the_order_of_candidates_matters_for_ties_alone(
    pool: list[Candidate], selector: Selector, random: Random
) -> None:
    shuffled = random.sample(pool, len(pool))
    one, other = outcome(pool, selector), outcome(shuffled, selector)
    assert {(v.answer, v.count, v.weight) for v in one.votes} == {(v.answer, v.count, v.weight) for v in other.votes}
    if len({round(v.weight, 4) for v in one.votes}) == len(one.votes) and one.votes:
        assert pool[one.ranking[0]].answer == shuffled[other.ranking[0]].answer
