"""The recorded comparison: the plan, its runs, their tables and what they say."""
