"""The Python SDK of the server: typed, over httpx, with and without `await`.

>>> with Client(base_url, model="fake") as client:
...     result = client.chat("What is 2 + 2?", tts=TTS("self_consistency", n=4), seed=1)
...     print(result.tts.answer, result.usage.completion_tokens > 0)
4 True
"""

from tts_server.client.async_client import AsyncClient
from tts_server.client.calls import ChatFields, ScoreItem
from tts_server.client.client import Client
from tts_server.client.errors import (
    APIError,
    AuthenticationFailed,
    BadRequest,
    ConnectionFailed,
    ContextTooLong,
    NotFound,
    RateLimited,
    RequestTooLarge,
    ServerError,
    ServerTimedOut,
    StreamCut,
    TimedOut,
    TTSError,
    Unavailable,
    UnexpectedAnswer,
    UnsupportedParameter,
)
from tts_server.client.events import Delta, Event, Final, Progress
from tts_server.client.options import TTS, Budget
from tts_server.client.results import (
    Candidate,
    ChatResult,
    Choice,
    Message,
    ModelInfo,
    Score,
    Scores,
    Search,
    SearchUsage,
    StrategyInfo,
    Trace,
    Usage,
    Vote,
)
from tts_server.client.streams import AsyncChatStream, ChatStream

__all__ = [
    "TTS",
    "APIError",
    "AsyncChatStream",
    "AsyncClient",
    "AuthenticationFailed",
    "BadRequest",
    "Budget",
    "Candidate",
    "ChatFields",
    "ChatResult",
    "ChatStream",
    "Choice",
    "Client",
    "ConnectionFailed",
    "ContextTooLong",
    "Delta",
    "Event",
    "Final",
    "Message",
    "ModelInfo",
    "NotFound",
    "Progress",
    "RateLimited",
    "RequestTooLarge",
    "Score",
    "ScoreItem",
    "Scores",
    "Search",
    "SearchUsage",
    "ServerError",
    "ServerTimedOut",
    "StrategyInfo",
    "StreamCut",
    "TTSError",
    "TimedOut",
    "Trace",
    "Unavailable",
    "UnexpectedAnswer",
    "UnsupportedParameter",
    "Usage",
    "Vote",
]
