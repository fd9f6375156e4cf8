"""What an artefact says of its making: which text, which weights, which archdsl."""

from __future__ import annotations

import hashlib

import numpy as np

import archdsl
from archdsl.backend import Job


def metadata(job: Job) -> dict[str, str]:
    """Texts by name, the same for the same job.

    `source_sha256` is that of the text as it was parsed, in UTF-8; `weights_sha256` is taken over
    the keys and bytes of the weights in the order of the `state_dict`.
    """
    source = job.arch.origins.source
    return {
        "archdsl_version": archdsl.__version__,
        "architecture": job.arch.name,
        "source": source.name,
        "source_sha256": hashlib.sha256(source.text.encode()).hexdigest(),
        "weights_sha256": _weights_hash(job),
        "dtype": job.options.dtype,
    }


def _weights_hash(job: Job) -> str:
    digest = hashlib.sha256()
    for key, value in job.weights.items():
        digest.update(f"{key}\0".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
