"""The other notations an architecture is read from and written to."""
