"""How many tokens a question deserves, and what they are spent on."""
