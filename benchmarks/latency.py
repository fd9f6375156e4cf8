"""Files of one network in one runtime: their times, taken in turns on one core, and their outputs.

    latency.py onnx|tflite PLAN

PLAN is a JSON file: `files` (name, `path`, the `reference` among them whose outputs its own are
compared with, a `group`, of which only the fastest file is timed to the end, and `timed`, false
where outputs are enough), `images` (an `.npz` file, whose `shown` is used) and `rounds`. Prints
JSON.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import numpy as np

PASSES = 2
TRIALS = 7
"""Rounds after which the slower ones of a group drop out."""


class Model(Protocol):
    def feed(self, image: Any) -> None:
        """Takes an image (height, width, channels) for the runs to come."""

    def run(self) -> None:
        """One inference."""

    def output(self) -> Any:
        """What the last run gave, in float32."""

    def facts(self) -> dict[str, Any]:
        """What the file is made of, and what the runtime makes of it."""


class OnnxModel:
    def __init__(self, path: str) -> None:
        import onnxruntime

        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0]
        self._fed: dict[str, Any] = {}
        self._result: Any = None

    def feed(self, image: Any) -> None:
        self._fed = {self._input.name: np.ascontiguousarray(image.transpose(2, 0, 1)[None])}

    def run(self) -> None:
        self._result = self._session.run(None, self._fed)[0]

    def output(self) -> Any:
        return self._result.reshape(-1).copy()

    def facts(self) -> dict[str, Any]:
        try:
            import onnx
        except ImportError:
            return {}
        return {"nodes": len(onnx.load(self._path, load_external_data=False).graph.node)}


class TfliteModel:
    def __init__(self, path: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(path, num_threads=1)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    def feed(self, image: Any) -> None:
        value = image if self._input["shape"][-1] == image.shape[-1] else image.transpose(2, 0, 1)
        if self._input["dtype"] != np.float32:
            scale, zero = self._input["quantization"]
            limits = np.iinfo(self._input["dtype"])
            value = np.clip(np.rint(value / scale) + zero, limits.min, limits.max)
        self._interpreter.set_tensor(self._input["index"], value[None].astype(self._input["dtype"]))

    def run(self) -> None:
        self._interpreter.invoke()

    def output(self) -> Any:
        value = self._interpreter.get_tensor(self._output["index"]).reshape(-1)
        if self._output["dtype"] != np.float32:
            scale, zero = self._output["quantization"]
            value = (value.astype(np.float32) - zero) * np.float32(scale)
        return value.copy()

    def facts(self) -> dict[str, Any]:
        """A delegate is a node beside those that it stands for."""
        details = self._interpreter._get_ops_details()
        counts = Counter(operator["op_name"] for operator in details)
        delegates = counts.pop("DELEGATE", 0)
        # Backwards from the outputs, a delegate standing before what it has taken over.
        makers: dict[int, Any] = {}
        for operator in details:
            for index in operator["outputs"]:
                if index not in makers or operator["op_name"] == "DELEGATE":
                    makers[index] = operator
        left: dict[int, str] = {}
        todo, seen = [self._output["index"]], set()
        while todo:
            index = todo.pop()
            if index in seen or index not in makers:
                continue
            seen.add(index)
            operator = makers[index]
            if operator["op_name"] != "DELEGATE":
                left[operator["index"]] = operator["op_name"]
            todo += [int(i) for i in operator["inputs"]]
        return {
            "nodes": sum(counts.values()),
            "partitions": delegates,
            "left": dict(Counter(left.values())),
        }


MODELS = {"onnx": OnnxModel, "tflite": TfliteModel}


def pinned() -> bool:
    """To the last core that is ours, where a system can."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return True


def one_round(models: dict[str, Model], names: list[str]) -> dict[str, tuple[float, float]]:
    """Wall and thread seconds of one run of each; a run before it, not timed, warms the caches."""
    found = {}
    for name in names:
        model = models[name]
        model.run()
        start, used = time.perf_counter(), time.thread_time()
        model.run()
        seconds = time.perf_counter() - start
        found[name] = seconds, time.thread_time() - used
    return found


def fastest(files: list[dict[str, Any]], trials: dict[str, list[float]]) -> list[dict[str, Any]]:
    best: dict[str, str] = {}
    for file in files:
        group, name = file.get("group"), file["name"]
        if group and (
            group not in best
            or statistics.median(trials[name]) < statistics.median(trials[best[group]])
        ):
            best[group] = name
    return [f for f in files if not f.get("group") or best[f["group"]] == f["name"]]


def compared(output: Any, reference: Any) -> dict[str, Any]:
    """Outputs of all images against a reference's."""
    error = output.astype(np.float64) - reference
    power, noise = float((reference.astype(np.float64) ** 2).sum()), float((error**2).sum())
    return {
        "relative": float(np.abs(error).max() / np.abs(reference).max()),
        "sqnr": math.inf if not noise else 10 * math.log10(power / noise),
        "top1": float((output.argmax(1) == reference.argmax(1)).mean()),
    }


def main() -> None:
    runtime, path = sys.argv[1:]
    plan = json.loads(Path(path).read_text())
    one_core = pinned()
    with np.load(plan["images"]) as file:
        images = file["shown"]
    files: list[dict[str, Any]] = plan["files"]
    found: dict[str, dict[str, Any]] = {}
    outputs: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for number in range(PASSES):
        # Where the weights come to lie in memory decides about some hundredths: the second pass
        # makes the sessions in the opposite order, and takes the times in it.
        models: dict[str, Model] = {}
        for file in list(files if number % 2 == 0 else files[::-1]):
            try:
                models[file["name"]] = MODELS[runtime](file["path"])
            except Exception as error:  # a file that the runtime refuses
                failed[file["name"]] = (str(error).splitlines() or [type(error).__name__])[0]
        files = [file for file in files if file["name"] in models]
        if not number:
            for file in files:
                model = models[file["name"]]
                shown = []
                for image in images:
                    model.feed(image)
                    model.run()
                    shown.append(model.output())
                outputs[file["name"]] = np.stack(shown)
                found[file["name"]] = {
                    "bytes": Path(file["path"]).stat().st_size,
                    "seconds": [],
                    "cpu_seconds": [],
                    **model.facts(),
                }
        for model in models.values():
            model.feed(images[0])
        names = [file["name"] for file in files]
        if not number:
            trials: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(TRIALS):
                for name, (_seconds, cpu) in one_round(models, names).items():
                    trials[name].append(cpu)
            files = [file for file in fastest(files, trials) if file["timed"]]
            for name in names:
                found[name]["trial"] = statistics.median(trials[name])
            names = [file["name"] for file in files]
        for turn in range(plan["rounds"] // PASSES):
            start = turn % len(names)
            order = [*names[start:], *names[:start]]
            for name, (seconds, cpu) in one_round(
                models, order if number % 2 == 0 else order[::-1]
            ).items():
                found[name]["seconds"].append(seconds)
                found[name]["cpu_seconds"].append(cpu)
    for file in plan["files"]:
        reference = file.get("reference")
        if file["name"] in outputs and reference in outputs:
            found[file["name"]]["compared"] = compared(outputs[file["name"]], outputs[reference])
            found[file["name"]]["reference"] = reference
    print(json.dumps({"files": found, "failed": failed, "one_core": one_core}))


if __name__ == "__main__":
    main()
