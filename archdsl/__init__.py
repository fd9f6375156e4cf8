"""archdsl: a declarative language and compiler for mobile vision networks.

>>> import archdsl
>>> archdsl.load("mnv4_conv_m").cost().params
9715512
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.backend import Artifact, BackendError, compile, compile_supernet
    from archdsl.compiler import Arch, parse
    from archdsl.coster import BlockString, Coster, block
    from archdsl.lang.diagnostics import ArchError, Diagnostic
    from archdsl.lang.dialects.json import json_schema
    from archdsl.library import load
    from archdsl.passes.cost import Cost
    from archdsl.proofs import check
    from archdsl.roofline.model import Device
    from archdsl.roofline.profiles import load_device, load_devices
    from archdsl.search.space import Space, load_space, parse_space
    from archdsl.verification import verify

__version__ = "0.1.0"

__all__ = [
    "Arch",
    "ArchError",
    "Artifact",
    "BackendError",
    "BlockString",
    "Cost",
    "Coster",
    "Device",
    "Diagnostic",
    "Space",
    "block",
    "check",
    "compile",
    "compile_supernet",
    "json_schema",
    "load",
    "load_device",
    "load_devices",
    "load_space",
    "parse",
    "parse_space",
    "verify",
]

# Where each public name lives. Modules are imported when a name is first asked for, so that the
# command line starts with what its command needs.
_HOMES = {
    "archdsl.backend": ("Artifact", "BackendError", "compile", "compile_supernet"),
    "archdsl.proofs": ("check",),
    "archdsl.compiler": ("Arch", "parse"),
    "archdsl.coster": ("BlockString", "Coster", "block"),
    "archdsl.lang.diagnostics": ("ArchError", "Diagnostic"),
    "archdsl.lang.dialects.json": ("json_schema",),
    "archdsl.library": ("load",),
    "archdsl.passes.cost": ("Cost",),
    "archdsl.roofline.model": ("Device",),
    "archdsl.roofline.profiles": ("load_device", "load_devices"),
    "archdsl.search.space": ("Space", "load_space", "parse_space"),
    "archdsl.verification": ("verify",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'archdsl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
