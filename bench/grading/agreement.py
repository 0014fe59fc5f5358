"""How far our grading agrees with that of others, on pairs of a text and a gold answer; differences by their cause.

TTS_BENCH_DATA=DIR python -m bench.grading.agreement --out docs/grading.md
"""

import asyncio
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.grading.grade import Grade, grade
from bench.grading.outside_graders import Grader, Verdict, flexible_extract, math_verify, strict_match
from bench.grading.pairs import GOLD_SOLUTION, Pair, gold_solutions, latex_pairs, numeric_pairs, recorded_pairs
from bench.stored.machine import machine, versions
from bench.stored.records import read_records
from bench.tasks import load
from strategies.answers import canonical

GRADERS: Mapping[str, Grader] = {
    "lm-eval strict-match": strict_match,
    "lm-eval flexible-extract": flexible_extract,
    "math-verify": math_verify,
}
NUMERIC_ONLY = ("lm-eval strict-match", "lm-eval flexible-extract")
"""Graders of GSM8K, which know whole numbers and decimals only."""
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(frozen=True, slots=True)
class GraderComparison:
    """One pair, graded by us and by one other."""

    grader: str
    pair: Pair
    ours: Grade
    theirs: Verdict
    same_answer: bool
    """Whether both read the same answer in the text."""

    @property
    def agrees(self) -> bool:
        return self.ours.correct == self.theirs.correct

    @property
    def cause(self) -> str:
        """Where a difference comes from: reading the text, or comparing what was read."""
        if self.theirs.read is None:
            return "it reads no answer"
        if self.ours.answer is None:
            return "we read no answer"
        return "both read the same and compare otherwise" if self.same_answer else "it reads another answer"


async def compare(pairs: Sequence[Pair], graders: Mapping[str, Grader] = GRADERS) -> list[GraderComparison]:
    """Every pair under every grader that knows its data."""
    ours = [await grade(pair.text, pair.gold, truncated=pair.truncated) for pair in pairs]
    found = []
    for name, grader in graders.items():
        for pair, grading in zip(pairs, ours, strict=True):
            if name in NUMERIC_ONLY and pair.data == "math500":
                continue
            theirs = grader(pair)
            found.append(GraderComparison(name, pair, grading, theirs, await _same(grading.answer, theirs.read)))
    return found


async def _same(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return one is other
    return len(set(await canonical([one, other]))) == 1


def made_pairs(data: Path | None, each: int, seed: int) -> list[Pair]:
    """All gold solutions of GSM8K and MATH-500, and `each` of every kind made from them.

    Raises:
        TaskError: the data cannot be had.
    """
    gsm8k, math500 = load("gsm8k", data=data).problems, load("math500", data=data).problems
    return [
        *gold_solutions("gsm8k", gsm8k),
        *numeric_pairs(gsm8k, each, seed),
        *gold_solutions("math500", math500),
        *latex_pairs(math500, each, seed),
    ]


def summary(comparisons: Sequence[GraderComparison]) -> Iterator[str]:
    """How often each grader agrees with ours, and how often each is right where that is known, in Markdown."""
    yield "| compared with | pairs | agreement | verdict known | ours right | theirs right |"
    yield "|---|---|---|---|---|---|"
    for name in dict.fromkeys(comparison.grader for comparison in comparisons):
        mine = [comparison for comparison in comparisons if comparison.grader == name]
        known = [comparison for comparison in mine if comparison.pair.right is not None]
        ours = sum(comparison.ours.correct == comparison.pair.right for comparison in known)
        theirs = sum(comparison.theirs.correct == comparison.pair.right for comparison in known)
        cells = [len(mine), _share(sum(comparison.agrees for comparison in mine), len(mine)), len(known)]
        yield f"| {' | '.join(map(str, [name, *cells, _share(ours, len(known)), _share(theirs, len(known))]))} |"


def gold_solutions_right(comparisons: Sequence[GraderComparison]) -> Iterator[str]:
    """How many of the gold solutions are right by us against their own gold answers."""
    verdicts = {c.pair: c.ours.correct for c in comparisons if c.pair.kind == GOLD_SOLUTION}
    for data in dict.fromkeys(pair.data for pair in verdicts):
        mine = [correct for pair, correct in verdicts.items() if pair.data == data]
        yield f"- gold solutions of {data} graded right against their own gold answers: {sum(mine)} of {len(mine)}"


def differences(comparisons: Sequence[GraderComparison]) -> Iterator[str]:
    """The differences of each grader by their cause and by how the pair was made, with an example each, in Markdown."""
    for name in dict.fromkeys(comparison.grader for comparison in comparisons):
        different = [comparison for comparison in comparisons if comparison.grader == name and not comparison.agrees]
        yield f"### {name}: {len(different)} differences"
        yield ""
        if not different:
            continue
        yield "| cause | pair made by | differences | ours right | its right | end of one's text | gold | ours | its |"
        yield "|---|---|---|---|---|---|---|---|---|"
        counts = Counter((comparison.cause, comparison.pair.data, comparison.pair.kind) for comparison in different)
        for group, count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1])):
            members = [c for c in different if (c.cause, c.pair.data, c.pair.kind) == group]
            cells = [group[0], f"{group[1]}: {group[2]}", str(count), *_who(members), *_example(members[0])]
            yield f"| {' | '.join(cells)} |"
        yield ""


