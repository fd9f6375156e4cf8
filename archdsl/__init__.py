"""archdsl: a declarative language and compiler for mobile vision networks.

>>> import archdsl
>>> archdsl.load("mnv4_conv_m").cost().params
9715512
"""

from archdsl.backend import Artifact, BackendError, compile
from archdsl.check import check
from archdsl.compiler import Arch, parse
from archdsl.coster import Coster, block
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.dialects.json import json_schema
from archdsl.library import load
from archdsl.passes.cost import Cost
from archdsl.roofline.model import Device

__version__ = "0.1.0"

__all__ = [
    "Arch",
    "ArchError",
    "Artifact",
    "BackendError",
    "Cost",
    "Coster",
    "Device",
    "Diagnostic",
    "block",
    "check",
    "compile",
    "json_schema",
    "load",
    "parse",
]
