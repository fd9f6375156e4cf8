"""How many members of a search space are costed in a second, in each form that they may have.

    python benchmarks/search/throughput.py [--space mnasnet_space] [--rounds 7] [--json OUT]

Everything takes turns in one process on one thread: whole texts, lists of block strings, index
vectors without a device, with one and with ten, and the same candidates built by timm and counted
by ptflops (which are left out where they are not installed). Every candidate is one that its round
has not seen, from a space whose blocks have been seen. Figures are processor time, which other
processes disturb least; ratios are taken round by round. `archdsl cost --jsonl` is a process of its
own, over two lengths of input, so that its start and its memory can be told apart.

The exit status is 1 where two forms of a candidate do not cost the same, or where timm's has
other parameters.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from estimates import DEVICES
from machine import Others, describe
from measure import run_process
from peers import by_ptflops, load

FIGURES = ("params", "macs", "weight_bytes", "activation_bytes", "peak_activation_bytes")
COUNTS = {"texts": 300, "lists": 2_000, "vectors": 10_000, "peers": 2}
"""Candidates of each form in a round."""
LINES = (300, 2_000)
"""Lines of the two runs of `cost --jsonl`."""
TARGETS = {"texts": 2_000, "lists": 20_000, "vectors": 100_000}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of processor time, and what a call gives."""
    start = time.process_time()
    found = call()
    return time.process_time() - start, found


class Forms:
    """Members of a space in each of their forms."""

    def __init__(self, name: str) -> None:
        import archdsl
        from archdsl.search.tables import Tables

        self.load_seconds, self.space = timed(lambda: archdsl.load_space(name))
        self.table_seconds, self.tables = timed(lambda: Tables(self.space))
        self.devices = [archdsl.load_device(device) for device in DEVICES]
        self._rng = random.Random(7)
        self._coster: Any = None

    def vectors(self, count: int) -> list[tuple[int, ...]]:
        return [self.space.sample(self._rng) for _ in range(count)]

    def text(self, vector: Sequence[int]) -> str:
        return str(self.space.text_of(vector))

    def blocks(self, vector: Sequence[int]) -> list[str]:
        """The blocks of the stages."""
        from archdsl.lang.printer import print_block

        spec = self.space.spec_of(vector)
        return [print_block(block) for stage in spec.stages for block in stage.blocks]

    @property
    def coster(self) -> Any:
        """Costs lists under the space's statements, stem and head."""
        import archdsl

        if self._coster is None:
            self._coster = archdsl.Coster(self.space.arch_of(self.space.member(0)))
        return self._coster


def figures(cost: Any) -> list[int]:
    return [int(getattr(cost, name)) for name in FIGURES]


def of_text(text: str) -> list[int]:
    import archdsl

    return figures(archdsl.parse(text).cost())


def timm_builder(text: str) -> Callable[[], Any]:
    """Builds timm's network of a candidate from its block strings, as a search with timm does."""
    import archdsl
    from archdsl import dialects

    keywords = json.loads(dialects.write(archdsl.parse(text), "timm").text)
    load("timm")
    from timm.layers import get_act_layer
    from timm.models._efficientnet_blocks import SqueezeExcite
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.efficientnet import EfficientNet
    from torch import nn

    squeeze = dict(keywords.get("se_layer", {}))
    squeeze["force_act_layer"] = get_act_layer(squeeze.pop("force_act_layer", "relu"))
    squeeze["rd_round_fn"] = {"round": None}.get(squeeze.get("rd_round_fn", ""), round_channels)
    norm = partial(nn.BatchNorm2d, eps=keywords["bn_eps"], momentum=keywords["bn_momentum"])

    def build() -> Any:
        return EfficientNet(
            block_args=decode_arch_def(keywords["arch_def"]),
            num_features=keywords["num_features"],
            stem_size=keywords["stem_size"],
            fix_stem=keywords["fix_stem"],
            pad_type=keywords["pad_type"],
            round_chs_fn=round_channels,
            norm_layer=norm,
            act_layer=get_act_layer(keywords["act_layer"]),
            se_layer=partial(SqueezeExcite, **squeeze),
        ).eval()

    return build


