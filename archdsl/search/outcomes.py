"""What an evaluator gave of a network: an accuracy, or a sentence that says why there is none."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from archdsl.compiler import Arch
from archdsl.lang.diagnostics import ArchError, quoted
from archdsl.search.trials import Evaluation, Evaluator

_SHOWN = 200


class EvaluatorError(Exception):
    """An evaluator that is unknown, broken, wrongly set, or that lacks a package."""


class Failed(Exception):
    """An evaluation in vain; the message is one plain sentence about this network."""


def evaluate(
    evaluator: Evaluator, arch: Arch, complain: Callable[[str], object] | None = None
) -> Evaluation:
    """Ask an evaluator about a network; whatever it raises or gives, a search can go on.

    `complain` is given the traceback of what it raised, unless that was `Failed`, which says all.
    Ctrl-C and the like are passed on.
    """
    started = time.perf_counter()
    try:
        value: Any = evaluator(arch)
        seconds = time.perf_counter() - started
        return check_result(value, seconds)
    except Exception as error:
        fault = _sentence(error)
        if complain is not None and not isinstance(error, Failed):
            complain(_traceback(error))
    except SystemExit as error:
        if complain is not None:
            complain(_traceback(error))
        fault = f"the evaluator ended the program (exit status {error.code})"
    return Evaluation(None, one_line(fault), seconds=time.perf_counter() - started)


def check_result(value: Any, seconds: float = 0.0) -> Evaluation:
    """An evaluation of what an evaluator gave: a number, or a mapping of figures with `accuracy`.

    Numbers of numpy and tensors with one element are numbers; `True` and texts are none. What else
    is in a mapping is kept as `extra` where it is a finite number, and left out where not.

    A number of 16 or 32 bits becomes the shortest decimal that rounds to it: 0.93 is
    0.9299999475479126 otherwise.

    >>> found = check_result({"accuracy": 0.5, "loss": 2})
    >>> found.accuracy, found.extra
    (0.5, {'loss': 2.0})
    >>> check_result("0.5").fault
    "the evaluator gave '0.5' (str), and an accuracy is a number"
    """
    extra: dict[str, float] = {}
    given = value
    if isinstance(value, Mapping):
        if "accuracy" not in value:
            keys = ", ".join(quoted(str(key)) for key in list(value)[:8])
            fault = f"the evaluator gave figures without `accuracy`: {keys or 'none'}"
            return Evaluation(None, fault, seconds=seconds)
        given = value["accuracy"]
        for key, other in value.items():
            figure = _number(other)
            if key != "accuracy" and figure is not None and math.isfinite(figure):
                extra[str(key)] = figure
    accuracy = _number(given)
    if accuracy is None:
        kind = type(given).__name__
        shown = "None" if given is None else f"{_short(given)} ({kind})"
        fault = f"the evaluator gave {shown}, and an accuracy is a number"
        return Evaluation(None, one_line(fault), extra, seconds)
    if not math.isfinite(accuracy):
        fault = f"the evaluator gave {accuracy}, and an accuracy is a finite number"
        return Evaluation(None, fault, extra, seconds)
    return Evaluation(accuracy, None, extra, seconds)


def one_line(text: str, limit: int = _SHOWN) -> str:
    """A text of unknown origin as part of a sentence: one line, printable, of bounded length."""
    flat = " ".join(text[: 8 * limit].split())
    shown = flat if len(flat) <= limit else flat[: limit - 1] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)


def _number(value: Any) -> float | None:
    if isinstance(value, (bool, str, bytes, bytearray)):
        return None
    try:
        if hasattr(value, "item"):
            kind = str(getattr(value, "dtype", "")).rpartition(".")[2]
            # An array or a tensor: `item` refuses more than one element.
            value = value.item()
            if isinstance(value, bool):
                return None
            if kind in ("float16", "float32"):
                # Who gives such a number has loaded it.
                import numpy as np

                value = str(np.dtype(kind).type(value))
        return float(value)
    except OverflowError:
        return math.inf
    except Exception:
        return None


def _short(value: Any) -> str:
    try:
        return one_line(repr(value), 80)
    except Exception:
        return "something"


def _traceback(error: BaseException) -> str:
    """The traceback of what an evaluator raised, without the call of it here."""
    trace = error.__traceback__
    try:
        return "".join(traceback.format_exception(error.with_traceback(trace and trace.tb_next)))
    except Exception:
        # Memory may be out, and an exception's own methods may raise.
        return f"{type(error).__name__}, of which there is no traceback\n"


def _sentence(error: Exception) -> str:
    if isinstance(error, Failed):
        return str(error)
    if isinstance(error, ArchError):
        return error.diagnostics[0].message
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"{type(error).__name__}: {error}"
