"""The budgets of the batches that have one, as they are after a restart."""

from collections.abc import Sequence

import orjson

from strategies.core.account import Account
from tts_server.batches.jobs import Jobs
from tts_server.batches.records import Batch, Request
from tts_server.batches.sharing import SEEN, Sharing
from tts_server.batches.store import Store


class Shares:
    """Keeps them while their lines are answered.

    Args:
        store: where what was answered is.
        at_once: lines under way at most.
        scored: whether there is a reward model.
    """

    def __init__(self, store: Store, at_once: int, *, scored: bool) -> None:
        self._store = store
        self._at_once = at_once
        self._scored = scored
        self._known: dict[str, Sharing] = {}

    async def of(self, batch: Batch) -> Sharing | None:
        """A batch's; None where each line has its own."""
        if batch.total_tokens is None:
            return None
        if batch.id not in self._known:
            self._known[batch.id] = await self._restored(batch, batch.total_tokens)
        return self._known[batch.id]

    async def refuse(self, batch: Batch, request: Request, sharing: Sharing) -> None:
        """Tells a line that nothing is left for it.

        Raises:
            StorageFull: the disk is full; the line waits on.
        """
        said = f"The {sharing.tokens} tokens that the lines of this batch share are spent."
        await self._store.jobs(Jobs.refuse, batch, request, "batch_budget_spent", said)
        sharing.end(request.number, 0, answered=True)

    def drop(self, id_: str) -> None:
        """The batch has ended."""
        self._known.pop(id_, None)

    async def _restored(self, batch: Batch, tokens: int) -> Sharing:
        unanswered = batch.total - batch.completed - batch.failed
        sharing = Sharing(tokens, batch.spent_tokens, unanswered, self._at_once, scored=self._scored)
        for line in await self._store.jobs(Jobs.latest, batch, SEEN):
            sharing.learn(orjson.loads(line)["response"]["body"])
        return sharing


def cost_of(accounts: Sequence[Account]) -> int:
    """Tokens that were generated and scored for a line, all its tries together."""
    return sum(account.usage.completion_tokens + account.usage.prm_tokens for account in accounts)
