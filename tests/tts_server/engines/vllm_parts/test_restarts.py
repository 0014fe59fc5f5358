from tts_server.engines.vllm_parts.restarts import Restarts


def test_what_dies_young_is_started_the_slower_and_then_given_up() -> None:
    restarts = Restarts(attempts=8)
    delays = [restarts.delay_s(3.0) for _ in range(9)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, None]


def test_what_has_lived_for_long_begins_anew() -> None:
    restarts = Restarts(attempts=2, stable_s=100.0)
    assert [restarts.delay_s(lived) for lived in (1.0, 1.0, 101.0, 1.0, 1.0)] == [1.0, 2.0, 1.0, 2.0, None]
