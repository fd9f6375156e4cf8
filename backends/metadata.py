"""What an artefact says of its making: which text, which weights, which archdsl."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping

import archdsl
from archdsl.backend import Job
from archdsl.files import Piece
from archdsl.lang.source import SourceText
from archdsl.weights.store import Digest


def metadata_piece(
    job: Job, digest: Digest, written: Callable[[Mapping[str, str]], bytes]
) -> Piece:
    """A job's metadata as a format writes them, for a place behind the weights.

    The digest of the weights is known when they have been written; its length, before.
    """
    unknown = written(metadata(job, "0" * 2 * hashlib.sha256().digest_size))
    return Piece(len(unknown), lambda: written(metadata(job, digest.hexdigest())))


def metadata(job: Job, weights_sha256: str) -> dict[str, str]:
    """Texts by name, the same for the same job.

    `source_sha256` is that of the text as it was parsed, in UTF-8, and `width`, `input` and
    `classes` are what it was compiled for; `weights_sha256` is that which `archdsl weights inspect`
    shows. int8 files also say how their ranges were found (`ranges`), and on which images.
    """
    arch, source = job.arch, job.arch.origins.source
    return {
        "archdsl_version": archdsl.__version__,
        "architecture": arch.name,
        "width": f"{arch.attributes.width:g}",
        "input": "x".join(map(str, arch.input)),
        "classes": str(arch.classes),
        "source": file_name(source),
        "source_sha256": hashlib.sha256(source.text.encode()).hexdigest(),
        "weights_sha256": weights_sha256,
        "dtype": job.options.dtype,
        **job.calibrated,
    }


def file_name(source: SourceText) -> str:
    """The name of a text without its folders: an artefact is the same wherever it is made."""
    return os.path.basename(source.name)