class Measurement:
    """Rounds in turns: candidates a second of processor time, form by form."""

    def __init__(self, forms: Forms) -> None:
        self.forms = forms
        self.rates: dict[str, list[float]] = {}
        self.wrong: list[str] = []
        self.missing = ""
        try:
            for name in ("timm", "torch", "ptflops"):
                load(name)
            load("torch").set_num_threads(1)
        except ImportError as error:
            self.missing = str(error)

    def timed(self, name: str, call: Callable[[], Any], record: bool) -> Any:
        seconds, found = timed(call)
        if record:
            self.rates.setdefault(name, []).append(len(found) / seconds)
        return found

    def round(self, record: bool) -> None:
        forms, tables = self.forms, self.forms.tables
        vectors = forms.vectors(COUNTS["vectors"])
        lists = [forms.blocks(vector) for vector in vectors[: COUNTS["lists"]]]
        texts = [forms.text(vector) for vector in vectors[: COUNTS["texts"]]]
        coster = forms.coster
        by_text = self.timed("texts", lambda: [of_text(text) for text in texts], record)
        by_list = self.timed("lists", lambda: [coster(blocks) for blocks in lists], record)
        for count in (0, 1, 10):
            devices = forms.devices[:count]
            name = f"vectors, {count} devices" if count != 1 else "vectors, 1 device"

            call = partial(tables.cost, vectors, devices=devices)
            self.compare(name, self.timed(name, call, record), by_list)
        for number, found in enumerate(by_text):
            if found != figures(by_list[number]):
                self.wrong.append(f"{texts[number]}: its list costs otherwise than its text")
        if not self.missing:
            self.peers(texts[: COUNTS["peers"]], by_text, record)

    def compare(self, name: str, batch: Any, costs: Sequence[Any]) -> None:
        columns = [getattr(batch, figure)[: len(costs)].tolist() for figure in FIGURES]
        for number, cost in enumerate(costs):
            if [column[number] for column in columns] != figures(cost):
                self.wrong.append(f"{name}: row {number} costs otherwise than its list")

    def peers(self, texts: Sequence[str], costs: Sequence[Any], record: bool) -> None:
        size = self.forms.space.arch_of(self.forms.space.member(0)).input[0]
        builders = [timm_builder(text) for text in texts]
        nets = self.timed("timm, built", lambda: [build() for build in builders], record)
        name = "timm + ptflops"
        counted = self.timed(
            name, lambda: [by_ptflops(build(), size, "pytorch") for build in builders], record
        )
        for number, (net, found) in enumerate(zip(nets, counted, strict=True)):
            params = sum(parameter.numel() for parameter in net.parameters())
            if not params == found.params == costs[number][0]:
                self.wrong.append(f"{texts[number]}: timm's network has {params} parameters")


def lines(forms: Forms) -> dict[str, Any]:
    """`archdsl cost --jsonl` as a process: lines a second behind its start, and peak memory."""
    program = "import sys; from archdsl.cli import main; sys.exit(main())"
    cpu, peak = [], []
    with tempfile.TemporaryDirectory() as folder:
        for count in LINES:
            path = Path(folder) / "lines.jsonl"
            with path.open("w") as file:
                for vector in forms.vectors(count):
                    file.write(json.dumps({"text": forms.text(vector)}) + "\n")
            done = run_process(
                [sys.executable, "-c", program, "cost", "--jsonl", str(path)], folder
            )
            if done.status or done.stdout.count("\n") != count:
                raise SystemExit(f"archdsl cost --jsonl: {done.stderr}")
            cpu.append(done.cpu_seconds)
            peak.append(done.peak_mib)
    rate = (LINES[1] - LINES[0]) / (cpu[1] - cpu[0])
    return {"rate": rate, "cpu_seconds": cpu, "peak_mib": peak}


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    rates = result["rates"]
    peer = rates.get("timm + ptflops")
    rows = []
    for name, found in rates.items():
        digits = ",.3g" if name.startswith("timm") else ",.0f"
        median, least, most = (f"{f(found):{digits}}" for f in (statistics.median, min, max))
        ratio = ""
        if peer:
            times = statistics.median(a / b for a, b in zip(found, peer, strict=True))
            ratio = f"{times:,.0f}" if times >= 10 else f"{times:.1f}"
        target = TARGETS.get(name.split(",")[0])
        wanted = f"{target:,}" if target else ""
        rows.append(f"| {name} | {median} | {least}..{most} | {ratio} | {wanted} |")
    jsonl = result["jsonl"]
    rows.append(f"| `cost --jsonl`, lines | {jsonl['rate']:,.0f} | | | |")
    head = "| form | a second, median | smallest..largest | times timm + ptflops | target |"
    rule = "| --- | ---: | --- | ---: | ---: |"
    memory = " and ".join(f"{mib:.0f} MiB" for mib in jsonl["peak_mib"])
    others = result["others"]
    below = (
        f"`cost --jsonl` took at most {memory} of memory for {LINES[0]:,} and {LINES[1]:,} lines. "
        f"Reading the space took {result['load_seconds']:.2f} s of processor time, its tables "
        f"{result['table_seconds']:.2f} s. Others kept "
        f"{'?' if others is None else f'{others:.1f}'} cores busy."
    )
    return "\n".join([head, rule, *rows, "", below])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="mnasnet_space")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    others = Others()
    forms = Forms(asked.space)
    streamed = lines(forms)
    measurement = Measurement(forms)
    if measurement.missing:
        print(f"no peers: {measurement.missing}", file=sys.stderr)
    for number in range(asked.rounds + 1):
        # The first is the warm-up.
        measurement.round(record=number > 0)
        if not number:
            gc.collect()
            gc.freeze()
    result = {
        "machine": describe(),
        "space": asked.space,
        "rounds": asked.rounds,
        "rates": measurement.rates,
        "jsonl": streamed,
        "load_seconds": forms.load_seconds,
        "table_seconds": forms.table_seconds,
        "others": others.share(),
        "wrong": measurement.wrong,
    }
    print(report(result))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=1) + "\n")
    for wrong in measurement.wrong[:10]:
        print(wrong, file=sys.stderr)
    return 1 if measurement.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
