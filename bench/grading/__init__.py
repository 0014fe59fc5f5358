"""Whether an answer is the gold answer, and how other graders see it."""
