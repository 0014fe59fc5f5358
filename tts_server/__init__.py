"""An OpenAI-compatible server that spends inference compute on better answers."""

from importlib.metadata import version

__version__ = version("tts-server")
