"""How well the latency model foretells times that it has not seen: the tables of README.md.

    python benchmarks/latency/validate.py [--write] [--profiles]

Public tables (tables.toml, tables/) by leaving out one network at a time; this machine, as
measure.py measured it (data/), by a fit to the bench kit alone. `--write` puts the tables into
README.md, `--profiles` the calibrated profiles of the public tables into the package's. Everything
is recomputed; nothing here knows one table from another.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import archdsl
from archdsl.calibration import kit
from archdsl.calibration.fit import Fit, fit, mean_error, rank_correlation
from archdsl.calibration.measurement import Measurement, Results
from archdsl.files import write_whole
from archdsl.passes.cost import Work
from archdsl.roofline.model import Device
from archdsl.roofline.profile import ProfileFile

FOLDER = Path(__file__).resolve().parent
Pairs = list[tuple[float, float]]
"""(estimated, measured) times."""


@dataclass(frozen=True)
class Target:
    """One column of a public table."""

    results: Results
    profile: str
    """The name of the calibrated profile that is made of it, or nothing."""
    nominal: Device | None
    ridge: Device | None
    goal: float | None

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        return self.results.measurements


@cache
def work(network: str, width: float, size: int) -> Work:
    """What a network of a table computes and moves."""
    # A width of 1 is the file's own, at which nothing is rounded anew.
    given = {} if width == 1 else {"width": width}
    return archdsl.load(network, input=(size, size, 3), **given).work


def targets() -> Iterator[tuple[str, list[Target]]]:
    """The targets of each table, under its source."""
    described = tomllib.loads((FOLDER / "tables.toml").read_text(encoding="utf-8"))
    for table in described["table"]:
        with open(FOLDER / "tables" / table["file"], encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        yield table["source"], [_target(rows, one, table) for one in table["target"]]


def _target(rows: list[dict[str, str]], one: dict[str, Any], table: dict[str, Any]) -> Target:
    measurements = tuple(
        Measurement(
            row["printed"],
            work(row["network"], float(row["width"]), int(row["size"])),
            float(row[one["column"]]) * 1000,
        )
        for row in rows
        if row[one["column"]]
        and row["dtype"] in ("", one["dtype"])
        and row["network"] == one.get("network", row["network"])
    )
    machine = f"{one['device']}, {one['unit']}"
    results = Results(measurements, one["dtype"], machine=machine, source=table["source"])
    nominal, ridge = (
        archdsl.load_device(one[key]) if key in one else None for key in ("nominal", "ridge")
    )
    return Target(results, one.get("profile", ""), nominal, ridge, one.get("goal"))


def estimated(device: Device, results: Results) -> Pairs:
    """What a device says of networks, beside what was measured; of ridge points any unit."""
    found = []
    for one in results.measurements:
        latency = device.estimate(one.work, dtype=results.dtype, batch=one.batch)
        found.append((latency.us or latency.equivalent_macs, one.us))
    return found


def held_out(found: Fit) -> Pairs:
    """The times that were foretold by fits which had not seen them."""
    return [(p.held_out, p.measured) for p in found.predictions if p.held_out is not None]


def fitted() -> Iterator[Fit]:
    """The calibrated profiles that the public tables give."""
    for _, found in targets():
        for target in found:
            if target.profile:
                machine = target.results.machine.removesuffix(", all rows")
                device, _, unit = machine.partition(", ")
                yield fit(target.results, target.profile, device=device, unit=unit)


_FITTED = (
    "# Fitted to public tables by benchmarks/latency/validate.py --profiles, which writes these.\n"
)


def write_profiles() -> None:
    """Put the calibrated profiles behind those of the data sheets, device by device."""
    folder = FOLDER.parents[1] / "archdsl" / "roofline" / "devices"
    files: dict[str, list[Fit]] = {}
    for found in fitted():
        files.setdefault(found.profile.name.partition("-")[0], []).append(found)
    for device, fits in files.items():
        path = folder / f"{device}.toml"
        made = ProfileFile(device=fits[0].title, profile=[one.profile for one in fits]).to_toml()
        title, _, profiles = made.partition("\n\n")
        old = path.read_text(encoding="utf-8") if path.exists() else f"{title}\n\n"
        write_whole(path, f"{old.partition(_FITTED)[0].rstrip()}\n\n{_FITTED}\n{profiles}".encode())


# --------------------------------------------------------------------------------- public tables

HEAD = (
    ("target", "numbers", "networks"),
    ("MACs: ρ", "data sheet: ρ", "data sheet: error", "one ridge point: error"),
    ("calibrated: error", "calibrated: ρ", "goal", ""),
)


def row(target: Target) -> tuple[str, ...]:
    """A target's line of the report."""
    known = target.results
    macs = [(sum(m.work.macs), m.us) for m in known.measurements]
    sheet = estimated(target.nominal, known) if target.nominal else []
    simple, full = held_out(fit(known, "two", numbers=2)), held_out(fit(known, "all"))
    error = mean_error(full)
    verdict = "" if target.goal is None else "met" if error <= target.goal else "**missed**"
    return (
        known.machine,
        known.dtype,
        str(len(known.measurements)),
        _rho(macs),
        _rho(sheet) if sheet else "",
        _percent(mean_error(sheet)) if sheet else "",
        _percent(mean_error(simple)),
        _percent(error),
        _rho(full),
        "" if target.goal is None else f"{target.goal:g} %",
        verdict,
    )