def own_errors(comparisons: Sequence[GraderComparison]) -> Iterator[str]:
    """The pairs whose verdict is known and ours is not that one, in Markdown."""
    wrong = {c.pair: c for c in comparisons if c.pair.right is not None and c.ours.correct != c.pair.right}
    yield f"{len(wrong)} of the pairs with a known verdict are graded wrong by us."
    yield ""
    if wrong:
        yield "| pair made by | should be | end of text | gold | ours |"
        yield "|---|---|---|---|---|"
    for pair, comparison in wrong.items():
        should = "right" if pair.right else "wrong"
        yield f"| {pair.data}: {pair.kind} | {should} | {' | '.join(_example(comparison)[:3])} |"


def _share(hits: int, n: int) -> str:
    return f"{100 * hits / n:.2f} % ({hits})" if n else ""


def _who(members: Sequence[GraderComparison]) -> tuple[str, str]:
    """Of how many differences ours, and theirs, is the right verdict."""
    known = [comparison for comparison in members if comparison.pair.right is not None]
    ours = sum(comparison.ours.correct == comparison.pair.right for comparison in known)
    return (str(ours), str(len(known) - ours)) if known else ("?", "?")


def _example(comparison: GraderComparison) -> tuple[str, str, str, str]:
    pair = comparison.pair
    ours, theirs = (_code(read) if read else "nothing" for read in (comparison.ours.answer, comparison.theirs.read))
    return _code(pair.text[-70:]), _code(pair.gold), ours, theirs


def _code(text: str) -> str:
    """As code in a cell of a Markdown table."""
    flat = " ".join(text.split())[:80].replace("|", "\\|")
    return f"`` {flat} ``" if "`" in flat else f"`{flat}`"


def replaced(page: str, measured: str) -> str:
    """The page with what was measured between its marks.

    Raises:
        ValueError: the page has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END} around what is measured")
    return f"{before}{BEGIN}\n\n{measured}\n\n{END}{after}"


def main(
    data: Annotated[Path | None, typer.Option(envvar="TTS_BENCH_DATA", help="Directory of the data sets.")] = None,
    each: Annotated[int, typer.Option(min=1, help="Pairs of each kind.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the draw of problems.")] = 0,
    records: Annotated[list[Path] | None, typer.Option(help="Runs whose samples are compared as well.")] = None,
    out: Annotated[Path | None, typer.Option(help="Page whose measured part is replaced.")] = None,
    differing: Annotated[Path | None, typer.Option(help="JSONL file for every difference.")] = None,
) -> None:
    """Compares, and prints agreement and differences or puts them into a page."""
    pairs = made_pairs(data, each, seed)
    for path in records or []:
        pairs += recorded_pairs(read_records(path))
    comparisons = asyncio.run(compare(pairs))
    command = shlex.join(["python", "-m", "bench.grading.agreement", *sys.argv[1:]])
    note = f"{machine()}; {versions('tts-server', 'math-verify', 'latex2sympy2-extended', 'sympy')}."
    parts = [f"    {command}", "", note, "", *summary(comparisons), "", *gold_solutions_right(comparisons), ""]
    parts += [*own_errors(comparisons), ""]
    measured = "\n".join([*parts, *differences(comparisons)]).rstrip()
    if differing:
        lines = [json.dumps(_flat(c), ensure_ascii=False) + "\n" for c in comparisons if not c.agrees]
        differing.write_text("".join(lines))
    if out:
        out.write_text(replaced(out.read_text(), measured))
    print(measured if out is None else "\n".join(summary(comparisons)))


def _flat(comparison: GraderComparison) -> dict[str, str | bool | None]:
    pair = comparison.pair
    return {
        "grader": comparison.grader,
        "cause": comparison.cause,
        "data": pair.data,
        "kind": pair.kind,
        "text": pair.text,
        "gold": pair.gold,
        "right": pair.right,
        "ours": comparison.ours.answer,
        "our_verdict": comparison.ours.correct,
        "theirs": comparison.theirs.read,
        "their_verdict": comparison.theirs.correct,
    }


if __name__ == "__main__":
    typer.run(main)
