"""What a search does while somebody waits for it, on standard error."""

import time
from types import TracebackType
from typing import Self

from rich import live
from rich.console import Console
from rich.spinner import Spinner
from rich.text import Text

from tts_server.cli.terminal import samples
from tts_server.client import Search

LINE_S, MOST_S = 10.0, 60.0
"""Seconds between the first lines where there is no terminal, and between later ones: each pause is twice the last."""
KEPT_CHARS = 1000
"""Of what was said: the last line is shown."""


class Live:
    """One line that is kept up to date on a terminal and gone at the end; elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()
        self._told_at: float | None = None
        self._pause_s = LINE_S
        self._text = ""
        self._search: Search | None = None
        self._spinner = Spinner("dots")
        # What is written meanwhile goes where it belongs, and not through this.
        self._live = live.Live(
            console=console,
            get_renderable=self._rendered,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def tell(self, text: str, search: Search | None) -> None:
        """Takes what the search says, and how far it is."""
        self._search = search or self._search
        self._text = (self._text + text)[-KEPT_CHARS:]
        if not self._console.is_terminal and not self._told_lately:
            self._pause_s = LINE_S if self._told_at is None else min(2 * self._pause_s, MOST_S)
            self._told_at = time.monotonic()
            self._console.print(self.line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Takes the line away."""
        self._live.stop()

    @property
    def line(self) -> str:
        """Samples, tokens, seconds, and what the search said last."""
        counts = []
        if self._search:
            growing = f", {grow} growing" if (grow := self._search.growing) else ""
            counts = [f"{samples(self._search.samples)}{growing}", f"{self._search.usage.completion_tokens} tokens"]
        last = self._text.strip().rpartition("\n")[2]
        return " · ".join([*counts, f"{time.monotonic() - self._begun:.0f} s", *filter(None, [last])])

    @property
    def _told_lately(self) -> bool:
        return self._told_at is not None and time.monotonic() - self._told_at < self._pause_s

    def _rendered(self) -> Spinner:
        self._spinner.update(text=Text(self.line, style="dim", no_wrap=True, overflow="ellipsis"))
        return self._spinner
