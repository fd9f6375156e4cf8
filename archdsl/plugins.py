"""What installed packages offer by entry points: backends and evaluators."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points


def installed(group: str, kind: str, fault: type[Exception]) -> dict[str, EntryPoint]:
    """The entry points of a group by name; `kind` says what they are.

    Raises:
        fault: two packages claim one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        # An editable install may be listed twice: the same object is no conflict.
        if other.value != entry.value:
            raise fault(
                f"two {kind} are called {entry.name!r}: "
                f"{other.value} of {owner(other)} and {entry.value} of {owner(entry)}; "
                "uninstall one of them"
            )
    return found


def owner(entry: EntryPoint) -> str:
    """The package that an entry point is of."""
    return entry.dist.name if entry.dist else "an unknown package"
