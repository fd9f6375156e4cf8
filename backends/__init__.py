"""The backends that come with archdsl, each found through the entry-point group `archdsl.backends`."""
