"""What an artefact says of its making: which text, which weights, which archdsl."""

from __future__ import annotations

import hashlib
import os

import archdsl
from archdsl.backend import Job
from archdsl.lang.source import SourceText
from archdsl.weights.store import digest


def metadata(job: Job) -> dict[str, str]:
    """Texts by name, the same for the same job.

    `source_sha256` is that of the text as it was parsed, in UTF-8, and `width`, `input` and
    `classes` are what it was compiled for; `weights_sha256` is that which `archdsl weights inspect`
    shows.
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
        "weights_sha256": digest(job.weights),
        "dtype": job.options.dtype,
    }


def file_name(source: SourceText) -> str:
    """The name of a text without its folders: an artefact is the same wherever it is made."""
    return os.path.basename(source.name)
