"""What hangs below what, found from token ids and texts alone."""

from strategies.core.contracts import Chunk, Message, Sample
from strategies.record.lineage import Lineage

ROOT = (1, 2, 3)


def grown(*samples: tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...], str]) -> Lineage:
    lineage = Lineage()
    for number, parents, prompt, ids, text in samples:
        lineage.add(number, parents, prompt, ids, text, "", eos=False)
    return lineage


def said(text: str, *ids: int) -> Sample:
    return Sample([Chunk(0, text, ids)])


def told(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def test_a_call_goes_on_from_the_longest_path_that_its_ids_begin_with() -> None:
    lineage = grown((0, (), ROOT, (4,), "a"), (1, (), ROOT, (5,), "b"), (2, (0,), (*ROOT, 4), (6,), "c"))
    assert lineage.continued(ROOT) == ()
    assert lineage.continued((*ROOT, 4)) == (0,)
    assert lineage.continued((*ROOT, 4, 6)) == (2,)
    assert lineage.continued((*ROOT, 4, 6, 77, 78)) == (2,), "something was put in between"
    assert lineage.continued((*ROOT, 5, 99)) == (1,)
    assert lineage.continued((*ROOT, 9)) == ()


def test_an_end_of_sequence_is_left_out_by_what_goes_on() -> None:
    lineage = Lineage()
    lineage.add(0, (), ROOT, (4, 0), "a", "", eos=True)
    assert lineage.continued((*ROOT, 4, 7)) == (0,)
    assert lineage.ends([said("a", 4, 0)]) == [0]


def test_of_samples_that_read_the_same_each_is_gone_on_from_in_turn() -> None:
    lineage = grown((0, (), ROOT, (4,), "a"), (1, (), ROOT, (4,), "a"))
    assert [lineage.continued((*ROOT, 4)) for _ in range(3)] == [(0,), (1,), (0,)]
    assert lineage.scored([("a",), ("a",)]) == [0, 1]
    assert lineage.ends([said("a", 4), said("a", 4)]) == [0, 1]


def test_a_solution_is_scored_where_its_steps_end() -> None:
    lineage = grown(
        (0, (), ROOT, (4,), "one\n\n"), (1, (0,), (*ROOT, 4), (5,), "two\n\n"), (2, (), (), (6,), "three\n\nfour")
    )
    assert lineage.scored([("one",), ("one", "two"), ("three", "four"), ("two",), ("one", "four")]) == [
        0,
        1,
        2,
        None,
        None,
    ]


def test_a_solution_without_the_stop_string_that_it_ended_at_is_found() -> None:
    lineage = Lineage()
    lineage.add(0, (), ROOT, (4, 5), "one STOP", "STOP", eos=False)
    assert lineage.scored([("one",)]) == [0]


def test_a_chat_shows_samples_but_not_those_they_were_made_from() -> None:
    lineage = grown((0, (), (), (), "first draft"), (1, (), (), (), "another draft"))
    assert lineage.shown(1, told("Look at this: first draft"), known=False) == (0,)
    lineage.add(2, (0,), (), (), "a review of it", "", eos=False)
    assert lineage.shown(2, told("first draft\na review of it"), known=False) == (2,)
    assert lineage.shown(3, told("first draft\nanother draft"), known=False) == (0, 1)
    assert lineage.shown(3, [], known=True) == (0, 1)
    assert lineage.shown(4, told("nothing of it"), known=False) == ()


def test_a_thought_is_not_what_a_chat_shows() -> None:
    lineage = grown((0, (), (), (), "<think>secret</think>\n\nthe answer"))
    assert lineage.shown(1, told("It said: the answer"), known=False) == (0,)
    assert lineage.shown(2, told("It said: secret"), known=False) == ()


def test_a_candidate_ends_with_a_sample_also_where_text_was_put_between() -> None:
    lineage = grown((0, (), ROOT, (4,), "begin"), (1, (0,), (*ROOT, 4, 9), (5,), " end"), (2, (), (), (), "whole"))
    assert lineage.ends([said("begin end", 4, 9, 5), said("begin WAIT end", 8, 8), said("whole"), said("")]) == [
        1,
        1,
        2,
        None,
    ]
    assert lineage.end(said("whole")) == 2
    assert lineage.end(said("never sampled?")) is None


def test_a_search_that_begins_with_a_part_of_a_sample_goes_on_from_it() -> None:
    lineage = grown((0, (), (), (4, 5, 6), "whole"), (1, (), ROOT, (7, 8), "other"))
    lineage.passed((4, 5, 6), (*ROOT, 4))
    lineage.passed((7, 8), (*ROOT, 7))
    assert lineage.continued((*ROOT, 4)) == (0,)
    assert lineage.continued((*ROOT, 4, 99)) == (0,)
    assert lineage.continued((*ROOT, 7, 99)) == (1,)
    lineage.passed((1, 1, 1), (*ROOT, 50))
    assert lineage.continued((*ROOT, 50)) == (), "no such sample is known"
