"""The backends that come with archdsl; the entry-point group `archdsl.backends` names each."""
