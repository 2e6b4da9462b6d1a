"""Transcripts and listings read back."""
