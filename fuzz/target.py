"""One target: what libFuzzer runs, and the way to see a finding again.

`python -m fuzz.target TARGET FILE` runs a file once; `--samples FOLDER` writes what to start from.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Before an installed archdsl: atheris instruments what it finds by the path.
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

TARGETS = (
    *("arch", "json", "timm", "mnasnet", "ofa", "profile", "results", "accuracies"),
    *("safetensors", "pytorch", "keras", "npz", "photo"),
)


def main() -> None:
    """Fuzz one target with libFuzzer's options, or run a file, or write the samples."""
    name, words = sys.argv[1], sys.argv[2:]
    if name not in TARGETS:
        sys.exit(f"no such target: {name}; there are {', '.join(TARGETS)}")
    fuzzing = words[:1] != ["--samples"] and not (len(words) == 1 and Path(words[0]).is_file())
    if fuzzing:
        import atheris

        with atheris.instrument_imports(include=["archdsl"]):
            import foreign
    else:
        import foreign
    foreign.forking()
    reader = foreign.READERS[name]
    if words[:1] == ["--samples"]:
        folder = Path(words[1])
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, data in reader.samples().items():
            (folder / f"sample{suffix}").write_bytes(data)
        return
    suffix = next(iter(reader.samples()))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    path = folder / f"a{suffix}"

    def once(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(foreign.ArchError):
            reader.read(path)

    if not fuzzing:
        once(Path(words[0]).read_bytes())
        return
    atheris.Setup([sys.argv[0], *words], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
