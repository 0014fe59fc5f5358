"""`tts-bench report`: what the page says, that it loads nothing, and that what models wrote stays text."""

import base64
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from bench.reporting.report import command
from bench.stored.manifest import Manifest, Server, Session, Settings, write_manifest
from bench.stored.records import RECORDS

pytest.importorskip("matplotlib", reason="needs the extra bench")
pytest.importorskip("jinja2", reason="needs the extra bench")

EVIL = "</span><script>alert('x')</script><img src=https://example.org/x onerror=alert(1)>\" & '"


class Page(HTMLParser):
    """The text, tags and links of a page."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(markup)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def sample(answer: str, *scores: float, text: str | None = None) -> dict[str, Any]:
    steps = "\n\n".join(f"Thought {i}." for i in range(len(scores)))
    return {
        "text": text or f"{steps} \\boxed{{{answer}}}",
        "answer": answer,
        "step_scores": scores or None,
        "score": scores[-1] if scores else None,
        "completion_tokens": 50,
        "finish_reason": "stop",
    }


def record(place: int, correct: bool, *samples: dict[str, Any], **fields: Any) -> dict[str, Any]:
    given = samples or (sample("7" if correct else "8", 0.5, 0.25),)
    known = {
        "id": f"p{place}",
        "question": f"Question {place}?",
        "gold": "7",
        "samples": given,
        "answer": given[0]["answer"],
        "correct": correct,
        "chosen": 0,
        "latency_s": 2.0,
        "usage": {"completion_tokens": 50 * len(given), "engine_prompt_tokens": 30, "cached_prompt_tokens": 10},
    }
    return {**known, **fields}


def run(path: Path, records: Sequence[dict[str, Any]], problems: int | None = None, **settings: Any) -> Path:
    """A run's directory."""
    path.mkdir(parents=True)
    (path / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records))
    known = {"task": "gsm8k", "split": "test", "source": "f", "data_sha256": "0", "prompt": "boxed", "messages": ()}
    session = Session("2026-01-01T00:00:00+00:00", "http://x", "tts-bench run", None, "a machine", "v")
    settings = {**known, "model": "m-0.5b", "strategy": "beam_search", **settings}
    count = len(records) if problems is None else problems
    write_manifest(path, Manifest(Settings(**settings), Server(), problems=count, sessions=(session,)))
    return path


def report(out: Path, *runs: Path, options: Sequence[object] = ()) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [*map(str, runs), "--out", str(out), *map(str, options)], env={"COLUMNS": "160"})


def page_of(tmp_path: Path, *runs: Path, options: Sequence[object] = ()) -> Page:
    done = report(tmp_path / "report", *runs, options=options)
    assert done.exit_code == 0, done.output
    return Page((tmp_path / "report" / "index.html").read_text())


