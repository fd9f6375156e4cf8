"""Archives that may be broken, or made to harm: what lies in them, before anything is unpacked."""

from __future__ import annotations

import os
import zipfile

from archdsl.limits import MAX_TENSORS


class Unreadable(Exception):
    """Why a file is not a whole checkpoint."""


def members(path: str | os.PathLike[str]) -> list[zipfile.ZipInfo]:
    """What lies in a zip archive, by its table of contents.

    Raises:
        OSError: the file cannot be read.
        Unreadable: it is no whole archive, or has too many entries.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except OSError:
        raise
    except Exception as fault:  # zipfile raises half a dozen kinds for files that are cut
        raise Unreadable(f"a broken zip archive ({fault})") from None
    if len(found) > MAX_TENSORS:
        raise Unreadable(f"a zip archive of {len(found):,} entries; the limit is {MAX_TENSORS:,}")
    return found
