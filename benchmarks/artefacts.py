"""Artefacts: how long they take to emit, and how fast they run, against other exporters' files.

Runs in the process of `run.py`, which must stay small (see `measure.run_process`): nothing is
imported here but the standard library. Peers run in environments of their own, and both sides'
files in the runtimes of archdsl's environment.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import HERE, Process, run_process, summary, worker

EMITTED = "mnv4_conv_m"


@dataclass(frozen=True)
class Network:
    """A published network under the names that the peers have for it."""

    timm: str
    keras: str | None = None
    swish: bool = False
    """Whether it has hard-swish, for which onnxruntime's quantiser has no integers."""

    @property
    def request(self) -> dict[str, Any]:
        # What the published text says: TensorFlow's padding and the norms' epsilon.
        return {"timm": self.timm, "options": {"pad_type": "same", "bn_eps": 1e-3}}


NETWORKS = {
    "mnv3_large": Network("tf_mobilenetv3_large_100", "MobileNetV3Large", swish=True),
    "mnasnet_b1": Network("mnasnet_100"),
    "mnv4_conv_m": Network("mobilenetv4_conv_medium"),
    "mnv4_hybrid_m": Network("mobilenetv4_hybrid_medium"),
}

EXPORTERS = {
    "legacy": "torch.onnx (legacy)",
    "dynamo": "torch.onnx (dynamo)",
    "litert": "litert-torch",
}
SUFFIXES = {"legacy": ".onnx", "dynamo": ".onnx", "litert": ".tflite"}
ORT_RECIPES = {
    "u8s8": "onnxruntime static, QDQ, u8 s8",
    "s8s8": "onnxruntime static, QDQ, s8 s8",
    "u8s8_operators": "onnxruntime static, QOperator, u8 s8",
}
SWISH_RECIPES = {"u8s8_swish": "onnxruntime static, QDQ, u8 s8, hard-swish taken apart by hand"}
LITERT_RECIPES = {
    "static": "litert-quantizer static",
    "static_partly": "litert-quantizer static, hard-swish and attention float",
}
DYNAMIC_RECIPES = {
    "dynamic": "litert-quantizer dynamic",
    "dynamic_partly": "litert-quantizer dynamic, depthwise float",
}
KERAS = {"float": "keras + tf.lite float32", "int8": "keras + tf.lite int8"}

_EMITTING = "archdsl.cli.program, archdsl.backend, archdsl.weights.initial, numpy.random"
IMPORTS = {
    "tflite": f"{_EMITTING}, archdsl.backends.to_tflite, flatbuffers",
    "onnx": f"{_EMITTING}, archdsl.backends.to_onnx",
}
"""What archdsl's own processes import."""

STATIC, DYNAMIC = "static int8", "dynamic int8"
"""Groups of which the fastest file counts."""

LITERT_PACKAGES = (
    "torch",
    "timm",
    "litert-torch",
    "litert-quantizer",
    "onnx",
    "onnxscript",
    "onnxruntime",
)
TENSORFLOW_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras")
OWN_PACKAGES = ("onnxruntime", "ai-edge-litert", "flatbuffers", "numpy")
INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
)
"""What decides about the speed of int8, under the names of /proc/cpuinfo."""
_VERSIONS = """import importlib.metadata as m, json, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    run = Run(options)
    emission = run.emission()
    latency = run.latency()
    return {
        "wrong": run.wrong,
        "missing": run.missing,
        "versions": {"own": _versions(sys.executable, OWN_PACKAGES), **run.versions},
        "instructions": _instructions(),
        "emission": emission,
        "latency": latency,
    }


def _versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    done = subprocess.run(
        [python, "-c", _VERSIONS, *packages], stdout=subprocess.PIPE, text=True, check=True
    )
    return {name: version for name, version in json.loads(done.stdout).items() if version}


def _instructions() -> list[str] | None:
    """Those of the table that the processor has; None where the system does not say."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return None
    return [name for name in INSTRUCTIONS if name in words]


