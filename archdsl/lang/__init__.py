"""From text to a typed specification: source, diagnostics, syntax, spec, elaborate, printer."""
