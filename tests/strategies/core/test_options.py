from dataclasses import replace

import pytest
from searching import TASK

from prm import FakePRM, ProcessRewardModel
from strategies.core.contracts import Refused, Selector
from strategies.core.options import refuse_choices, refuse_unscored


def test_choices_are_at_most_the_samples() -> None:
    refuse_choices(replace(TASK, choices=4), 4)
    with pytest.raises(Refused, match="at most the strategy's own n \\(4\\), got 5") as caught:
        refuse_choices(replace(TASK, choices=5), 4)
    assert caught.value.param == "n"


@pytest.mark.parametrize(
    ("prm", "selector"), [(None, "majority"), (FakePRM(), "majority"), (FakePRM(), "best"), (FakePRM(), "weighted")]
)
def test_a_selector_that_can_choose_is_taken(prm: ProcessRewardModel | None, selector: Selector) -> None:
    refuse_unscored(prm, selector)


@pytest.mark.parametrize("selector", ["best", "weighted"])
def test_a_selector_without_scores_is_refused(selector: Selector) -> None:
    with pytest.raises(Refused, match="--prm") as caught:
        refuse_unscored(None, selector)
    assert caught.value.param == "tts.selector"
