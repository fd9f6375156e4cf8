"""`python -m fuzz --minutes N [TARGET ...]`: fuzz each target for N minutes, one after the other.

It needs atheris beside archdsl: `pip install atheris`. Inputs start from `fuzz/corpus` and the
samples in `tests/foreign.py`; what is found lies in `--findings`, and ends the target's run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.target import ROOT, TARGETS

CORPUS = Path(__file__).parent / "corpus"
_LIMITS = ("-timeout=30", "-report_slow_units=30", "-rss_limit_mb=3072", "-max_len=131072")


def main() -> int:
    """Fuzz what the command line names; 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="which; all by default")
    parser.add_argument("--minutes", type=float, default=20, help="for each target (default: 20)")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="a folder")
    options = parser.parse_args()
    options.findings.mkdir(parents=True, exist_ok=True)
    found = 0
    for name in options.targets or TARGETS:
        before = set(options.findings.iterdir())
        executions, seconds = _fuzz(name, options.minutes, options.findings.resolve())
        new = sorted(set(options.findings.iterdir()) - before)
        found += len(new)
        print(
            f"{name}: {executions:,} executions in {seconds:,} s, {len(new)} findings", flush=True
        )
        for path in new:
            print(f"  {path}: see it again with: python -m fuzz.target {name} {path}")
    return 1 if found else 0


def _fuzz(name: str, minutes: float, findings: Path) -> tuple[int, int]:
    """Executions and seconds of a target's run."""
    with tempfile.TemporaryDirectory() as folder:
        samples, grown = Path(folder) / "samples", Path(folder) / "grown"
        grown.mkdir()
        command = [sys.executable, "-m", "fuzz.target", name]
        subprocess.run([*command, "--samples", samples], check=True, cwd=ROOT)
        command += [f"-max_total_time={round(60 * minutes)}", *_LIMITS]
        command += [f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1"]
        words = CORPUS / f"{name}.dict"
        if words.is_file():
            command.append(f"-dict={words}")
        folders = [grown, samples, *(path for path in [CORPUS / name] if path.is_dir())]
        done = subprocess.run(
            [*command, *folders],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
    log = done.stderr.decode("utf-8", errors="replace")
    (findings.parent / f"{findings.name}-{name}.log").write_text(log, encoding="utf-8")
    counts = re.findall(r"^#([0-9]+)", log, re.M)
    total = re.search(r"Done ([0-9]+) runs in ([0-9]+) second", log)
    if total is not None:
        return int(total[1]), int(total[2])
    return int(counts[-1]) if counts else 0, 0


if __name__ == "__main__":
    sys.exit(main())
