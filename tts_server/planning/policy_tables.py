"""The policy table that a server is started with."""

from collections.abc import Sequence

from strategies.allocation.policy_table import InUse, PolicyError, read
from tts_server.config import ConfigError, Settings


def policy_of(settings: Settings, model: str, prms: Sequence[str]) -> InUse | None:
    """The configured policy; None where there is none.

    Args:
        settings: name the file.
        model: as clients call it; empty where only its upstream will tell. Then each request is held to the policy.
        prms: the names of the reward models.

    Raises:
        ConfigError: the file is no policy, or it was fitted for something else and is not forced.
    """
    if settings.policy is None:
        return None
    try:
        policy = read(settings.policy)
    except PolicyError as error:
        raise ConfigError(f"policy: {error}") from None
    prm = policy.prm if policy.prm in prms else next(iter(prms), None)
    wrong = policy.mismatch(model or policy.model, prm, policy.system_prompt)
    if wrong and not settings.policy_force:
        raise ConfigError(
            f"policy: {settings.policy} does not hold here: {wrong}; fit one with `tts-bench calibrate`, or use it all "
            "the same with --policy-force"
        )
    return InUse(policy, forced=settings.policy_force)
