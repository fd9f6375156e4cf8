"""Who gives a network's accuracy: evaluators by name, from a user's module, and as programs.

A package offers an evaluator by an entry point in the group `archdsl.evaluators`. It names a
factory: a callable that takes settings by keyword and gives an `Evaluator`.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any

from pydantic import TypeAdapter, ValidationError

from archdsl.extras import install_line
from archdsl.lang.diagnostics import ArchError, did_you_mean, listed, quoted
from archdsl.lang.values import sentence
from archdsl.plugins import installed, owner
from archdsl.search.outcomes import EvaluatorError, Failed, check_result, evaluate, one_line
from archdsl.search.programs import Program
from archdsl.search.trials import Evaluator

__all__ = [
    "GROUP",
    "EvaluatorError",
    "Failed",
    "Program",
    "available",
    "check_result",
    "evaluate",
    "resolve",
]

GROUP = "archdsl.evaluators"

_EXTRAS = {"torch": "torch", "sklearn": "search", "PIL": "images"}
"""The extra of archdsl that has a package, by the name that is imported."""


def available() -> dict[str, EntryPoint]:
    """The installed evaluators by name.

    Raises:
        EvaluatorError: two packages claim one name.
    """
    return installed(GROUP, "evaluators", EvaluatorError)


def resolve(name: str, settings: Mapping[str, Any] | None = None) -> Evaluator:
    """The evaluator of a name, or the function of `MODULE:FUNCTION`.

    Settings are values, or texts as a command line has them: a text becomes what the annotation of
    the parameter says, by the rules of pydantic. Those of a name go to its factory. A function
    takes the network as its first argument, and settings by keyword each time. MODULE is looked for
    in the current folder first.

    Raises:
        EvaluatorError: there is none, it cannot be imported, it has no such setting or no such
            value of one, or it lacks a package; the message names the install line.
        OSError, ArchError: what a setting names cannot be read, or is not what is wanted.
        TypeError: it is no name.
    """
    if not isinstance(name, str):
        raise TypeError(f"evaluator {name!r}: must be a name, such as 'digits', or MODULE:FUNCTION")
    given = dict(settings or {})
    if ":" in name:
        function = _function(name)
        checked = _checked(name, function, given, skip=1)
        return partial(function, **checked) if checked else function
    entry = _entry(name)
    try:
        factory = entry.load()
    except ImportError as error:
        raise EvaluatorError(_lacking(name, error)) from error
    except Exception as error:
        raise EvaluatorError(_broken(name, entry, error)) from error
    checked = _checked(name, factory, given)
    try:
        made: Evaluator = factory(**checked)
    except (EvaluatorError, ArchError, OSError):
        raise
    except ImportError as error:
        raise EvaluatorError(_lacking(name, error)) from error
    except Exception as error:
        raise EvaluatorError(_broken(name, entry, error)) from error
    if not callable(made):
        raise EvaluatorError(_broken(name, entry, "its factory gave nothing that can be called"))
    return made


def _entry(name: str) -> EntryPoint:
    found = available()
    if name in found:
        return found[name]
    guess = did_you_mean(name, found)
    names = f"installed: {listed(sorted(found), 'and')}" if found else "none is installed"
    hint = f"did you mean {guess!r}?" if guess else f"{names}; one's own is MODULE:FUNCTION"
    raise EvaluatorError(f"no evaluator is called {quoted(name, 80)}; {hint}")


def _broken(name: str, entry: EntryPoint, why: object) -> str:
    text = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else str(why)
    return f"the evaluator {name!r} ({entry.value} of {owner(entry)}) is broken: {one_line(text)}"


def _lacking(name: str, error: ImportError) -> str:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    said = "pip install" in str(error)
    install = f"; {install_line(extra)}" if extra and not said else ""
    return f"the evaluator {name!r} cannot be imported ({one_line(str(error))}){install}"


# ----------------------------------------------------------------------------------- a function


def _function(name: str) -> Callable[..., Any]:
    module_name, _, path = name.partition(":")
    if not module_name or not path or not all(map(str.isidentifier, module_name.split("."))):
        raise EvaluatorError(f"{quoted(name, 80)}: must be MODULE:FUNCTION, such as mine:accuracy")
    found: Any = _module(module_name)
    for part in path.split("."):
        names = (
            [n for n in vars(found) if not n.startswith("_")] if hasattr(found, "__dict__") else []
        )
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [n for n in dir(found) if not n.startswith("_")]
            guess = did_you_mean(part, names)
            hint = f"; did you mean {guess!r}?" if guess else ""
            message = f"the module {module_name!r} has no {quoted(path, 80)}{hint}"
            raise EvaluatorError(message) from None
    if not callable(found):
        kind = type(found).__name__
        raise EvaluatorError(f"{quoted(name, 80)} is no function but {kind}: it cannot be called")
    return found  # type: ignore[no-any-return]


def _module(name: str) -> Any:
    """A module of the current folder, or else an installed one."""
    folder = os.getcwd()
    known = folder in sys.path
    sys.path.insert(0, folder)
    try:
        return import_module(name)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            what = f"there is none in {folder}, and none is installed"
        raise EvaluatorError(f"the module {name!r} cannot be imported: {one_line(what)}") from error
    except SystemExit as error:
        message = f"the module {name!r} ends the program when it is imported"
        raise EvaluatorError(message) from error
    finally:
        sys.path.remove(folder)
        if not known:
            # What it imports later is still found, and hides no installed module from others.
            sys.path.append(folder)


# ------------------------------------------------------------------------------------- settings


def _checked(
    name: str, factory: Callable[..., Any], given: dict[str, Any], skip: int = 0
) -> dict[str, Any]:
    """Settings as a callable's parameters want them; the first `skip` are not for settings."""
    parameters = _parameters(factory)
    if parameters is None:
        return given
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    taken = {p.name for p in positional[:skip]}
    known = {p.name: p for p in named if p.name not in taken}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    checked = {}
    for key, value in given.items():
        if key not in known and not open_ended:
            guess = did_you_mean(key, known)
            has = f"it has {listed(list(known), 'and')}" if known else "it has no settings"
            hint = f"did you mean {guess!r}?" if guess else has
            raise EvaluatorError(f"the evaluator {name!r} has no setting {quoted(key)}; {hint}")
        wanted: Any = known[key].annotation if key in known else inspect.Parameter.empty
        bare = wanted is inspect.Parameter.empty
        checked[key] = value if bare else _value(name, key, value, wanted)
    missing = [p.name for p in known.values() if p.default is p.empty and p.name not in checked]
    if missing:
        raise EvaluatorError(
            f"the evaluator {name!r} needs {listed(list(map(repr, missing)), 'and')} to be set"
        )
    return checked


def _parameters(factory: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """The parameters of a callable; None where, as some in C, it says nothing of them."""
    try:
        try:
            signature = inspect.signature(factory, eval_str=True)
        except Exception:
            # An annotation that is no Python, or names what only a type checker imports.
            signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return None
    return list(signature.parameters.values())


def _value(name: str, key: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as errors:
        first = errors.errors(include_url=False, include_input=False)[0]
        shown = quoted(one_line(str(value)))
        message = f"the evaluator {name!r}: {key}={shown.strip('`')}: {sentence(first)}"
        raise EvaluatorError(message) from None
    except Exception:
        # An annotation that is none of pydantic's: the value goes as it came.
        return value
