"""The grammars of the `.arch` language, read by `archdsl.lang.syntax`."""
