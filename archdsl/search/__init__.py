"""Search spaces: an architecture with choices in it, and its members."""
