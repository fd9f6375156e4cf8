"""Networks, block strings and texts made up at random, for the tests of archdsl and of its users.

The strategies are for hypothesis: `pip install "archdsl[testing]"`. `random_architecture` makes the
same networks from a seed, and needs nothing.

>>> random_architecture(1).to_text() == random_architecture(1).to_text()
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from archdsl.extras import needs
from archdsl.testing.growing import random_architecture

if TYPE_CHECKING:
    from archdsl.testing.strategies import (
        architectures,
        blocks,
        nearly_valid,
        specifications,
        texts,
    )

__all__ = [
    "architectures",
    "blocks",
    "nearly_valid",
    "random_architecture",
    "specifications",
    "texts",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'archdsl.testing' has no attribute {name!r}")
    with needs("testing", f"archdsl.testing.{name} needs hypothesis"):
        strategies = import_module("archdsl.testing.strategies")
    return getattr(strategies, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
