"""The limits that keep hostile input cheap: the one place they are stated.

They lie far above any network of this family and are checked with Python integers, before
anything is built. A value beyond one is an error that names the limit. Those of texts and networks
can be raised: `--limit NAME=VALUE` in the command line, `raised` in Python. A limit's name is that
of its constant: MAX_REPEATS is `repeats`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_TEXT = 1 << 20
"""Characters of a text."""

MAX_TOKENS = 1 << 16
"""Words, signs and spaces between them of a text."""

MAX_SKIPPED = 1 << 12
"""Words of a text that are skipped since they fit nowhere."""

MAX_WORD = 1 << 10
"""Characters of one block string or word."""

MAX_NESTING = 32
"""Arrays and objects inside each other, in the notations of other libraries."""

MAX_PROFILES_TEXT = 1 << 18
"""Characters of a file of device profiles."""

MAX_PROFILES_DEPTH = 16
"""Tables and arrays inside each other, in a file of device profiles, and parts of a key there."""

MAX_RESULTS = 1 << 25
"""Bytes of a file of measured times, of which ONNX Runtime's profiles have an event for every
operator, or of accuracies."""

MAX_MEASURED = 1_024
"""Networks that were measured together."""

MAX_ERRORS = 100
"""Errors of a text that are shown: with more it is something else than a text with slips."""

MAX_STATEMENTS = 256
"""Variants of a file, and `published` statements, those of all variants counted."""

MAX_KERNEL = 31
MAX_STRIDE = 9
MAX_REPEATS = 1_000
MAX_BLOCKS = 4_096
"""Blocks of a network, repeats counted."""

MAX_OPERATORS = 1 << 14
"""Operators of a network: twenty times EfficientNet-B7's. Making them is what a text of many
different blocks takes time for."""

MAX_PARAMS = 1 << 32
"""Parameters of a network: 16 GiB of float32."""

MAX_WEIGHT_BYTES = 1 << 34
"""Bytes of a network's kernels, as float32."""

MAX_ACTIVATION_BYTES = 1 << 36
"""Bytes that are live at once in a network, for one image, as float32."""

MAX_MACS = 1 << 50
"""Multiply-accumulates of a network, for one image; floats hold such numbers exactly."""

MAX_CHANNELS = 1 << 20
MAX_SIDE = 1 << 15
"""Pixels of an image side."""

MAX_EXPANSION = 128.0
MAX_HEADS = 1_024
MAX_CLASSES = 1 << 24
MAX_SCALE = 64.0
"""Width and depth multipliers."""

MAX_CHOICES = 1 << 10
"""Decisions of a search space."""

MAX_OPTIONS = 1 << 12
"""Ways to decide one block of a search space, and to decide all of its statements."""

MAX_STEPS = 1 << 14
"""Blocks of a search space, each counted once for every shape that may come in."""

MAX_PRINTED = 1 << 20
"""Bytes that a program prints which gives a network's accuracy."""

MAX_HEADER = 1 << 25
"""Bytes of a weight file's table of tensors: more than 100,000 tensors have."""

MAX_TENSORS = 1 << 17
"""Tensors of a checkpoint, and groups of its HDF5 file."""

MAX_PIXELS = 1 << 26
"""Pixels of a photo."""

MAX_IMAGE_BYTES = 1 << 32
"""Bytes of a set of images, as float32."""


# ---------------------------------------------------------------------------------- raised limits

_DEFAULTS = {
    name.removeprefix("MAX_").lower(): value
    for name, value in list(globals().items())
    if name.startswith("MAX_")
}

RAISABLE = (
    *("text", "tokens", "word", "statements", "blocks", "repeats", "kernel", "channels", "side"),
    *("expansion", "heads", "classes", "scale"),
    *("operators", "params", "weight_bytes", "activation_bytes", "macs"),
    "steps",
)
"""The limits that can be raised. The others bound how a file is read, and no network."""

HIGHEST = 1 << 53
"""To which they can be raised: floats hold every whole number up to it."""

Raised = tuple[tuple[str, int], ...]

_raised: ContextVar[Raised] = ContextVar("archdsl_limits", default=())


def in_force() -> Raised:
    """What is raised now, by name: what a memo of anything that hangs on limits is kept under."""
    return _raised.get()


def most(name: str) -> int:
    """The value of a limit that can be raised.

    >>> most("repeats")
    1000
    """
    for raised_name, value in _raised.get():
        if raised_name == name:
            return value
    return int(_DEFAULTS[name])


@contextmanager
def raised(**limits: int) -> Iterator[None]:
    """Raise limits for what is read inside, in this thread.

    What was read stays valid outside. Limits that are raised already stay so.

    Raises:
        ValueError: no limit of that name can be raised, or the value is not above the limit.

    >>> import archdsl
    >>> with raised(repeats=2000):
    ...     archdsl.block("r2000_k3").block.repeats
    2000
    """
    for name, value in limits.items():
        if name not in RAISABLE:
            raise ValueError(f"no limit {name!r} can be raised; those that can: {_listed()}")
        if type(value) is not int or not most(name) <= value <= HIGHEST:
            least = f"{most(name):,}"
            raise ValueError(f"{name}: must be a whole number from {least} to {HIGHEST:,}")
    token = _raised.set(tuple(sorted({**dict(_raised.get()), **limits}.items())))
    try:
        yield
    finally:
        _raised.reset(token)


def _listed() -> str:
    return ", ".join(RAISABLE)


def hint(name: str) -> str:
    """What the help of a diagnostic says of a limit.

    >>> hint("repeats")
    'the limit `repeats` is 1,000; `--limit repeats=N` raises it'
    """
    return f"the limit `{name}` is {most(name):,}; `--limit {name}=N` raises it"
