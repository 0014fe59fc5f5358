"""Whether a model hub can be had, told within seconds; never downloads by itself."""

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import httpx

__all__ = ["Hub", "HubError"]

REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


class HubError(Exception):
    """The hub cannot be reached or does not have the model; the message is a clause that says which."""


@dataclass(frozen=True, slots=True)
class Hub:
    """A model hub that speaks the Hugging Face protocol."""

    endpoint: str = "https://huggingface.co"
    token: str | None = None
    offline: bool = False
    patience_s: float = 3.0
    """Until its answer: name resolution, connecting and waiting together."""

    @classmethod
    def from_environment(cls) -> "Hub":
        """The hub that the variables of `huggingface_hub` name."""
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
        return cls(endpoint.rstrip("/"), os.environ.get("HF_TOKEN") or _stored_token(), offline)

    def check(self, repository: str) -> None:
        """Returns if the hub has this model.

        Raises:
            HubError: it is no hub id, the hub does not answer in time, or it refuses.
        """
        if not REPOSITORY.fullmatch(repository):
            raise HubError("that is neither a path here nor a hub id")
        if self.offline:
            raise HubError("HF_HUB_OFFLINE is set")
        response = self._head(f"{self.endpoint}/{repository}/resolve/main/config.json")
        if response.status_code < 400 or response.headers.get("x-error-code") == "EntryNotFound":
            return
        # The hub answers 401 for what does not exist, too, lest it tell which private models there are.
        if response.status_code in {401, 403, 404}:
            raise HubError(f"the hub at {self.endpoint} does not give it (HTTP {response.status_code})")
        raise HubError(f"the hub at {self.endpoint} fails (HTTP {response.status_code})")

    def cached(self, repository: str) -> Path | None:
        """The model's directory in the hub's own cache on this machine, if its weights are there."""
        if not REPOSITORY.fullmatch(repository) or find_spec("huggingface_hub") is None:
            return None
        from huggingface_hub import snapshot_download  # noqa: PLC0415
        from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

        try:
            snapshot = Path(snapshot_download(repository, local_files_only=True))
        except LocalEntryNotFoundError:
            return None
        return snapshot if any(file for pattern in WEIGHTS for file in snapshot.glob(pattern)) else None

    def _head(self, url: str) -> httpx.Response:
        answers: Queue[httpx.Response | Exception] = Queue()
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}

        def ask() -> None:
            try:
                answers.put(httpx.head(url, headers=headers, timeout=self.patience_s))
            except Exception as error:
                answers.put(error)

        # A thread, since httpx bounds each phase but neither their sum nor the name resolution; a daemon, since nothing
        # can end the latter and a process must be able to leave it behind.
        Thread(target=ask, daemon=True).start()
        try:
            answer = answers.get(timeout=self.patience_s)
        except Empty:
            raise HubError(f"the hub at {self.endpoint} did not answer within {self.patience_s:g} s") from None
        if isinstance(answer, Exception):
            raise HubError(f"the hub at {self.endpoint} cannot be reached ({answer})") from answer
        return answer


def _stored_token() -> str | None:
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import get_token  # noqa: PLC0415

    return get_token()
