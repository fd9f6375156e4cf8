"""Files of other formats: how they begin, and what lies in archives that may be made to harm."""

from __future__ import annotations

import errno
import os
import zipfile

from archdsl.limits import MAX_TENSORS

_PIECE = 1 << 20

# The first bytes: of PyTorch's files before 1.6, of zip archives, of HDF5.
OLD_PTH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ZIP = b"PK\x03\x04"
HDF5 = b"\x89HDF\r\n\x1a\n"


CHECKPOINTS = ("a PyTorch checkpoint", "a Keras file")
"""What of `foreign` is imported."""


def foreign(path: str | os.PathLike[str], head: bytes) -> str | None:
    """What a file is, by its first 8 bytes and its ending, if it is of another format.

    >>> foreign("net.pth", b"PK\\x03\\x04....")
    'a PyTorch checkpoint'
    """
    pytorch, keras = CHECKPOINTS
    suffix = os.path.splitext(path)[1].lower()
    if head.startswith((HDF5, ZIP)) and suffix in (".h5", ".hdf5", ".keras"):
        return keras
    if head.startswith(HDF5):
        return "an HDF5 file"
    if head.startswith((OLD_PTH[:8], ZIP)):
        return "a zip archive" if suffix in (".zip", ".npz") else pytorch
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite file"
    return "an ONNX file" if suffix == ".onnx" else None


class Unreadable(Exception):
    """Why a file is not a whole checkpoint."""


def disk_fails(fault: BaseException) -> bool:
    """Whether reading failed for the disk's sake, and not since a file's places lead nowhere."""
    return isinstance(fault, OSError) and fault.errno not in (None, errno.EINVAL)


def members(path: str | os.PathLike[str]) -> list[zipfile.ZipInfo]:
    """What lies in a zip archive, by its table of contents.

    Raises:
        OSError: the file cannot be read.
        Unreadable: it is no whole archive, has too many entries, or two of one name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except Exception as fault:  # zipfile raises half a dozen kinds for files that are cut
        if disk_fails(fault):
            raise
        raise Unreadable(f"a broken zip archive ({fault})") from None
    if len(found) > MAX_TENSORS:
        raise Unreadable(f"a zip archive of {len(found):,} entries; the limit is {MAX_TENSORS:,}")
    if len({info.filename for info in found}) < len(found):
        raise Unreadable("a zip archive that has two entries of one name")
    return found


def check_sums(path: str | os.PathLike[str]) -> None:
    """Compare every entry of a zip archive with its checksum.

    Where all checksums are zero there are none: `torch.serialization.set_crc32_options(False)`.

    Raises:
        OSError: the file cannot be read.
        Unreadable: an entry is not what was written.
    """
    entries = members(path)
    if not any(info.CRC for info in entries):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for info in entries:
                with archive.open(info) as entry:
                    while entry.read(_PIECE):
                        pass
    except Exception as fault:  # as above
        if disk_fails(fault):
            raise
        raise Unreadable(f"a broken zip archive ({fault})") from None
