"""Commands from a cold shell: whole processes, their wall time and their peak memory.

Runs in the process of `run.py`, which must stay small (see `measure.run_process`): nothing is
imported here but the standard library.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from measure import Process, run_process, summary
from peers import SHIM
from texts import FILE, MACS, PARAMS, SIZE, TIMM_NAME

_BUILD = (
    f"import sys, types; sys.modules[{SHIM!r}] = types.ModuleType('')\n"
    f"import timm; net = timm.create_model({TIMM_NAME!r}).eval()\n"
)
_TORCHINFO = f"""import torchinfo
found = torchinfo.summary(net, (1, 3, {SIZE}, {SIZE}), verbose=0)
print(found.total_params, found.total_mult_adds)
"""
_PTFLOPS = f"""import ptflops
macs, params = ptflops.get_model_complexity_info(
    net, (3, {SIZE}, {SIZE}), as_strings=False, print_per_layer_stat=False, verbose=False
)
print(params, macs)
"""


class Command(NamedTuple):
    """A command line, and what it must not exceed: seconds, MiB."""

    name: str
    line: tuple[str, ...]
    seconds: float | None = None
    mib: float | None = None
    peer: bool = False


def commands(folder: Path) -> list[Command]:
    """What is measured; `folder` takes what is compiled."""
    python = (sys.executable, "-c")
    archdsl = shutil.which("archdsl", path=str(Path(sys.executable).parent)) or "archdsl"
    file, out = str(FILE), str(folder / "net.py")
    compile_ = (archdsl, "compile", file, "--to", "torch", "-o", out)
    # Megabytes as in the target: 100 MB are 95.4 MiB.
    memory = 100e6 / 2**20
    return [
        Command("python -c pass", (*python, "pass")),
        Command("python -c 'import archdsl'", (*python, "import archdsl")),
        Command("archdsl check FILE", (archdsl, "check", file), 0.35, memory),
        Command("archdsl cost FILE --json", (archdsl, "cost", file, "--json"), None, memory),
        Command("archdsl cost FILE", (archdsl, "cost", file), None, memory),
        Command("archdsl compile FILE --to torch", compile_, 0.6),
        Command("timm.create_model", (*python, _BUILD), peer=True),
        Command("timm + torchinfo", (*python, _BUILD + _TORCHINFO), peer=True),
        Command("timm + ptflops", (*python, _BUILD + _PTFLOPS), peer=True),
    ]


def measure(quick: bool) -> dict[str, Any]:
    """All commands in turns; the first round is the warm-up and proves that they work.

    The peers take seconds each, and part in every third round.
    """
    rounds = 3 if quick else 15
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        todo = commands(folder)
        taken: dict[str, list[Process]] = {command.name: [] for command in todo}
        missing: dict[str, str] = {}
        wrong: list[str] = []
        for number in range(rounds + 1):
            for command in list(todo):
                if command.peer and number % 3:
                    continue
                try:
                    process = run_process(command.line, folder)
                    reason = _reason(process) if process.status else None
                except OSError as error:
                    reason = str(error.strerror)
                if reason is not None:
                    missing[command.name] = reason
                    todo.remove(command)
                    continue
                taken[command.name].append(process)
                if not number:
                    wrong += _wrong(command.name, process.stdout, folder)
    return {
        "wrong": wrong,
        "rounds": rounds,
        "commands": {
            command.name: {
                "seconds": summary([p.seconds for p in taken[command.name][1:]]),
                "cpu_seconds": summary([p.cpu_seconds for p in taken[command.name][1:]]),
                "warmup": taken[command.name][0].seconds,
                "peak_mib": summary([p.peak_mib for p in taken[command.name][1:]]),
                "target_seconds": command.seconds,
                "target_mib": command.mib,
                "runs": len(taken[command.name]) - 1,
                "peer": command.peer,
            }
            for command in todo
        },
        "missing": missing,
    }


def _reason(process: Process) -> str:
    """Why a command failed: the last line on standard error that says so."""
    lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"exit status {process.status}"])[-1]


def _wrong(name: str, stdout: str, folder: Path) -> list[str]:
    """Where a command did not do what it is timed for."""
    if name.endswith("--json"):
        found = json.loads(stdout)
        if (found["params"], found["macs"]) != (PARAMS, MACS):
            return [f"{name}: {found['params']} parameters, {found['macs']} MACs"]
    if " + " in name and int(stdout.split()[-2]) != PARAMS:
        return [f"{name}: {stdout.split()[-2]} parameters"]
    if "compile" in name:
        compile((folder / "net.py").read_text(), "net.py", "exec")
    return []
