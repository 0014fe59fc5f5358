"""How fast something ends."""

import pytest

from tts_server.admission.rate import Rate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_steady_rate_is_told_right_from_the_start() -> None:
    clock = Clock()
    rate = Rate(clock)
    for second in range(1, 100):
        clock.now += 1
        rate.note(5)
        if second >= 3:
            assert rate.per_s == pytest.approx(5, rel=0.4)
    assert rate.per_s == pytest.approx(5, rel=0.1)


def test_a_rate_that_changes_is_followed() -> None:
    clock = Clock()
    rate = Rate(clock)
    for count in (10, 1):
        for _ in range(60):
            clock.now += 1
            rate.note(count)
    assert rate.per_s == pytest.approx(1, rel=0.1)


def test_what_a_client_is_told_to_wait() -> None:
    clock = Clock()
    rate = Rate(clock)
    assert rate.retry_after_s(100) == 5
    for _ in range(100):
        clock.now += 0.1
        rate.note()
    assert rate.retry_after_s(1) == 1
    assert rate.retry_after_s(200) in range(18, 24)
    assert rate.retry_after_s(100_000) == 60
    clock.now += 1000
    assert rate.retry_after_s(1) == 60
    clock.now += 1e6
    assert rate.retry_after_s(1) == 5
