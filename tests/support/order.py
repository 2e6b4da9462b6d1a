"""The order in which the files of tests begin."""

from __future__ import annotations

from pathlib import Path

_TESTS = Path(__file__).parent.parent

# What takes longest, mostly by waiting: begun last, it would go on alone when all else is done.
LONGEST_FIRST = (
    "web/test_browser.py",
    "cli/test_cli_errors.py",
    "adoption/test_adopt.py",
    "retention/test_retention.py",
    "embedded/test_embedded_mongo.py",
    "schema/test_migrations_beanie.py",
    "testing/test_testing_plugin.py",
    "safety/test_dead_writers.py",
    "retention/test_dates_in_batches.py",
    "jobs/test_imports.py",
    "reading/test_watch.py",
    "cli/test_cli_stats.py",
    "counting/test_counting.py",
    "health/test_doctor.py",
    "safety/test_past_the_store.py",
    "storage/test_ends.py",
    "cli/test_cli_retention.py",
    "cli/test_cli_folder.py",
    "jobs/test_reported_transcripts.py",
    "safety/test_failover.py",
    "project/test_readme.py",
    "cli/test_cli_docs.py",
    "project/test_startup.py",
)

_PLACES = {_TESTS / name: place for place, name in enumerate(LONGEST_FIRST)}


def place_of(file: Path) -> int:
    """A number that is lower the earlier a file begins; the same for all that are short."""
    return _PLACES.get(file, len(_PLACES))
