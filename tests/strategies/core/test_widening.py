"""Shortly before the deadline a tree search finishes its best branches: whole answers in place of cut ones."""

from contextlib import aclosing

import pytest
from searching import Search, begin, world
from virtual_time import in_virtual_time

from prm import FakePRM
from strategies import get
from strategies.core.account import Account, Budget
from strategies.core.contracts import Progress
from strategies.core.widening import Finishing
from tts_server.engines.fake import FakeEngine, FakeRequest

OPTIONS = {
    "beam_search": {"n": 8, "beam_width": 4},
    "dvts": {"n": 8, "beam_width": 4},
    "rebase": {"n": 8},
    "particle_filter": {"n": 6},
    "mcts": {"n": 64},
    "tree_of_thoughts": {"max_steps": 20, "n_generate": 3},
}
STEPS, TOKEN_S = 12, 0.02


def slow(request: FakeRequest) -> str:
    """A solution of many steps; asked for the rest of one, all of it."""
    if "Write the rest" in request.text or "Write the solution" in request.text:
        return r"So it is done, and the answer is \boxed{1}."
    return str(world(p=1.0, steps=STEPS)(request))


def searched(name: str, deadline_s: float, *, prm_s: float = 0.2, knows: float | None = None) -> Search:
    """A search in virtual time, by a server that knows, if given, how many tokens answers have."""

    async def main() -> Search:
        account, entry = Account(Budget(deadline_s=deadline_s)), get(name)
        if knows:
            account.latency.engine.token.add(TOKEN_S * 100, 100)
            account.latency.engine.answer.add(knows)
        engine, prm = FakeEngine(slow, token_s=TOKEN_S), FakePRM(delay_s=prm_s)
        async with aclosing(begin(entry, engine, prm, account=account, **OPTIONS[name])) as events:
            done = Search(tuple([event async for event in events]), account)
        assert account.seconds_left is None or account.wall_s <= deadline_s + 1e-6
        return done

    return in_virtual_time(main())


@pytest.mark.parametrize("name", OPTIONS)
def test_the_answer_is_whole_where_it_would_be_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = searched(name, 3.0)
    assert finished.final.best.sample.finished
    assert finished.final.best.answer == "1"
    assert finished.account.stop_reason == "deadline"
    assert any("finished" in event.text for event in finished.events if isinstance(event, Progress))

    monkeypatch.setattr(Finishing, "_margin_s", lambda self, lengths: None)
    cut = searched(name, 3.0)
    assert cut.account.stop_reason == "deadline"
    assert cut.final.best.sample.finish_reason == "budget"
    assert cut.final.best.answer is None


@pytest.mark.parametrize("name", OPTIONS)
def test_a_search_that_has_the_time_is_left_alone(name: str) -> None:
    done = searched(name, 3600.0)
    assert done.account.stop_reason is None
    assert not any("finished" in event.text for event in done.events if isinstance(event, Progress))


@pytest.mark.parametrize("name", ["beam_search", "dvts", "rebase", "particle_filter", "mcts"])
def test_scores_that_would_come_too_late_are_given_up(name: str) -> None:
    done = searched(name, 4.0, prm_s=3600.0, knows=70)
    assert done.final.best.sample.finished
    assert done.final.best.answer == "1"
    assert done.final.best.score in (None, 0.0)
    assert done.account.usage.prm_calls > 0


@pytest.mark.parametrize("name", ["beam_search", "dvts", "rebase", "particle_filter"])
def test_finished_branches_keep_the_scores_of_their_steps(name: str) -> None:
    done = searched(name, 3.0)
    ends = [c for c in done.final.candidates if c.sample.finished and c.step_scores]
    assert ends
    assert all(len(c.step_scores or ()) < STEPS for c in ends)


def test_a_search_that_knows_that_answers_will_not_fit_finishes_at_once() -> None:
    done = searched("beam_search", 3.0, knows=110)
    assert done.account.usage.prm_calls == 0
    assert done.account.usage.samples == 8
    assert done.final.best.sample.finished


def test_without_a_deadline_nothing_is_ever_due() -> None:
    account = Account()
    account.latency.engine.token.add(1000.0, 1)
    finishing = Finishing(account)
    assert finishing.spare_s([10]) is None
    assert not finishing.due([10])


def test_what_is_longer_than_usual_is_expected_to_go_on() -> None:
    account = Account(Budget(deadline_s=100))
    account.latency.engine.token.add(1.0, 1)
    finishing = Finishing(account)
    unknown = finishing.spare_s([40])
    finishing.ended(30)
    assert finishing.spare_s([10]) == pytest.approx(100 - 1.5 * 20, abs=0.1)
    assert finishing.spare_s([40]) == pytest.approx(100 - 1.5 * 10, abs=0.1)
    assert unknown == pytest.approx(100 - 1.5 * 40, abs=0.1)
