"""Solutions that clients have already, scored by a reward model."""

from collections.abc import Sequence

from prm import ProcessRewardModel, StepScores
from strategies.core.concurrency import pooled
from tts_server.errors import InvalidRequest, UnsupportedParameter
from tts_server.planning.service import Service
from tts_server.schema.prm import ScoreItem

QUESTIONS_AT_ONCE = 8
"""One request's share of a reward model that others use too."""


async def score_all(items: Sequence[ScoreItem], prm: ProcessRewardModel) -> list[StepScores]:
    """Each item's scores, in order; solutions of one question are scored in one call, which can share its work."""
    groups: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(item.asked, []).append(i)

    async def ask(question: str) -> list[StepScores]:
        return await prm.score(question, [items[i].parts for i in groups[question]])

    answers = await pooled(ask, list(groups), QUESTIONS_AT_ONCE)
    found = {
        i: result
        for group, results in zip(groups.values(), answers, strict=True)
        for i, result in zip(group, results, strict=True)
    }
    return [found[i] for i in range(len(items))]


def chosen(name: str | None, service: Service) -> ProcessRewardModel:
    """The reward model of this name, or the default."""
    name = name or service.default_prm
    if name is None or not service.prms:
        raise UnsupportedParameter("This server has no reward model; it gets one with --prm NAME.", param="prm")
    if name not in service.prms:
        known = ", ".join(service.prms)
        raise InvalidRequest(f"There is no reward model {name!r}. Known: {known}.", param="prm")
    return service.prms[name]
