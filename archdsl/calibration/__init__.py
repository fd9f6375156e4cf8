"""From measured times to a device profile: the bench kit, its results, the fit."""
