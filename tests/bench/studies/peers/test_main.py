from bench.studies.peers.__main__ import CLIENTS, DIRECT, Cell, Rounds, report
from bench.studies.peers.contestants import BARE, OURS
from bench.studies.peers.drive import Timed


def rounds(*rates: int) -> list[Timed]:
    return [Timed(1.0, [1 / rate] * rate) for rate in rates]


def test_a_report_has_ratios_of_paired_rounds_and_tells_who_is_left_out() -> None:
    upstream: Rounds = {Cell(DIRECT, "one", 1): rounds(1000, 1000, 1000)}
    for name, rates in (
        (OURS.name, (400, 800, 900)),
        (BARE.name, (500, 900, 900)),
        ("slow", (100, 100, 300)),
    ):
        for work in ("one", "eight"):
            upstream[Cell(name, work, CLIENTS)] = rounds(*rates)
        upstream[Cell(name, "one", 1)] = rounds(*rates)
    lines = report({Cell(OURS.name, "plain", CLIENTS): rounds(500)}, upstream, {"gone": "no such package"})
    assert "| plain | 500 | 2.0 | 2.0 |" in lines
    slow = next(line for line in lines if line.startswith("| slow |"))
    assert slow.split(" | ")[1:] == ["100", "10.0", "× 4.0 (5.0)", "100", "10.0", "× 4.0 (5.0)", "9.00 |"]
    assert lines[-1] == "- left out: gone: no such package"
