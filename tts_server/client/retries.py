"""Which failed requests are sent again, and when.

A search costs; it is repeated only where the server cannot have begun it, or says that it may be. A request that was
sent and found no answer, and a stream that broke, are not repeated.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import httpx

from tts_server.client.errors import APIError, api_error, translated

RETRIED = frozenset({408, 429, 500, 502, 503})
"""Statuses that invite to come back, unless `x-should-retry` says otherwise."""
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout)
"""Failures before the server can have seen the request."""
LONGEST_S = 120.0
"""A server that asks for more patience than this gets no second request."""
FIRST_S, CAP_S = 0.5, 8.0


@dataclass(slots=True)
class Attempts:
    """The attempts at one request.

    Args:
        left: how often it may be sent again.
        safe: whether the server may see it twice, as when it only reads.
    """

    left: int
    safe: bool = False
    _pause_s: float = field(default=FIRST_S, init=False)

    def after_failure(self, error: httpx.HTTPError) -> float:
        """Seconds until the next attempt.

        Raises:
            TTSError: there is none.
        """
        again = isinstance(error, UNSENT) or (self.safe and isinstance(error, httpx.TransportError))
        if not again or not self.left:
            with translated():
                raise error
        return self._next(None)

    def after_status(self, response: httpx.Response) -> float:
        """Seconds until the next attempt; the response has been read.

        Raises:
            APIError: there is none.
        """
        wait_s = retry_after_s(response.headers)
        if not self.left or not _invites(response) or (wait_s or 0) > LONGEST_S:
            raise told(response)
        return self._next(wait_s)

    def _next(self, wait_s: float | None) -> float:
        self.left -= 1
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, CAP_S)
        # Clients that failed together should not come back together.
        return wait_s or pause_s * random.uniform(0.75, 1)


def _invites(response: httpx.Response) -> bool:
    said = response.headers.get("x-should-retry", "").lower()
    return said == "true" or (said != "false" and response.status_code in RETRIED)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after`, which is seconds or a date."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


def told(response: httpx.Response) -> APIError:
    """The error that a read response holds."""
    try:
        body = response.json()
    except ValueError:
        body = response.text
    return api_error(
        body,
        status=response.status_code,
        request_id=response.headers.get("x-request-id"),
        retry_after_s=retry_after_s(response.headers),
    )
