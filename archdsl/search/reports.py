"""What a study leaves in its folder: tables of its trials, the networks of its front, pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from archdsl.files import write_together
from archdsl.search.objectives import amount
from archdsl.search.outcomes import one_line
from archdsl.search.records import require_same
from archdsl.search.storages import unreadable
from archdsl.search.study import Study
from archdsl.search.trials import Trial

FRONT = "front"
"""The folder of the networks on the front, and the name of their pictures."""

STUDY = "study.json"
"""The file that says of which study the results in a folder are."""


def record(study: Study, trial: Trial) -> dict[str, Any]:
    """A trial as JSON."""
    return {
        "number": trial.number,
        "name": network_name(study, trial),
        "state": trial.state,
        "accuracy": trial.accuracy,
        "reward": trial.reward,
        **trial.figures,
        "seconds": round(trial.seconds, 3),
        "same_as": trial.same_as,
        "fault": trial.fault,
        "extra": dict(trial.extra),
        "vector": list(trial.vector),
    }


def as_jsonl(study: Study) -> str:
    """All trials, a line each, with the network's text."""
    lines = (
        json.dumps(
            {**record(study, trial), "text": study.space.text_of(trial.vector)}, allow_nan=False
        )
        for trial in study.trials
    )
    return "".join(line + "\n" for line in lines)


def as_csv(study: Study) -> str:
    """All trials as a table; what evaluators say besides has columns of its own."""
    extra = list(dict.fromkeys(key for trial in study.trials for key in trial.extra))
    columns = ["number", "name", "state", "accuracy", "reward", *study.objectives.figures]
    columns += ["seconds", "same_as", *(f"extra.{key}" for key in extra), "fault", "vector"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for trial in study.trials:
        said = record(study, trial)
        said |= {f"extra.{key}": value for key, value in trial.extra.items()}
        said["vector"] = " ".join(map(str, trial.vector))
        table.writerow([said.get(column) for column in columns])
    return text.getvalue()


def network_name(study: Study, trial: Trial) -> str:
    """What a trial's network is called, in the front's files and in the tables.

    Names end with the trial's number.
    """
    return f"{study.space.name}_{trial.number}"


def as_arch(study: Study, trial: Trial) -> str:
    """The network of a trial as a `.arch` text that says where it is from."""
    identity = study.identity
    found = f"accuracy {trial.accuracy:.6g}" if trial.accuracy is not None else trial.state
    said = [
        f"trial {trial.number} of a search of {study.space.name} by {identity['algorithm']}, "
        f"seed {identity['seed']}",
        *([f"{found}, as {one_line(identity['evaluator'])} has it"] if study.judged else []),
        ", ".join(amount(name, value) for name, value in trial.figures.items()),
        f"counted in {identity['dtype']}, batch {identity['batch']}",
        "vector " + " ".join(map(str, trial.vector)),
    ]
    return signed(study.space.text_of(trial.vector, network_name(study, trial)), said)


def signed(text: str, said: Iterable[str]) -> str:
    """A text behind comments that say where it is from."""
    return "".join(f"# {line}\n" for line in said) + text


def files(study: Study) -> dict[str, bytes]:
    """The tables, and the networks of the front, by their places in the folder."""
    found = {}
    for trial in study.front:
        found[f"{FRONT}/{network_name(study, trial)}.arch"] = as_arch(study, trial)
    return {**_tables(study), **{place: text.encode() for place, text in found.items()}}


def _tables(study: Study) -> dict[str, bytes]:
    tables = {"trials.csv": as_csv(study).encode(), "trials.jsonl": as_jsonl(study).encode()}
    # Of what nothing has come it is no matter what it was of.
    about = {STUDY: (json.dumps(_about(study), indent=1) + "\n").encode()} if study.trials else {}
    return {**tables, **about}


def _about(study: Study) -> dict[str, Any]:
    return {"name": study.space.name, **study.identity}


def require_own(study: Study, folder: Path) -> None:
    """Refuse a folder that has the results of another study, wherever that is stored.

    Raises:
        ArchError: E1006, or E1009 where the file that says so is broken.
        OSError: that file cannot be read.
    """
    place = folder / STUDY
    if not place.exists():
        return
    try:
        kept = json.loads(place.read_bytes())
    except (ValueError, RecursionError):
        kept = None
    if not isinstance(kept, dict):
        raise unreadable(os.fspath(place), "it is no object of JSON")
    require_same(kept, _about(study), os.fspath(folder))


def write_tables(study: Study, folder: Path) -> None:
    """Write the tables of what is known so far into a folder, all or nothing.

    Raises:
        ArchError: as `require_own` says.
        OSError: the folder or the disk refuses.
    """
    require_own(study, folder)
    tables = _tables(study)
    write_together({os.fspath(folder / place): data for place, data in tables.items()})


def pictures(study: Study) -> dict[str, bytes]:
    """The picture of the front, as SVG and as PNG; none where there is no front.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if not study.complete:
        return {}
    from archdsl.roofline import figures
    from archdsl.search.pictures import search_figure

    found = {}
    with figures.style():
        for suffix in (".svg", ".png"):
            title = f"a search of {study.space.name}"
            found[FRONT + suffix] = figures.render(search_figure(study), suffix, title)
    return found


def write_results(study: Study, folder: Path, more: dict[str, bytes]) -> None:
    """Write the tables, the front and `more` into a folder, all or nothing.

    Networks of an earlier front that are no longer on it are taken away.

    Raises:
        ArchError: as `require_own` says.
        OSError: the folder or the disk refuses.
    """
    require_own(study, folder)
    written = {**files(study), **more}
    (folder / FRONT).mkdir(parents=True, exist_ok=True)
    write_together({os.fspath(folder / place): data for place, data in written.items()})
    ours = re.compile(re.escape(study.space.name) + r"_[0-9]+\.arch")
    for path in (folder / FRONT).iterdir():
        if ours.fullmatch(path.name) and f"{FRONT}/{path.name}" not in written:
            path.unlink()


def losses(trials: Iterable[Trial]) -> list[tuple[str, list[int]]]:
    """Why trials failed, the most frequent reason first, and which they are.

    Reasons that differ in numbers alone are one, in the words of the first.
    """
    kinds: dict[str, tuple[str, list[int]]] = {}
    for trial in trials:
        if trial.state == "failed":
            fault = trial.fault or "no reason is known"
            kind = re.sub(r"\d+(\.\d+)?", "0", fault)
            kinds.setdefault(kind, (fault, []))[1].append(trial.number)
    return sorted(kinds.values(), key=lambda one: -len(one[1]))