def two_runs(tmp_path: Path) -> list[Path]:
    """The second is right where the first is, and on six of the eight other problems."""
    tags = [{"level": str(i % 3 * 5), "subject": "Algebra"} for i in range(12)]
    one = [record(i, i < 4, **tags[i]) for i in range(12)]
    other = [record(i, i < 10, sample("7" if i < 10 else "8", 0.5), sample("9", 0.2), **tags[i]) for i in range(12)]
    return [run(tmp_path / "beam", one), run(tmp_path / "bon", other, strategy="best_of_n", options={"n": 2})]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the two runs."""
    folder = tmp_path_factory.mktemp("two")
    done = report(folder / "report", *two_runs(folder))
    assert done.exit_code == 0, done.output
    assert "\nbeam │" in done.output
    return folder / "report"


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "index.html").read_text())


def test_the_page_tells_accuracy_cost_and_who_leads(page: Page) -> None:
    assert "beam 33.3 13.8 to 60.9 tokens 12 50 20 2.0" in page.text
    assert "bon 83.3 55.2 to 95.3 tokens, time 12 100 20 2.0" in page.text
    assert "2 runs on gsm8k (test)" in page.text


def test_runs_are_compared_in_pairs(page: Page) -> None:
    assert "beam − bon 12 -50.0 (-75.0 to -25.0) 0 : 6 0.031 0.031 yes" in page.text


def test_it_begins_with_what_is_significant_and_what_is_not(written: Path, page: Page) -> None:
    first, second = (written / "report.md").read_text().splitlines()[2:5:2]
    assert first == "Significant, in points: bon over beam, +50.0 (+25.0 to +75.0)."
    assert second.startswith("Not significant: ")
    assert page.text.index(first) < page.text.index("Accuracy and cost")
    assert ("class", "marked") in page.attributes


def test_votes_over_stored_samples_are_held_against_runs(page: Page) -> None:
    section = page.text[page.text.rindex("Votes against runs") :]
    assert re.search(r"majority@2 of bon − beam 12 \+8\.3 \([^)]*\) \S+ \S+ no", section), section[:900]


def test_without_a_significant_difference_it_says_so(tmp_path: Path) -> None:
    one, other = [run(tmp_path / name, [record(0, True), record(1, name == "a")]) for name in "ab"]
    done = report(tmp_path / "report", one, other)
    assert done.output.startswith("No difference is significant.")


def test_levels_stand_in_the_order_of_their_numbers(page: Page) -> None:
    assert page.text.index("0 4 50.0 (15.0 to 85.0) 100.0") < page.text.index("5 4 25.0") < page.text.index("10 4 25.0")
    assert "By subject" not in page.text


def test_samples_of_runs_that_draw_them_apart_are_rescored(page: Page) -> None:
    assert "bon pass 41.7" in page.text
    assert "bon best 41.7" in page.text
    assert "beam pass" not in page.text


def test_problems_on_which_runs_differ_are_shown_with_steps_and_scores(page: Page) -> None:
    assert "On 6 problems some runs are right and some wrong." in page.text
    assert "p4 level 5, subject Algebra ✗ beam ✓ bon Question 4? Gold answer: 7" in page.text
    assert "✗ wrong: 8 score 0.250 Thought 0. 0.50 Thought 1. \\boxed{8} 0.25" in page.text
    assert "Samples: 7 × 1 · 9 × 1" in page.text
    assert "Question 3?" not in page.text


def test_only_so_many_problems_are_shown(tmp_path: Path) -> None:
    fewer = page_of(tmp_path, *two_runs(tmp_path), options=["--problems", 2])
    assert "2 of them are shown" in fewer.text
    assert fewer.tags.count("article") == 4


def test_the_page_loads_nothing(page: Page) -> None:
    links = [value for name, value in page.attributes if name in ("src", "srcset", "href", "action", "data")]
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    policy = next(value for name, value in page.attributes if value.startswith("default-src"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert all(dict(page.attributes).get(name) for name in ("lang", "alt", "scope"))
    anchors = {value for name, value in page.attributes if name == "id"}
    assert {link[1:] for link in links if link.startswith("#")} <= anchors


def test_what_models_and_data_say_stays_text(tmp_path: Path) -> None:
    evil = sample(EVIL, 0.5, text=EVIL)
    fields = {"question": EVIL, "gold": EVIL, "level": EVIL, "subject": EVIL, "id": EVIL, "stop_reason": EVIL}
    one = run(
        tmp_path / "a<b onclick=x>", [record(0, True, evil, evil, **fields), record(1, False, subject="s", level="1")]
    )
    failed = record(0, False, **{**fields, "error": EVIL})
    other = run(tmp_path / "b", [failed, record(1, False)], options={"system_prompt": EVIL})
    page = page_of(tmp_path, one, other, options=["--title", EVIL])
    assert not {"script", "b"} & set(page.tags)
    assert page.tags.count("img") == len([p for p in (tmp_path / "report").glob("*.png") if "dark" not in p.name])
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(" ".join(EVIL.split())) >= 10


def test_pictures_are_files_and_on_the_page(written: Path, page: Page) -> None:
    shown = [value for name, value in page.attributes if name in ("src", "srcset")]
    pictures = {file.name: file.read_bytes() for file in written.glob("*.png")}
    kinds = ("tokens", "time", "level", "samples")
    assert set(pictures) == {f"accuracy-{kind}{dark}.png" for kind in kinds for dark in ("", "-dark")}
    assert {base64.b64decode(link.partition(",")[2]) for link in shown} == set(pictures.values())


def test_the_tables_are_written_as_markdown_too(written: Path) -> None:
    tables = (written / "report.md").read_text()
    assert "| beam | 33.3 | 13.8 to 60.9 |" in tables
    assert "| **beam − bon** | **12** |" in tables, "what is significant is marked"
    assert "](accuracy-tokens.png)" in tables


def test_what_does_not_compare_is_said(tmp_path: Path) -> None:
    one = run(tmp_path / "one", [record(0, True), record(1, True)], problems=5)
    silent = record(1, False, error="the prompt is too long", usage={}, samples=[], answer=None, chosen=None)
    other = run(tmp_path / "two", [record(2, True, usage={}), silent], concurrency=8)
    text = page_of(tmp_path, one, other).text
    assert "The runs are not of the same problems: 1 are in all of them." in text
    assert "one is unfinished: 3 problems are still to be done." in text
    assert "two: 1 problems have no answer because of an error" in text
    assert "two does not tell its tokens" in text
    assert "different numbers of problems at once" in text
    assert "No answer: the prompt is too long" in text


def test_runs_with_no_problem_in_common_and_one_run_alone_have_a_page(tmp_path: Path) -> None:
    one, other = run(tmp_path / "one", [record(0, True)]), run(tmp_path / "two", [record(1, True)])
    for runs in ([one], [one, other]):
        text = page_of(tmp_path, *runs).text
        assert "Run against run" not in text
        assert "Nothing is compared" in text
        assert "There is no problem on which one run is right and another wrong." in text


def test_a_run_without_any_answer_has_a_page(tmp_path: Path) -> None:
    refused = record(0, False, error="the prompt is too long", usage={}, answer=None, chosen=None)
    one = run(tmp_path / "one", [{**refused, "samples": [], "latency_s": None}], strategy="best_of_n")
    page = page_of(tmp_path, one)
    assert "one 0.0 0.0 to 79.3" in page.text
    assert "img" not in page.tags


def test_steps_that_do_not_fit_their_scores_are_shown_without(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "one", [record(0, False, sample("8", 0.5, 0.125, text="One step. \\boxed{8}"))]),
        run(tmp_path / "two", [record(0, True, sample("7", text="x" * 30_000), chosen=None)]),
    ]
    text = page_of(tmp_path, *runs).text
    assert "The step scores are 0.50, 0.12: their steps were cut in another way." in text
    assert "10,000 more characters are in the records." in text


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [run(tmp_path / day / "bon", [record(0, day == "a")]) for day in ("a", "b")]
    assert "a/bon − b/bon" in page_of(tmp_path, *runs).text


@pytest.mark.parametrize(
    ("second", "settings", "message"),
    [
        ([record(0, True, gold="9")], {}, "record 'p0' has the gold answer '7'"),
        ([record(0, True)], {"data_sha256": "1"}, "a report is of one set of problems"),
        ([{**record(0, True), "correct": None}], {}, "record 'p0' has no `correct`"),
        ([], {}, "there are no records"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(
    tmp_path: Path, second: list[dict[str, Any]], settings: dict[str, Any], message: str
) -> None:
    runs = [run(tmp_path / "one", [record(0, True)]), run(tmp_path / "two", second, **settings)]
    done = report(tmp_path / "report", *runs)
    assert done.exit_code == 1
    assert message in done.output
    assert not (tmp_path / "report").exists()


def test_other_bad_input_is_named(tmp_path: Path) -> None:
    one = run(tmp_path / "one", [record(0, True)])
    assert "is given twice" in report(tmp_path / "report", one, one).output
    assert "cannot be read" in report(tmp_path / "report", tmp_path / "none").output
    (tmp_path / "prices.json").write_text('{"gold": 1}')
    assert "prices.json" in report(tmp_path / "report", one, options=["--prices", tmp_path / "prices.json"]).output
    (tmp_path / "taken").write_text("")
    assert report(tmp_path / "taken", one).exit_code == 1


def test_prices_and_weights_add_dollars_and_flops(tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text('{"completion": 2, "prompt": 1}')
    options = ["--prices", tmp_path / "prices.json", "--parameters", 1e9]
    page = page_of(tmp_path, run(tmp_path / "one", [record(0, True)]), options=options)
    assert "1.4e+11 0.0001" in page.text
