"""Coverage-guided fuzzing of what reads texts and files from others (see docs/testing.md)."""
