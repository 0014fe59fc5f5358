import pytest

from bench.studies.faults.kinds import FAULTS, PRM_FAULTS, Mark, mark_in


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("prm", PRM_FAULTS)
def test_a_mark_is_read_as_it_was_written(fault: str, prm: str) -> None:
    mark = Mark(17, fault, prm, 0.2)  # type: ignore[arg-type]
    assert mark_in(f"<user>What is 1 + 1? {mark}\n<assistant>") == mark


@pytest.mark.parametrize("text", ["", "<<1>>", "<<1 cut>>", "<<1 nothing none 1.0>>", "<<x cut none 1.0>>"])
def test_what_is_no_mark_asks_for_nothing(text: str) -> None:
    assert mark_in(text) == Mark()


def test_a_share_of_the_calls_is_hit_and_always_the_same() -> None:
    hit = [Mark(3, "cut", share=0.5).befalls(0, call) for call in range(200)]
    assert 60 < sum(hit) < 140
    assert hit == [Mark(3, "cut", share=0.5).befalls(0, call) for call in range(200)]
    assert all(Mark(3, "cut").befalls(0, call) for call in range(20))
