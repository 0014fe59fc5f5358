from tts_server.engines.replication.breaker import Breaker


class Clock:
    """Stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(failures=3, pause_s=5.0, longest_pause_s=15.0, clock=clock)
    for _ in range(3):
        breaker.fail()
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(failures=3, clock=Clock())
    for _ in range(4):
        breaker.fail()
        breaker.fail()
        assert breaker.admits
        breaker.succeed()
    breaker.fail()
    breaker.fail()
    breaker.fail()
    assert (breaker.state, breaker.admits) == ("open", False)


def test_after_its_pause_it_may_be_tried_and_closes_where_that_went_well() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 4.9
    assert breaker.state == "open"
    clock.now += 0.1
    assert (breaker.state, breaker.admits) == ("half_open", False)
    breaker.close()
    assert (breaker.state, breaker.admits) == ("closed", True)
    breaker.fail()
    breaker.fail()
    assert breaker.admits


def test_each_try_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    clock = Clock()
    breaker = opened(clock)
    for pause in (5.0, 10.0, 15.0, 15.0):
        clock.now += pause - 0.1
        assert breaker.state == "open"
        clock.now += 0.1
        assert breaker.state == "half_open"
        breaker.fail()
    breaker.close()
    for _ in range(3):
        breaker.fail()
    clock.now += 5.0
    assert breaker.state == "half_open"


def test_what_still_comes_while_it_is_open_changes_nothing() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 3.0
    breaker.fail()
    breaker.succeed()
    assert breaker.state == "open"
    clock.now += 2.0
    assert breaker.state == "half_open"


def test_a_rest_is_no_failure() -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.rest(3.0)
    breaker.rest(1.0)
    assert (breaker.state, breaker.admits, breaker.rest_s) == ("closed", False, 3.0)
    clock.now += 3.0
    assert (breaker.admits, breaker.rest_s) == (True, 0.0)
