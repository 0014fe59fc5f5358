"""The figures of a run as lines of Markdown."""

from collections import Counter
from collections.abc import Sequence

from bench.studies.faults.clients import Outcome
from bench.studies.faults.run import Run, quarters
from bench.studies.faults.watch import MIB, Held


def report(seen: Run, seed: int) -> list[str]:
    """The figures as lines of Markdown."""
    outcomes = seen.outcomes
    answered = [o for o in outcomes if o.answer]
    told = Counter(_told(o) for o in outcomes)
    faults = Counter(o.ask.mark.fault for o in outcomes)
    late = [o.late_s for o in answered if not o.ask.slow] or [0.0]
    ledger, slow, disk = seen.ledger, seen.slow, seen.disk
    mean = [value / MIB for value in quarters(seen.rss)]
    return [
        f"- {len(outcomes)} requests of {len({o.ask.strategy for o in outcomes})} strategies and routes in "
        f"{seen.seconds:.0f} s, seed {seed}: {len(seen.problems)} of them, or of what follows, went wrong",
        f"- told: {', '.join(f'{count} {what}' for what, count in told.most_common())}",
        f"- faults of the upstream that were asked for: {', '.join(f'{n} {f}' for f, n in faults.most_common())}",
        f"- {sum(o.ask.mark.prm != 'none' for o in outcomes)} asked for a fault of the reward model; the server's wall "
        "clock stepped by up to an hour every 2 s; the upstream died 3 times",
        f"- behind the deadline: p50 {_worst(late, 0.5):.2f} s, p99 {_worst(late, 0.99):.2f} s, at most "
        f"{max(late):.2f} s; without the time in which the server or its clients had no processor at most "
        f"{max(o.late_s - o.queued_s for o in answered if not o.ask.slow):.2f} s (1 s is allowed)",
        f"- usage: of {ledger.exact} requests exactly what the upstream counted; of {ledger.cut}, some of whose calls "
        "were broken off or given up, not less than was surely read and not more than was sent. All together "
        f"{ledger.tokens} tokens are counted, in the traces as in the metrics; {ledger.generated} were read and "
        f"{ledger.unread} perhaps not",
        f"- {slow.most} streams at once for slow readers, each told whole; {len(slow.seconds)} other answers "
        f"meanwhile: p50 {1000 * _worst(slow.seconds, 0.5):.0f} ms, p99 {1000 * _worst(slow.seconds, 0.99):.0f} ms",
        f"- on a full disk {disk.chats} chats were answered and {disk.refused} uploads refused with 507; {disk.lines} "
        f"lines of the batch under way were answered once each, {disk.seconds:.1f} s after there was room again",
        f"- in the end {len(seen.burst)} requests at once were answered; {seen.left_upstream} calls of the upstream "
        f"and {sum(seen.left.values()):g} requests, samples and waiting calls of the server were left, which held "
        f"{_held(seen.before)} before, {_held(seen.between)} behind the storm and {_held(seen.after)} behind all",
        f"- the server's RSS: {seen.before.rss / MIB:.1f} MiB behind the warm-up, {seen.between.rss / MIB:.1f} behind "
        f"the storm, whose quarters had {', '.join(f'{m:.1f}' for m in mean)} on average and at most "
        f"{max(seen.rss) / MIB:.1f}; {seen.after.rss / MIB:.1f} behind everything",
    ]


def _told(outcome: Outcome) -> str:
    if outcome.problem:
        return "wrong"
    if outcome.answer is None:
        return "clients that vanished"
    if outcome.answer.error:
        return f"{outcome.answer.status} {outcome.answer.error}"
    return "answers"


def _held(held: Held) -> str:
    return f"{held.files} files ({held.sockets} TCP sockets) and {held.threads} threads"


def _worst(values: Sequence[float], share: float) -> float:
    """What this share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