def public() -> str:
    """The tables of what others measured."""
    parts = []
    for source, found in targets():
        parts.append(
            f"{source}\n\n{_markdown([h for part in HEAD for h in part], map(row, found))}"
        )
    return "\n".join(parts)


def ridge_points() -> str:
    """The paper's ridge points, with our exact counts, on the rows that we have."""
    with open(FOLDER / "tables" / "mobilenetv4_table16.csv", encoding="utf-8", newline="") as file:
        printed = {entry["profile"]: entry for entry in csv.DictReader(file)}
    rows = []
    for _, found in targets():
        for target in found:
            if target.ridge is None:
                continue
            known = target.results
            paper = printed[target.ridge.name]
            macs = [(sum(m.work.macs), m.us) for m in known.measurements]
            rows.append(
                (
                    *(known.machine, paper["ridge_point"], str(len(known.measurements))),
                    *(_rho(estimated(target.ridge, known)), _rho(macs)),
                    *(paper["spearman_roofline"], paper["spearman_macs"]),
                )
            )
    head = ("target", "ridge point", "networks", "ρ", "ρ of MACs", "paper: ρ", "paper: ρ of MACs")
    return _markdown(head, rows)


# ---------------------------------------------------------------------------------- this machine

GOAL_ERROR, GOAL_RHO = 8.0, 0.98


@dataclass(frozen=True)
class Here:
    """A runtime of this machine: calibrated on the kit, asked about the published networks."""

    record: dict[str, Any]
    kit: Results
    networks: Results


def measured_here() -> Iterator[Here]:
    """What measure.py measured."""
    sources = {arch.name: arch for arch in kit.networks()}
    for path in sorted((FOLDER / "data").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        known: dict[bool, list[Measurement]] = {True: [], False: []}
        for entry in record["networks"]:
            name = entry["name"]
            arch = sources.get(name) or archdsl.load(name)
            if arch.cost().macs != entry["macs"]:
                raise SystemExit(f"{path.name}: {name} has other MACs now; measure again")
            one = Measurement(name, arch.work, entry["us"], whole=kit.is_whole(name))
            known[name in sources].append(one)
        common = {"dtype": record["dtype"], "machine": record["machine"]}
        yield Here(record, *(Results(tuple(known[side]), **common) for side in (True, False)))


def here() -> str:
    """The table of this machine."""
    rows = []
    for found in measured_here():
        device = fit(found.kit, "here", held_out=False).device
        pairs = estimated(device, found.networks)
        error, rho = mean_error(pairs), rank_correlation(pairs) or 0.0
        off = sorted(abs(us / measured - 1) * 100 for us, measured in pairs)
        rows.append(
            (
                f"{found.record['runtime']} {found.record['runtime_version']}",
                found.record["dtype"],
                *(str(len(found.kit.measurements)), str(len(pairs))),
                *(_percent(error), _percent(off[len(off) // 2]), _percent(off[-1]), f"{rho:.4f}"),
                "met" if error <= GOAL_ERROR and rho >= GOAL_RHO else "**missed**",
            )
        )
    head = ("runtime", "numbers", "kit", "networks", "error", "median", "largest", "ρ", "")
    return _markdown(head, rows)


def networks_here() -> str:
    """Every network of this machine: its time, and by how much the estimate is off."""
    columns: dict[str, dict[str, str]] = {}
    names: list[str] = []
    for found in measured_here():
        device = fit(found.kit, "here", held_out=False).device
        column = columns.setdefault(f"{found.record['runtime']} {found.record['dtype']}", {})
        for one, (us, measured) in zip(
            found.networks.measurements, estimated(device, found.networks), strict=True
        ):
            names.append(one.name)
            column[one.name] = f"{measured / 1000:,.2f} ({us / measured - 1:+.1%})"
    rows = [(name, *(c.get(name, "") for c in columns.values())) for name in dict.fromkeys(names)]
    return _markdown(("network", *columns), rows)


# --------------------------------------------------------------------------------------- writing


def _rho(pairs: Pairs) -> str:
    found = rank_correlation(pairs)
    return "" if found is None else f"{found:.3f}"


def _percent(value: float) -> str:
    return f"{value:.1f} %"


def _markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *map(list, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PARTS = {"public": public, "ridge": ridge_points, "here": here, "networks": networks_here}
_PART = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description="How well the latency model foretells.")
    parser.add_argument("--write", action="store_true", help="write the tables into README.md")
    parser.add_argument("--profiles", action="store_true", help="write the calibrated profiles")
    options = parser.parse_args()
    if options.profiles:
        write_profiles()
        return
    page = FOLDER / "README.md"
    text = page.read_text(encoding="utf-8")
    new = _PART.sub(lambda m: f"{m[1]}{PARTS[m[2]]()}{m[4]}", text)
    if options.write:
        write_whole(page, new.encode())
    else:
        print(new)


if __name__ == "__main__":
    main()
