"""What a person sees: tables, charts, transcripts and progress, and plain text for a pipe."""
