"""Pictures come out whatever is in them, and the frontier is what nothing beats."""

import pytest

from bench.reporting.plots import Curve, Mark, breakdown, frontier, scaling, trade_off

pytest.importorskip("matplotlib", reason="needs the extra bench")

PNG = b"\x89PNG"


def mark(x: float, share: float) -> Mark:
    return Mark(x, share, max(0.0, share - 0.1), min(1.0, share + 0.1))


@pytest.mark.parametrize(
    ("points", "leading"),
    [
        ([(1, 0.5)], [0]),
        ([(4, 0.9), (1, 0.2), (2, 0.1), (3, 0.9)], [1, 3]),
        ([(1, 0.3), (1, 0.6)], [1]),
        ([(2, 0.6), (1, 0.6)], [1]),
        ([], []),
    ],
)
def test_the_frontier_is_what_no_other_beats(points: list[tuple[float, float]], leading: list[int]) -> None:
    assert frontier([mark(*point) for point in points]) == leading


@pytest.mark.parametrize("xs", [(0.0, 0.0), (0.0, 5.0), (1.0, 9000.0)])
def test_a_trade_off_is_drawn_at_any_cost(xs: tuple[float, float]) -> None:
    curves = [Curve(f"run {x}", [mark(x, 0.5)], place) for place, x in enumerate(xs)]
    assert trade_off(curves, "tokens").startswith(PNG)
    assert trade_off(curves, "tokens", dark=True) != trade_off(curves, "tokens")


def test_odd_names_and_many_runs_are_drawn() -> None:
    names = ["_hidden", "$x^", "", "a very long name " * 9, "\n", *map(str, range(20))]
    curves = [Curve(name, [mark(place + 1, place / 30)], place) for place, name in enumerate(names)]
    assert trade_off(curves, "tokens").startswith(PNG)


def test_nothing_and_all_right_are_drawn() -> None:
    curves = [Curve("none", [Mark(1, 0, 1e-18, 0.3)]), Curve("all", [Mark(2, 1, 0.7, 1 - 1e-16)], 1)]
    assert trade_off(curves, "tokens").startswith(PNG)
    assert breakdown(["easy", "hard"], [Curve("none", [Mark(0, 0, 1e-18, 0.3), Mark(1, 1, 0.7, 1)])]).startswith(PNG)


@pytest.mark.parametrize("panels", [1, 3])
def test_scaling_has_a_panel_a_run(panels: int) -> None:
    curves = [Curve("pass", [mark(1, 0.2), mark(2, 0.4), mark(6, 0.5)]), Curve("best", [mark(1, 0.2)], 1)]
    assert scaling({f"run {i}": curves for i in range(panels)}).startswith(PNG)
