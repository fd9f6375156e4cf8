"""Published architectures, one `.arch` file a family, found by name from any directory."""
