"""A session as a trace: its turns, responses, tools and subagents as spans."""
