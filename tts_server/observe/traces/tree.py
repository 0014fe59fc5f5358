"""A search drawn as a tree: each sample below the one that it goes on from, with its score and what became of it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text
from rich.tree import Tree

Json = Mapping[str, Any]
TEXT_CHARS = 60
GUIDE_COLUMNS, ROW_COLUMNS = 4, 60
STYLES = {
    "returned": "bold green",
    "candidate": "",
    "continued": "dim",
    "pruned": "dim",
    "open": "yellow",
    "cut": "yellow",
    "aborted": "yellow",
    "failed": "red",
}


def tree(trace: Json) -> Tree:
    """The tree of a trace as `view.shown` gives it.

    Samples between which nothing branches stand in one row, so that long solutions do not run out of the screen.
    """
    samples = [sample for call in trace["calls"] for sample in call["samples"]]
    parents = {sample["id"]: call["parents"] for call in trace["calls"] for sample in call["samples"]}
    children: dict[int | None, list[int]] = defaultdict(list)
    for number, above in parents.items():
        children[above[0] if above else None].append(number)
    answers = _answers(trace)
    root = Tree(_head(trace))
    stack: list[tuple[Tree, int | None]] = [(root, None)]
    while stack:
        branch, number = stack.pop()
        for child in children[number]:
            chain = [child]
            while len(children[chain[-1]]) == 1:
                chain += children[chain[-1]]
            row = _row([samples[each] for each in chain], parents[child][1:], answers.get(chain[-1]))
            stack.append((branch.add(row), chain[-1]))
    return root


def width(trace: Json, least: int) -> int:
    """Columns in which a tree can be drawn, so that a deep one keeps room for what its rows say."""
    depths: dict[int, int] = {}
    for call in trace["calls"]:
        above = depths[call["parents"][0]] if call["parents"] else 0
        depths |= {sample["id"]: above + 1 for sample in call["samples"]}
    return max(least, GUIDE_COLUMNS * max(depths.values(), default=0) + ROW_COLUMNS)


def _answers(trace: Json) -> dict[int, str]:
    """What the samples answer that end a candidate; nothing in a redacted trace."""
    candidates = (trace["final"] or {}).get("candidates", ())
    return {c["sample"]: c["answer"] for c in candidates if c["sample"] is not None and c.get("answer") is not None}


def _head(trace: Json) -> Text:
    usage = trace["usage"]
    scored = f", {usage['prm_tokens']} scored" if usage["prm_tokens"] else ""
    cost = f"{usage['samples']} samples, {usage['completion_tokens']} tokens{scored}, {trace['duration_s']:.2f} s"
    stopped = f", stopped by {trace['stop_reason']}" if trace["stop_reason"] else ""
    lines = [f"{trace['id']}: {trace['strategy']}, {trace['status']}{stopped}", cost]
    lines += [_pairs(trace["options"])] if trace["options"] else []
    lines += list(_choice(trace["final"]))
    lines += [f"error: {trace['error'].get('message') or trace['error']['type']}"] if trace["error"] else []
    return Text("\n".join(lines))


def _choice(final: Json | None) -> Iterator[str]:
    if not final or not final["votes"]:
        return
    votes = ", ".join(f"{_line(vote.get('answer') or '')} ×{vote['count']}".strip() for vote in final["votes"])
    yield f"votes {votes}" + (f"; chosen by {final['selector']}" if final["selector"] else "")


def _row(chain: Sequence[Json], others: Sequence[int], answer: str | None) -> Text:
    """Samples that go on from one another."""
    last = chain[-1]
    row = Text(" → ".join(str(sample["id"]) for sample in chain))
    row.append(f"  {last['state']}", STYLES[last["state"]])
    scores = [f"{sample['score']:.3f}" for sample in chain if sample["score"] is not None]
    parts = [" → ".join(scores)] if scores else []
    parts.append(f"{sum(sample['completion_tokens'] for sample in chain)} tokens")
    parts += [last["finish_reason"]] if last["finish_reason"] else []
    parts += [f"also from {', '.join(map(str, others))}"] if others else []
    if error := last.get("error"):
        parts.append(error.get("message") or error["type"])
    row.append("".join(f"  {part}" for part in parts), "dim" if last["state"] in ("pruned", "continued") else "")
    if answer is not None:
        row.append(f"  answers {_line(answer)}", "bold")
    elif last.get("text"):
        row.append(f"  {_line(last['text'])}", "dim italic")
    return row


def _pairs(options: Json) -> str:
    return ", ".join(f"{name}={_line(str(value))}" for name, value in options.items() if value is not None)


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1] + "…"