def last_error(process: Process) -> str:
    """Why a process failed: the last line on standard error that says so."""
    lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"exit status {process.status}"])[-1]


class Run:
    """One run: where its files lie, who its peers are, and what went wrong."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.quick: bool = options.quick
        self.cache: Path = options.cache.resolve()
        self.wrong: list[str] = []
        self.missing: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.litert = self._peer("litert", options.litert_python, LITERT_PACKAGES)
        self.tensorflow = self._peer("tensorflow", options.tensorflow_python, TENSORFLOW_PACKAGES)

    def _peer(self, name: str, python: str | None, packages: Sequence[str]) -> str | None:
        """The interpreter of an environment of peers, if it is there and starts."""
        if not python:
            self.missing[f"peers of {name}"] = f"no --{name}-python given; README.md says how"
            return None
        try:
            self.versions[name] = _versions(python, packages)
        except (OSError, subprocess.CalledProcessError) as error:
            self.missing[f"peers of {name}"] = f"--{name}-python does not start: {error}"
            return None
        return python

    # ---------------------------------------------------------------------------------- emission

    def emission(self) -> dict[str, Any]:
        """Whole processes in turns. The peers take many seconds each: fewer rounds."""
        rounds, peer_rounds = (2, 1) if self.quick else (7, 3)
        archdsl = shutil.which("archdsl", path=str(Path(sys.executable).parent)) or "archdsl"
        taken: dict[str, list[Process]] = {}
        inside: dict[str, list[dict[str, Any]]] = {}
        digests: dict[str, set[str]] = {}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)

            def run(label: str, command: Sequence[str], out: Path | None) -> None:
                if label in self.missing:
                    return
                try:
                    process = run_process(command, folder)
                    reason = last_error(process) if process.status else None
                except OSError as error:
                    reason = str(error)
                if reason is not None:
                    self.missing[label] = reason
                    taken.pop(label, None)
                    return
                taken.setdefault(label, []).append(process)
                if out:
                    digests.setdefault(label, set()).add(_digest(out))

            for number in range(rounds + 1):
                for to in ("tflite", "onnx"):
                    run(f"floor {to}", [sys.executable, "-c", f"import {IMPORTS[to]}"], None)
                    out = folder / f"own.{to}"
                    command = [archdsl, "compile", EMITTED, "--to", to, "-o", str(out)]
                    run(f"archdsl compile --to {to}", command, out)
                if not self.litert or not 1 <= number <= peer_rounds:
                    continue
                for kind, label in EXPORTERS.items():
                    script = [self.litert, str(HERE / "peers_torch.py")]
                    run(f"floor {kind}", [*script, "floor", kind], None)
                    out = folder / f"{kind}{SUFFIXES[kind]}"
                    request = self._emitted_request(folder, out)
                    run(label, [*script, "emit", kind, str(request)], None)
                    if label in taken:
                        inside.setdefault(label, []).append(_read(Path(f"{out}.json")))
                        out.unlink()
        for label, found in digests.items():
            if len(found) > 1:
                self.wrong.append(f"{label}: other bytes in another run")
        proper = {}
        for to in ("tflite", "onnx"):
            if f"archdsl compile --to {to}" in taken:
                found = worker("artefacts_own.py", "emit", EMITTED, to, "5" if self.quick else "20")
                proper[to] = {
                    "seconds": summary(found["seconds"]),
                    "cpu_seconds": summary(found["cpu_seconds"]),
                    "first": found["first"],
                    "bytes": found["bytes"],
                }
        return {
            "network": EMITTED,
            "processes": {
                label: _processes(
                    # archdsl's first round, with nothing in the disk's cache, is the warm-up.
                    processes[1:] if "archdsl" in label or len(processes) > rounds else processes
                )
                for label, processes in taken.items()
            },
            "export_seconds": {
                label: summary([facts["export_seconds"] for facts in found])
                for label, found in inside.items()
            },
            "proper": proper,
        }

    def _emitted_request(self, folder: Path, out: Path) -> Path:
        path = folder / "request.json"
        # As a user does it: timm's own padding and initial weights.
        request = {"timm": NETWORKS[EMITTED].timm, "options": {}, "input": [256, 256, 3]}
        path.write_text(json.dumps({**request, "out": str(out)}))
        return path

    # ----------------------------------------------------------------------------------- latency

    def latency(self) -> dict[str, Any]:
        names = ["mnv3_large"] if self.quick else list(NETWORKS)
        return {name: self._network(name, NETWORKS[name]) for name in names}

    def _network(self, name: str, network: Network) -> dict[str, Any]:
        folder = self.cache / name
        folder.mkdir(parents=True, exist_ok=True)
        own = worker("artefacts_own.py", "prepare", name, str(folder))
        for label, reason in own["missing"].items():
            self.missing[f"{name}: {label}"] = reason
        files = [
            {
                "name": label,
                "path": str(folder / file),
                "runtime": label.split()[1],
                "reference": f"archdsl {label.split()[1]} float32",
                # Other ranges make the same file with other numbers.
                "timed": not label.endswith("mse"),
            }
            for label, file in own["files"].items()
        ]
        # How much of a difference means nothing: a file against itself.
        files += [
            {**file, "name": f"{file['name']} again"} for file in files if "float32" in file["name"]
        ]
        peers = Peers(self, folder, name, network, own)
        files += peers.floats() + peers.quantized() + peers.keras()
        found: dict[str, Any] = {"input": own["input"]}
        for runtime in ("onnx", "tflite"):
            plan = {
                "images": str(folder / "images.npz"),
                "rounds": 10 if self.quick else 50,
                "files": [file for file in files if file["runtime"] == runtime],
            }
            if not plan["files"]:
                continue
            path = folder / f"plan-{runtime}.json"
            path.write_text(json.dumps(plan))
            result = worker("latency.py", runtime, str(path))
            for label, reason in result["failed"].items():
                self.missing[f"{name}: {label}"] = reason
            asked = {file["name"]: file for file in plan["files"]}
            for label, facts in result["files"].items():
                facts["group"] = asked[label].get("group")
                facts["timed"] = asked[label]["timed"]
                if facts["seconds"]:
                    facts["seconds"] = summary(facts["seconds"])
                    facts["cpu_seconds"] = summary(facts["cpu_seconds"])
            found[runtime] = result["files"]
        self._judge(name, found)
        return found

    def _judge(self, name: str, found: dict[str, Any]) -> None:
        """Floats must agree, and our integers must not be worse than what others make of them."""
        for runtime in ("onnx", "tflite"):
            files = found.get(runtime, {})
            peers = []
            for label, facts in files.items():
                compared = facts.get("compared")
                if compared is None:
                    continue
                if (not facts["group"] and "float32" in label) or label in EXPORTERS.values():
                    if not compared["relative"] <= 1e-4:
                        self.wrong.append(
                            f"{name}: {label} differs from {facts['reference']} by "
                            f"{compared['relative']:.1e} of the largest output"
                        )
                elif facts["group"] == STATIC:
                    peers.append(compared["sqnr"])
            own = files.get(f"archdsl {runtime} int8", {}).get("compared")
            if own and peers and not own["sqnr"] >= max(peers) - 6:
                self.wrong.append(
                    f"{name}: archdsl {runtime} int8 has {own['sqnr']:.1f} dB where a peer has "
                    f"{max(peers):.1f}"
                )


class Peers:
    """The peers' files of one network; what was made before of the same things is kept."""

    def __init__(
        self, run: Run, folder: Path, name: str, network: Network, own: dict[str, Any]
    ) -> None:
        self._run, self._folder, self._name, self._network = run, folder, name, network
        self._digest = own["digest"]
        self._request = {
            **network.request,
            "application": network.keras,
            "input": own["input"],
            "weights": str(folder / "weights.npz"),
            "images": str(folder / "images.npz"),
        }
        self._made: dict[str, Path] = {}
        """The float files by exporter."""

    def floats(self) -> list[dict[str, Any]]:
        """torch's exporters' files, with our weights."""
        files: list[dict[str, Any]] = []
        if self._run.litert is None:
            return files
        for kind, label in EXPORTERS.items():
            command = [self._run.litert, "peers_torch.py", "convert", kind]
            path = self._make(label, command, kind + SUFFIXES[kind], self._request)
            if path is not None:
                self._made[kind] = path
                runtime = SUFFIXES[kind][1:]
                files.append(_file(label, path, runtime, f"archdsl {runtime} float32"))
        return files

    def quantized(self) -> list[dict[str, Any]]:
        """What the quantisers make of them."""
        files: list[dict[str, Any]] = []
        ort = {**ORT_RECIPES, **(SWISH_RECIPES if self._network.swish else {})}
        for source, group, recipes in (
            ("dynamo", STATIC, ort),
            ("litert", STATIC, LITERT_RECIPES),
            ("litert", DYNAMIC, DYNAMIC_RECIPES),
        ):
            if source not in self._made or self._run.litert is None:
                continue
            suffix, reference = SUFFIXES[source], EXPORTERS[source]
            for recipe, label in recipes.items():
                request = {"model": str(self._made[source]), "images": self._request["images"]}
                command = [self._run.litert, "peers_quantize.py", recipe]
                path = self._make(label, command, recipe + suffix, request)
                if path is not None:
                    files.append({**_file(label, path, suffix[1:], reference), "group": group})
        return files

    def keras(self) -> list[dict[str, Any]]:
        """TensorFlow's own conversion of Keras' network, with our weights."""
        files: list[dict[str, Any]] = []
        if self._network.keras is None or self._run.tensorflow is None:
            return files
        for dtype, label in KERAS.items():
            command = [self._run.tensorflow, "peers_keras.py", dtype]
            path = self._make(label, command, f"keras-{dtype}.tflite", self._request)
            reference = KERAS["float"] if dtype == "int8" else "archdsl tflite float32"
            if path is not None:
                files.append(_file(label, path, "tflite", reference))
        return files

    def _make(
        self, label: str, command: list[str], file: str, request: dict[str, Any]
    ) -> Path | None:
        """A peer's file. It is made again when its script, the weights or a version changed."""
        python, script, *arguments = command
        versions = sorted(self._run.versions.items())
        described = json.dumps([arguments, request, self._digest, versions], sort_keys=True)
        key = hashlib.sha256((HERE / script).read_bytes() + described.encode()).hexdigest()[:16]
        stem, suffix = file.rsplit(".", 1)
        path = self._folder / f"{stem}-{key}.{suffix}"
        if path.exists():
            return path
        for stale in self._folder.glob(f"{stem}-{'[0-9a-f]' * 16}.{suffix}"):
            stale.unlink()
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / file
            asked = Path(name) / "request.json"
            asked.write_text(json.dumps({**request, "out": str(out)}))
            process = run_process([python, str(HERE / script), *arguments, str(asked)], name)
            if process.status or not out.exists():
                self._run.missing[f"{self._name}: {label}"] = last_error(process)
                return None
            shutil.copy(out, f"{path}.part")
            Path(f"{path}.part").replace(path)
        return path


def _file(label: str, path: Path, runtime: str, reference: str) -> dict[str, Any]:
    return {
        "name": label,
        "path": str(path),
        "runtime": runtime,
        "reference": reference,
        "timed": True,
    }


def _processes(processes: Sequence[Process]) -> dict[str, Any]:
    return {
        "seconds": summary([p.seconds for p in processes]),
        "cpu_seconds": summary([p.cpu_seconds for p in processes]),
        "peak_mib": summary([p.peak_mib for p in processes]),
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
