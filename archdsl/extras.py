"""What is said where a package is missing that one of archdsl's extras brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def install_line(extra: str) -> str:
    """The command that installs an extra.

    >>> install_line("onnx")
    'pip install "archdsl[onnx]"'
    """
    return f'pip install "archdsl[{extra}]"'


@contextmanager
def needs(extra: str, why: str, fault: type[Exception] = ImportError) -> Iterator[None]:
    """Within it, what cannot be imported is a `fault` that says what installs it; `why` begins.

    An `ImportError` of it has no `name`, by which it is told from one that Python raised.

    >>> with needs("images", "photos are read with Pillow"):
    ...     import no_pillow
    Traceback (most recent call last):
    ImportError: photos are read with Pillow (No module named 'no_pillow'); \
pip install "archdsl[images]"

    Raises:
        fault: a package is missing, or is broken.
    """
    try:
        yield
    except ImportError as error:
        raise fault(f"{why} ({error}); {install_line(extra)}") from error
