"""What the figures were taken on, and what else ran there meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("archdsl", "lark", "pydantic", "networkx", "click", "rich", "jinja2")
PEERS = ("torch", "timm", "torchinfo", "ptflops")


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system, Python, and the versions of all that is compared."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "commit": _commit(),
        "packages": {name: _version(name) for name in PACKAGES},
        "peers": {name: _version(name) for name in PEERS},
        "niceness": os.nice(0),
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    family = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    hypervisor = ", a virtual machine" if "hypervisor" in facts.get("flags", "") else ""
    return f"{facts.get('model name', platform.machine())} ({family}{hypervisor})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout, marked where files of it have changed since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


class Others:
    """How busy the machine was with anything but this benchmark and the processes it started.

    `share()` is in cores: 1.0 means that others kept one core busy from the start to now. It is
    None where the system does not say (no /proc/stat).
    """

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._busy = _busy_seconds()
        self._own = _own_seconds()

    def share(self) -> float | None:
        busy = _busy_seconds()
        if busy is None or self._busy is None:
            return None
        others = (busy - self._busy) - (_own_seconds() - self._own)
        return max(0.0, others / (time.monotonic() - self._wall))


def _busy_seconds() -> float | None:
    """Seconds that all cores have worked since the start, time stolen from them included."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    sys.exit("run.py is the command")
