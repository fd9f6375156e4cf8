"""Algorithms that propose networks of a space, and are told what became of them.

`docs/algorithms.md` says what each does. Those of libraries import them when they are made.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from archdsl.extras import needs
from archdsl.lang.diagnostics import did_you_mean
from archdsl.search.space import Space
from archdsl.search.trials import Algorithm

ALGORITHMS: Mapping[str, str] = {
    "random": "members drawn with equal chances: what the others must beat",
    "evolution": "regularised evolution: the best of a few is changed, the oldest is forgotten",
    "reinforce": "the controller of TuNAS: chances of the options, learned from rewards",
    "tpe": "Optuna's tree-structured Parzen estimator: options that good networks have more often",
    "nsga2": "Optuna's NSGA-II: a front of several objectives",
    "pymoo-nsga2": "pymoo's NSGA-II: the same, with mutation and crossover of the space",
}
"""The algorithms by name, with a line on each."""

_CLASSES = {
    "random": "sampling:Sampling",
    "evolution": "evolution:Evolution",
    "reinforce": "reinforce:Reinforce",
    "tpe": "optuna_samplers:Tpe",
    "nsga2": "optuna_samplers:Nsga2",
    "pymoo-nsga2": "pymoo_nsga2:PymooNsga2",
}


def make(name: str, space: Space, seed: int, **settings: Any) -> Algorithm:
    """The algorithm of a name, for a space; the same seed proposes the same.

    Settings may be texts, as from a command line.

    >>> from archdsl.search.space import parse_space
    >>> space = parse_space("arch s input 8x8x3 stem { conv_k{1,3}_o{8,16} }")
    >>> make("evolution", space, 0, population="10").ask(0) in space
    True

    Raises:
        ValueError: an unknown name or setting, or a value that is none of the setting.
        ImportError: the library that has it is not installed; the message has the install line.
    """
    known = settings_of(name)
    read: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in known:
            hint = _hint(key, known) if known else "it has none"
            raise ValueError(f"`{name}` has no setting {key!r}; {hint}")
        read[key] = _read(name, key, value, known[key])
    made: Algorithm = _class(name)(space, seed, **read)
    return made


def settings_of(name: str) -> dict[str, Any]:
    """The settings of an algorithm with their defaults.

    Raises:
        ValueError: an unknown name.
        ImportError: the library that has it is not installed; the message has the install line.
    """
    parameters = inspect.signature(_class(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _class(name: str) -> Any:
    if name not in _CLASSES:
        raise ValueError(f"no algorithm is called {name!r}; {_hint(name, ALGORITHMS)}")
    module, _, attribute = _CLASSES[name].partition(":")
    with needs("search", f"the algorithm `{name}` cannot be imported"):
        found = import_module(f"{__name__}.{module}")
    return getattr(found, attribute)


def _hint(word: str, known: Mapping[str, Any]) -> str:
    guess = did_you_mean(word, known)
    return f"did you mean {guess}?" if guess else f"there are {', '.join(known)}"


def _read(name: str, key: str, value: Any, default: Any) -> Any:
    """A setting's value, of the type that its default has."""
    kind = type(default)
    if isinstance(value, str) and kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    elif kind is float and type(value) is int:
        return float(value)
    elif type(value) is kind:
        return value
    wanted = {int: "a whole number", float: "a number"}.get(kind, "a word")
    raise ValueError(f"`{name}`: {key} {value!r}: must be {wanted}")
