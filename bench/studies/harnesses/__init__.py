"""GSM8K in other evaluation harnesses, against this server, and how their grades compare with ours."""
