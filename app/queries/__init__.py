"""Questions to all sessions of a tenant; summaries are read, and nothing is written."""
