"""OpenAI's Batch API: files of requests that are answered when nobody else waits, and kept until they are fetched.

records     what is kept, and how OpenAI writes it
store       where it is kept: one SQLite file
lines       an input file's lines: requests, or what is wrong with them
dispatch    one request to this very server, without a connection
sharing     one budget for all lines of a batch, and what of it each may spend
shares      those budgets as they are after a restart
runner      which line is answered when
service     all of it together, from start to end
"""

from tts_server.batches.service import Batches

__all__ = ["Batches"]
