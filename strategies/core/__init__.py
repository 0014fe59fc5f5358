"""The words of every strategy, the account that it spends from, and the clock."""
