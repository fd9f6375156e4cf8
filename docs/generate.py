"""Write what the documents take from the program: `python docs/generate.py`.

Two things are written anew. A part between `<!-- generated: NAME -->` and `<!-- end -->` is what
the function NAME below returns, which reads the code that the document describes. A fenced block
behind an example shows what the example gives:

    ```arch error=E0203     its diagnostics, in the next block (also `warning=`; codes by comma)
    ```arch format          its canonical form, in the next block
    ```block error=E0208    the same for a block string alone
    ```console              `$ command`, each with its output below it

tests/test_docs.py fails where a document is not what this program makes of it, and holds the
examples to the codes they state.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import adaptations
import claims
import peer_networks

import archdsl
from archdsl import limits
from archdsl.backend import available, backend
from archdsl.ir import ops
from archdsl.ir.lower import lower
from archdsl.ir.node import INPUT, Fragment
from archdsl.ir.ops import Op, Shape
from archdsl.lang.diagnostics import Diagnostic, in_order, render
from archdsl.lang.dialects.json import write_json
from archdsl.lang.fields import Flags, Width
from archdsl.lang.formatter import format_source
from archdsl.lang.printer import decimal
from archdsl.lang.source import SourceText
from archdsl.lang.spec import KINDS, Attributes, SqueezeExcite, vocabulary
from archdsl.lang.widths import scaled, squeezed
from archdsl.library import members, year_of
from archdsl.passes.fuse import Schedule, schedule
from archdsl.quantization.presets import PRESETS
from archdsl.roofline import profiles
from archdsl.roofline.model import Device
from archdsl.roofline.profile import Profile
from archdsl.rounding import make_divisible, same_padding
from archdsl.search.algorithms import ALGORITHMS, settings_of

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "docs/architectures.md",
    "docs/differences.md",
    "docs/language.md",
    "docs/cost.md",
    "docs/latency.md",
    "docs/claims.md",
    "docs/weights.md",
    "docs/backends.md",
    "docs/dialects.md",
    "docs/limits.md",
    "docs/spaces.md",
    "docs/search.md",
    "docs/algorithms.md",
    "docs/supernet.md",
    "docs/netadapt.md",
    "docs/testing.md",
)
"""docs/errors.md is written by tests/test_diagnostics.py."""

EXAMPLE = ROOT / "docs" / "pico.arch"

_PART = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)
_FENCE = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words behind it, its text and where the text stands."""

    language: str
    info: str
    text: str
    start: int

    @property
    def codes(self) -> list[str]:
        """The codes that the example says it gives."""
        return re.findall(r"[EW][0-9]{4}", self.info)


def fenced(text: str) -> list[Block]:
    """The fenced blocks of a document that name a language."""
    return [Block(m[1], m[2] or "", m[3], m.start(3)) for m in _FENCE.finditer(text)]


def generated(text: str) -> str:
    """A document with all that it takes from the program made anew."""
    text = _PART.sub(lambda m: f"{m[1]}{PARTS[m[2]]()}{m[4]}", text)
    pieces: list[str] = []
    done = 0
    blocks = fenced(text)
    for index, block in enumerate(blocks):
        if block.language == "console":
            shown, result = block, transcript(block.text)
        elif block.language in ("arch", "block") and block.info:
            shown, result = blocks[index + 1], outcome(block)
        else:
            continue
        pieces += [text[done : shown.start], result]
        done = shown.start + len(shown.text)
    return "".join([*pieces, text[done:]])


def outcome(example: Block) -> str:
    """What the block behind an example shows."""
    source = SourceText("net.arch" if example.language == "arch" else "<block>", example.text)
    if example.info == "format":
        return format_source(source)
    return "\n".join(render(diagnostic) for diagnostic in diagnostics(example))


def diagnostics(example: Block) -> list[Diagnostic]:
    """What the program finds in an example."""
    if example.language == "arch":
        return archdsl.check(SourceText("net.arch", example.text))
    try:
        archdsl.block(example.text.strip())
    except archdsl.ArchError as error:
        return in_order(error.diagnostics)
    return []


def transcript(text: str) -> str:
    """A shell session with the output of its `$ archdsl` commands made anew."""
    commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    lines = []
    with workplace() as folder:
        for command in commands:
            lines += [f"$ {command}\n", run(command, folder)]
    return "".join(lines)


class workplace(tempfile.TemporaryDirectory[str]):
    """An empty folder that has the repository's `docs` and `architectures` in it."""

    def __enter__(self) -> str:
        folder = super().__enter__()
        for name in ("docs", "architectures"):
            Path(folder, name).symlink_to(ROOT / name, target_is_directory=True)
        return folder


def run(command: str, folder: str) -> str:
    """What a command prints, on both streams."""
    program, *arguments = shlex.split(command)
    assert program == "archdsl", command
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    return done.stdout


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "docs/arch.schema.json": archdsl.json_schema,
    "docs/device.schema.json": profiles.json_schema,
}
"""The published JSON Schemas, and what makes them."""


def json_schema(name: str) -> str:
    """A published JSON Schema."""
    return json.dumps(SCHEMAS[name](), indent=2) + "\n"


def main() -> None:
    """Rewrite the documents in place."""
    for name in DOCUMENTS:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = generated(old)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"wrote {name}", file=sys.stderr)
    for name in SCHEMAS:
        (ROOT / name).write_text(json_schema(name), encoding="utf-8")


# --------------------------------------------------------------------------------------- writing


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers: int = 0) -> str:
    """A table; the last `numbers` columns are set to the right."""
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in (head, rule, *rows))


def _listing(lines: Iterable[str], language: str = "text") -> str:
    return f"```{language}\n" + "".join(f"{line.rstrip()}\n" for line in lines) + "```\n"


def _code(words: Iterable[str], joiner: str = ", ") -> str:
    return joiner.join(f"`{word}`" for word in words)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


# ---------------------------------------------------------------------------------- language.md


def _schema(model: Any, *, by_alias: bool = False) -> dict[str, Any]:
    properties: dict[str, Any] = model.model_json_schema(by_alias=by_alias)["properties"]
    return properties


def _values(schema: dict[str, Any]) -> str:
    """The values that a JSON Schema allows, in a few words."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        marked = any("!" in option.get("pattern", "") for option in options)
        return _values(options[0]) + (", then `!` or `+`" if marked else "")
    if schema.get("type") == "array":
        return f"one digit, or two; each {_values(schema['items'])}"
    if "enum" in schema or "const" in schema:
        return _code(schema.get("enum") or [schema["const"]])
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    start = f"above {above:g}" if above is not None else f"{schema['minimum']:g}"
    end = _figure(schema["maximum"]) if below is None else f"below {below:g}"
    return f"{start} to {end}"


def _figure(limit: float) -> str:
    return f"{int(limit):,}"


def _default(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "1" if value == (1, 1) else _shape(value)
    return value if isinstance(value, str) else decimal(float(str(value)))


def _on(kinds: Sequence[str]) -> str:
    return "all" if len(kinds) == len(KINDS) else " ".join(kinds)


def kinds() -> str:
    """Every block kind with its fields."""
    rows = []
    for kind, cls in KINDS.items():
        words = vocabulary(kind)
        flags = [word for word, (name, _) in words.flags.items() if name != "act"]
        acts = ["*activation*"] if len(flags) < len(words.flags) else []
        takes = " ".join([f"`{word}`" for word in (*words.keys, *flags)] + acts)
        rows.append((f"`{kind}`", cls.title, takes))
    return _table(("kind", "what it is", "takes"), rows)


def fields() -> str:
    """Every field that has a value: one row for each meaning of a letter."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for kind, cls in KINDS.items():
        schema = _schema(cls)
        keys = vocabulary(kind).keys
        for name, field in cls.model_fields.items():
            letters = _code(letter for letter, target in keys.items() if target == name)
            if letters:
                row = (letters, str(field.description), _values(schema[name]), name)
                default = "**required**" if field.is_required() else _default(field.default)
                found.setdefault(row, {})[kind] = default
    rows = []
    for (letters, meaning, values, name), defaults in found.items():
        by_default: dict[str, list[str]] = {}
        for kind, default in defaults.items():
            by_default.setdefault(default, []).append(kind)
        shown = ", ".join(
            f"{default} ({' '.join(on)})" if len(by_default) > 1 else default
            for default, on in by_default.items()
            if default or len(by_default) == 1
        )
        rows.append((letters, _on(list(defaults)), meaning, values, shown, f"`{name}`"))
    return _table(("field", "on", "meaning", "values", "default", "in JSON"), rows)


def flags() -> str:
    """Every bare word."""
    found: dict[tuple[str, ...], list[str]] = {}
    for kind, cls in KINDS.items():
        for name, field in cls.model_fields.items():
            for words in (meta.words for meta in field.metadata if isinstance(meta, Flags)):
                meaning = str(field.description).removeprefix(f"{_code(words)}: ")
                found.setdefault((_code(words), meaning, name), []).append(kind)
    rows = [(words, _on(on), meaning, f"`{name}`") for (words, meaning, name), on in found.items()]
    return _table(("flag", "on", "meaning", "in JSON"), rows)


def attributes() -> str:
    """The statements that say what the blocks mean."""
    rows = []
    schema = _schema(Attributes)
    for name, field in Attributes.model_fields.items():
        meaning = str(field.description)
        model = type(field.default)
        if field.is_required():
            sides, channels = _figure(limits.MAX_SIDE), _figure(limits.MAX_CHANNELS)
            values = f"sides 1 to {sides}, channels 1 to {channels}"
            rows.append((f"`{name}`", meaning, values, "**required**"))
        elif not hasattr(model, "positional"):
            default = f"`{_default(field.default)}`"
            rows.append((f"`{name}`", meaning, _values(schema[name]), default))
        else:
            for key, part in model.model_fields.items():
                word = "" if key == model.positional else f" {part.alias or key}="
                default = "the divisor" if part.default is None else f"`{_default(part.default)}`"
                values = _values(_schema(model)[key])
                rows.append((f"`{name}{word}`", meaning, values, default))
                meaning = ""
    return _table(("statement", "meaning", "values", "default"), rows)


_LIMITS = {
    "text": "characters of a text",
    "tokens": "words and signs of a text, and the gaps between them",
    "word": "characters of a word or a block string",
    "statements": "variants of a file; `published` statements, those of variants counted",
    "blocks": "blocks of a network, repeats counted",
    "repeats": "`r`",
    "kernel": "a kernel's side",
    "channels": "channels as written",
    "side": "pixels of an image's side",
    "expansion": "`e`",
    "heads": "attention heads",
    "classes": "`classes`",
    "scale": "`width` and `depth`",
    "operators": "operators of a network",
    "params": "parameters of a network",
    "weight_bytes": "bytes of a network's kernels, as float32",
    "activation_bytes": "bytes of its activations that live at once, for one image, as float32",
    "macs": "multiply-accumulates of a network, for one image",
    "steps": "blocks of a search space, each counted for every shape that may come in",
}
"""Those that can be raised, by name."""

_FIXED = {
    "stride": "a stride",
    "nesting": "arrays and objects inside each other, in another library's notation",
    "errors": "errors that are reported of one text",
    "profiles_text": "characters of a file of device profiles",
    "profiles_depth": "tables and arrays inside each other in such a file, and parts of a key",
    "skipped": "words of a text that are skipped, for they fit nowhere",
    "header": "bytes of a file's table of tensors",
    "tensors": "tensors of a checkpoint, or groups of its HDF5 file",
    "pixels": "pixels of a photo",
    "image_bytes": "bytes of a set of images, as float32",
    "results": "bytes of a file of measured times, or of accuracies",
    "measured": "networks that were measured together",
    "choices": "decisions of a search space",
    "options": "ways to decide a block of a search space, and to decide its statements",
    "printed": "bytes that a program prints which gives a network's accuracy",
}
"""Those that bound how a file is read."""


def most() -> str:
    """The limits that can be raised."""
    return _limits(_LIMITS)


def most_of_files() -> str:
    """The others."""
    return _limits(_FIXED)


def _limits(table: dict[str, str]) -> str:
    stated = {name.removeprefix("MAX_").lower() for name in vars(limits) if name[:4] == "MAX_"}
    described = {*_LIMITS, *_FIXED}
    assert stated == described, stated ^ described
    assert set(_LIMITS) == set(limits.RAISABLE)
    rows = [
        (f"`{name}`", what, _figure(getattr(limits, f"MAX_{name.upper()}")))
        for name, what in table.items()
    ]
    return _table(("name", "what", "at most"), rows, 1)


def rounding() -> str:
    """Written widths and what becomes of them."""
    widths = (0.35, 0.75, 1.0, 1.4)
    rows = []
    for text in ("12", "20", "24", "30", "100", "1280", "1280!", "1280+"):
        width = Width(int(text.rstrip("!+")), text.lstrip("0123456789"))  # type: ignore[arg-type]
        cells = [scaled(width, Attributes(input=(1, 1, 1), width=by)) for by in widths]
        rows.append((f"`o{text}`", *cells))
    return _table(("written", *(f"width {by:g}" for by in widths)), rows, len(widths))


def squeeze() -> str:
    """Inner widths of squeeze-and-excitation by both published rules."""
    rules = [
        Attributes(input=(1, 1, 1), se=SqueezeExcite.model_validate(rule))
        for rule in ({"from": "input", "round": 1}, {"from": "expanded", "round": 8})
    ]
    rows = []
    for channels, ratio in ((8, 6), (24, 3), (40, 6), (112, 6)):
        expanded = make_divisible(channels * ratio)
        inner = [squeezed(0.25, channels, expanded, rule) for rule in rules]
        rows.append((f"`e{ratio}_se0.25` on {channels} channels, {expanded} expanded", *inner))
    head = ("block", "MnasNet: `from=input round=1`", "MobileNetV3: `from=expanded round=8`")
    return _table(head, rows, 2)


def padding() -> str:
    """Pixels of padding by both conventions."""
    rows = []
    for size, kernel, stride in ((224, 3, 1), (224, 3, 2), (225, 3, 2), (112, 5, 2), (7, 5, 2)):
        same, symmetric = same_padding(size, kernel, stride), (kernel // 2, kernel // 2)
        cells = [
            cell
            for pads in (same, symmetric)
            for cell in ("{} + {}".format(*pads), (size + sum(pads) - kernel) // stride + 1)
        ]
        rows.append((size, kernel, stride, *cells))
    head = ("pixels", "kernel", "stride", "`same`: before + after", "output")
    return _table((*head, "`symmetric`", "output"), rows, 7)


_SAMPLES: dict[str, tuple[str, Shape]] = {
    "ir": ("k5_s22_e6_o40_se0.25", (56, 56, 24)),
    "fused": ("fused_k3_e4", (28, 28, 48)),
    "uib": ("uib_s3_m5_e4_ls", (14, 14, 160)),
    "sep": ("sep_k3_s22_o128", (56, 56, 64)),
    "mqa": ("mqa_h4_d64_kv2_ls", (16, 16, 160)),
    "mha": ("mha_h4_d64", (8, 8, 256)),
    "conv": ("conv_k3_s22_o32", (224, 224, 3)),
    "dw": ("dw_k3_bias_nonorm_hswish", (28, 28, 64)),
    "pool": ("pool", (7, 7, 960)),
    "fc": ("fc", (1, 1, 1280)),
    "dropout": ("dropout_p0.2", (1, 1, 1280)),
    "skip": ("skip", (28, 28, 64)),
}
_NAMES = {"batch_norm": "norm", "layer_scale": "layer scale", "global_avg_pool": "mean"}


def layers() -> str:
    """What each kind is made of: a sample of each, lowered."""
    assert set(_SAMPLES) == set(KINDS)
    rule = SqueezeExcite.model_validate({"from": "expanded", "round": 8, "gate": "hsigmoid"})
    lines: list[str] = []
    for text, shape in _SAMPLES.values():
        fragment = lower(archdsl.block(text).block, shape, Attributes(input=(1, 1, 1), se=rule))
        lines += ["", f"{text} on {_shape(shape)}", *_operators(fragment)]
    return _listing(lines[1:])


def _operators(fragment: Fragment) -> Iterator[str]:
    plan = schedule(fragment.nodes, [fragment.result])
    for group in plan.groups:
        does = ", ".join(_does(node.op) for node in group.members)
        if len(group.inputs) > 1:
            does += " " + " and ".join(_tensor(name, plan) for name in group.anchor.inputs)
        weights = [
            f"{node.name}.*" if isinstance(node.op, ops.BatchNorm) else f"{node.name}.{name}"
            for node in group.members
            for name in (["*"] if isinstance(node.op, ops.BatchNorm) else node.op.parameters())
        ]
        names = " ".join(name.lstrip(".") for name in weights)
        yield f"  {does:<31} {_shape(group.output.shape):>10}   {names}"
    if not plan.groups:
        yield "  nothing at inference"


def _does(op: Op) -> str:
    if isinstance(op, ops.Conv2d):
        stride = "" if op.stride == (1, 1) else f" /{op.stride[0]}"
        kind = "depthwise" if op.depthwise else "conv"
        return f"{kind} {_shape(op.kernel)}{stride}{', bias' if op.bias else ''}"
    if isinstance(op, ops.Linear):
        return "linear, bias" if op.bias else "linear"
    return op.function if isinstance(op, ops.Activation) else _NAMES.get(op.name, op.name)


def _tensor(name: str, plan: Schedule) -> str:
    held = plan.tensors.get(name, name)
    return INPUT if held == INPUT else held.split(".")[0]


def weights() -> str:
    """The tensors of one block."""
    graph = archdsl.load(EXAMPLE).graph()
    state = graph.state().items()
    block = [(key, shape) for key, shape in state if key.startswith("stages.c3.0.")]
    return _listing(f"{key:<48} {_shape(shape) or 'one number'}" for key, shape in block)


def json_text() -> str:
    """A small file as JSON."""
    text = "arch net input 224x224x3 stem { conv_k3_s22_o32 } stage c1 { k3_e1_o16_noskip }"
    return f"```arch\n{text}\n```\n\n```json\n{write_json(archdsl.parse(text).spec)}```\n"


# ---------------------------------------------------------------------------------- backends.md

_EXTRAS = {"torch": "torch", "onnxruntime": "onnx", "ai-edge-litert": "tflite"}


def backends() -> str:
    """The backends: what they write, in which precisions, and what runs it."""
    rows = []
    for name in sorted(available()):
        made = backend(name)
        install = f'`pip install "archdsl[{_EXTRAS[made.runtime]}]"`'
        rows.append((f"`{name}`", f"`{made.suffix}`", _code(made.dtypes), made.runtime, install))
    return _table(("`--to`", "file", "`--dtype`", "runs in", "which is installed by"), rows)


# ----------------------------------------------------------------------------------- weights.md


def presets() -> str:
    """The preprocessing that can be named."""
    rows = [
        (
            f"`{name}`",
            preset.resample,
            f"{preset.crop:g}",
            *(", ".join(f"{number:.4g}" for number in three) for three in preset[2:]),
        )
        for name, preset in PRESETS.items()
    ]
    return _table(("name", "resized", "share kept", "mean", "std"), rows)


# -------------------------------------------------------------------------------------- cost.md


@dataclass(frozen=True)
class _Formulas:
    """An operator's formulas, and an example with the values of their letters."""

    op: Op
    inputs: tuple[Shape, ...]
    values: dict[str, int]
    macs: str
    params: str
    kernel: str

    def cells(self) -> Iterator[str]:
        op = self.op
        counts = (op.macs(*self.inputs), op.parameter_count, op.kernel_size)
        for formula, counted in zip((self.macs, self.params, self.kernel), counts, strict=True):
            assert eval(formula, {}, self.values) == counted, (op, formula, counted)
            yield f"`{formula}`"


_MAP = (28, 28, 64)
_CONV = ("H*W * O * I/g * k*k", "O * I/g * k*k")
_FORMULAS = {
    "convolution": [
        _Formulas(
            ops.Conv2d(64, 128, (3, 3), (2, 2), (0, 1, 0, 1), groups),
            ((56, 56, 64),),
            {"H": 28, "W": 28, "I": 64, "O": 128, "k": 3, "g": groups},
            *(*_CONV, _CONV[1]),
        )
        for groups in (1, 2)
    ],
    "convolution with bias": [
        _Formulas(
            ops.Conv2d(96, 24, (1, 1), bias=True),
            ((1, 1, 96),),
            {"H": 1, "W": 1, "I": 96, "O": 24, "k": 1, "g": 1},
            *(_CONV[0], f"{_CONV[1]} + O", _CONV[1]),
        )
    ],
    "depthwise convolution": [
        _Formulas(
            ops.Conv2d(64, 64, (5, 5), (1, 1), (2, 2, 2, 2), 64),
            (_MAP,),
            {"H": 28, "W": 28, "O": 64, "k": 5},
            *("H*W * O * k*k", "O * k*k", "O * k*k"),
        )
    ],
    "linear": [
        _Formulas(
            *(ops.Linear(1280, 1000), ((1280,),), {"I": 1280, "O": 1000}),
            *("O * I", "O * I + O", "O * I"),
        )
    ],
    "linear without bias": [
        _Formulas(
            *(ops.Linear(64, 10, bias=False), ((64,),), {"I": 64, "O": 10}),
            *("O * I", "O * I", "O * I"),
        )
    ],
    "product of N x D and D x M": [
        _Formulas(
            *(ops.MatMul(), ((1024, 64), (64, 49)), {"N": 1024, "D": 64, "M": 49}),
            *("N * D * M", "0", "0"),
        )
    ],
    "norm": [
        _Formulas(ops.BatchNorm(64, 1e-3, 0.01), (_MAP,), {"O": 64}, "0", "2 * O", "0"),
    ],
    "layer scale": [
        _Formulas(ops.LayerScale(64, 1e-5), (_MAP,), {"O": 64}, "0", "O", "0"),
    ],
    "activation, sum, product with a gate, mean, softmax, transpose, reshape, dropout": [
        _Formulas(op, inputs, {}, "0", "0", "0")
        for op, *inputs in (
            (ops.Activation("relu"), _MAP),
            (ops.Add(), _MAP, _MAP),
            (ops.Mul(), _MAP, (1, 1, 64)),
            (ops.GlobalAvgPool(), _MAP),
            (ops.Softmax(), _MAP),
            (ops.Transpose((1, 0, 2)), _MAP),
            (ops.Reshape((784, 64)), _MAP),
            (ops.Dropout(0.2), _MAP),
        )
    ],
}


def formulas() -> str:
    """What each operator counts; each formula is evaluated and held against the operator."""
    rows = []
    for what, examples in _FORMULAS.items():
        (cells,) = {tuple(example.cells()) for example in examples}
        rows.append((what, *cells))
    return _table(("operator", "MACs", "parameters", "kernel elements"), rows)


_BLOCK = ("k3_e6_se0.25", (28, 28, 40))
DEVICE = Device("example", peak_macs=50e9, bandwidth=10e9)


def operators() -> str:
    """The rows of one block, in elements."""
    text, shape = _BLOCK
    cost = archdsl.block(text).cost(shape, dtype="int8")
    rows = [
        (
            f"`{layer.name.partition('.0.')[2]}`",
            _shape(layer.input),
            _shape(layer.output),
            *(f"{n:,}" for n in (layer.params, layer.macs, layer.weight_bytes)),
            f"{layer.activation_bytes:,}",
        )
        for layer in cost.layers
    ]
    sums = (cost.params, cost.macs, cost.weight_bytes, cost.activation_bytes)
    rows.append(("**sum**", "", "", *(f"{total:,}" for total in sums)))
    head = ("operator", "input", "output", "params", "macs", "weight elements")
    return _table((*head, "activation elements"), rows, 6)


def liveness() -> str:
    """What is alive while each operator of the block runs."""
    text, shape = _BLOCK
    block = archdsl.block(text)
    fragment = lower(block.block, shape, block.attributes)
    plan = schedule(fragment.nodes, [fragment.result])
    sizes = {INPUT: prod(shape)} | {g.output.name: prod(g.output.shape) for g in plan.groups}
    last = {name: step for step, group in enumerate(plan.groups) for name in group.inputs}
    last[plan.groups[-1].output.name] = len(plan.groups)
    born = {group.output.name: step for step, group in enumerate(plan.groups)}
    rows = []
    peak = 0
    for step, group in enumerate(plan.groups):
        alive = [n for n in sizes if born.get(n, -1) <= step <= last.get(n, step)]
        total = sum(sizes[name] for name in alive)
        peak = max(peak, total)
        shown = ", ".join(f"{_part(name)} {sizes[name]:,}" for name in alive)
        rows.append((f"`{group.anchor.name}`", shown, f"{total:,}"))
    counted = block.cost(shape, dtype="int8").peak_activation_bytes
    assert peak == counted, (peak, counted)
    return _table(("while this runs", "these are alive", "elements"), rows, 1)


def _part(name: str) -> str:
    return "the input" if name == INPUT else f"`{name}`"


def network() -> str:
    """One network at several dtypes and batches."""
    arch = archdsl.load("mnv4_conv_m")
    rows = []
    for dtype, batch in (("float32", 1), ("float16", 1), ("int8", 1), ("int8", 8)):
        cost = arch.cost(dtype=dtype, batch=batch)  # type: ignore[arg-type]
        counts = (cost.params, cost.macs, cost.weight_bytes, cost.activation_bytes)
        rows.append((dtype, batch, *(f"{n:,}" for n in (*counts, cost.peak_activation_bytes))))
    head = ("dtype", "batch", "params", "macs", "weight_bytes", "activation_bytes")
    return _table((*head, "peak_activation_bytes"), rows, 6)


def roofline() -> str:
    """Equation 1 for one block, layer by layer."""
    text, shape = _BLOCK
    cost = archdsl.block(text).cost(shape, dtype="int8")
    rows = []
    total = 0.0
    for layer, time in zip(cost.layers, DEVICE.layer_times(cost.work, dtype="int8"), strict=True):
        moved = layer.weight_bytes + layer.activation_bytes
        seconds, bound = time.seconds, time.bound
        compute, memory = layer.macs / DEVICE.peak_macs, moved / DEVICE.bandwidth
        assert seconds == max(compute, memory)
        total += seconds
        rows.append(
            (
                f"`{layer.name.partition('.0.')[2]}`",
                f"{layer.macs:,}",
                f"{moved:,}",
                f"{layer.macs / moved:.2f}",
                *(f"{part * 1e6:.2f}" for part in (compute, memory, seconds)),
                bound,
            )
        )
    rows.append(("**sum**", f"{cost.macs:,}", "", "", "", "", f"{total * 1e6:.2f}", ""))
    head = ("operator", "MACs", "bytes", "MACs per byte", "compute µs", "memory µs", "larger µs")
    return _table((*head, "bound"), rows, 7)


# ----------------------------------------------------------------------------------- latency.md


def devices() -> str:
    """The shipped profiles, a row for each."""
    rows = []
    for device in profiles.shipped():
        peak = "" if device.relative else f"{device.peak_macs / 1e9:,.12g}"
        bandwidth = "" if device.relative else f"{device.bandwidth / 1e9:,.12g}"
        what = f"{device.device}: {device.unit}"
        row = (f"`{device.name}`", what, device.mode, peak, bandwidth)
        ridge = device.ridge_point
        rows.append((*row, f"{ridge:,.0f}" if ridge >= 1000 else f"{ridge:.3g}"))
    head = ("profile", "device", "numbers", "GMAC/s", "GB/s", "ridge point")
    return _table(head, rows, 3)


def board() -> str:
    """The example of a file of profiles."""
    return f"```toml\n{(ROOT / 'docs' / 'board.toml').read_text(encoding='utf-8')}```\n"


_KEYS = {
    "name": "the profile's name: small letters, digits, `_.-`; **required**",
    "unit": "which part of the device, in words",
    "runtime": "under which runtime, in words",
    "dtype": "`float32`, `float16` or `int8`; **required**",
    "mode": "`nominal` or `calibrated`; **required**",
    "peak_gmacs": "the peak, in 10^9 MAC/s; **required** but for a ridge point",
    "bandwidth_gbs": "the bandwidth, in 10^9 bytes/s; **required** but for a ridge point; "
    "`inf` leaves memory out where none is known",
    "ridge_point": "calibrated: MACs per byte, instead of the two",
    "weight_bandwidth_gbs": "that of weights, where it is another",
    "activation_bandwidth_gbs": "that of activations, where it is another",
    "on_chip": "`weight_bytes` and `activation_bytes` that stay on the chip, `bandwidth_gbs` there",
    "overhead": "calibrated: `fixed_us` of a run, `op_us` of an operator by class",
    "efficiency": "calibrated: shares of the peak by class",
    "memory_efficiency": "calibrated: shares of the bandwidth by class",
    "overlap": "calibrated: 1 where computing and moving overlap, 0 where they take turns",
    "activation_ns": "calibrated: ns an element of activation functions that the runtime does not "
    "fuse, by their names",
    "fusion": "calibrated: `free`, operators that cost nothing, such as `add`",
    "source": "where the numbers are from: a text, or one for each by its key",
    "calibration": "`method`, `measurements`, `error_percent`, `held_out`, `spearman`, "
    "`runtime_version`, `provenance`, `range_us`, `classes` (of operators that were measured), "
    "`intervals`",
}


def profile_keys() -> str:
    """What a profile may state."""
    assert list(_KEYS) == list(Profile.model_fields)
    text = _table(("key", "what"), [(f"`{key}`", what) for key, what in _KEYS.items()])
    tables = "A table by class has the classes' names, and `all` for those that it does not name.\n"
    return f"{text}\n{tables}"


# ------------------------------------------------------------------------------------- README.md


def example() -> str:
    """The example file."""
    return f"```arch\n{EXAMPLE.read_text(encoding='utf-8')}```\n"


def emitted() -> str:
    """The network's class in the PyTorch source of the example file."""
    source = archdsl.compile(archdsl.load(EXAMPLE), to="torch").data.decode("utf-8")
    network = re.search(r"^class Pico\(.*?(?=^    @torch)", source, re.S | re.M)
    assert network is not None
    return f"```python\n{network[0].rstrip()}\n```\n"


# Each family by the beginning of its files' names.
_FAMILIES = {
    "MobileNetV1": "mnv1",
    "MobileNetV2": "mnv2",
    "MobileNetV3": "mnv3",
    "MobileNetV4": "mnv4",
    "MobileNet-EdgeTPU": "mn_edgetpu",
    "MobileNet Multi-Hardware": "mn_multi",
    "MnasNet": "mnasnet",
    "EfficientNet": "efficientnet",
}


def _families() -> Iterator[tuple[str, list[tuple[str, str, archdsl.Arch]]]]:
    """Each family with its members: name, file and network."""
    found = [(member.name, member.file, archdsl.load(member.name)) for member in members()]
    for family, start in _FAMILIES.items():
        own = [row for row in found if row[1].startswith(start)]
        yield family, own
        found = [row for row in found if row not in own]
    assert not found, found


def families() -> str:
    """Every family of published architectures, a row for each."""
    rows = []
    for family, found in _families():
        files = dict.fromkeys(file.removesuffix(".arch") for _, file, _ in found)
        link = f"[{family}](docs/architectures.md#{family.lower().replace(' ', '-')})"
        costs = [arch.cost() for *_, arch in found]
        ranges = [
            f"{_short(min(counts))} to {_short(max(counts))}"
            for counts in ([cost.params for cost in costs], [cost.macs for cost in costs])
        ]
        rows.append((link, _code(files, " "), len(found), *ranges))
    return _table(("family", "files", "networks", "parameters", "MACs"), rows, 3)


def _short(count: int) -> str:
    scale, letter = (1e9, "G") if count >= 1e9 else (1e6, "M")
    return f"{count / scale:.1f}{letter}"


def published() -> str:
    """Every published network, a table for each family."""
    head = ("name", "year", "source", "input", "parameters", "MACs", "top-1 %")
    parts = []
    for family, found in _families():
        rows = []
        for name, file, arch in found:
            cost = arch.cost()
            accurate = next((p for p in arch.published if "top1" in p.facts), None)
            source = (accurate and accurate.source) or arch.spec.source
            top1 = accurate.facts["top1"] if accurate else ""
            figures = (_shape(arch.input), f"{cost.params:,}", f"{cost.macs:,}", top1)
            link = f"[`{name}`](../architectures/{file})"
            rows.append((link, year_of(arch.spec.source), source, *figures))
        parts.append(f"## {family}\n\n{_table(head, rows, 4)}")
    return "\n".join(parts)


# ---------------------------------------------------------------------------------- differences.md

_LIBRARIES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "keras": "Keras",
    "tf-models": "TensorFlow's models",
    "official code": "official code, configured otherwise",
}


def differences() -> str:
    """What bears one name in several libraries: settings, and which networks there are."""
    parts = []
    for family, found in _families():
        own = {name: f"[`{name}`](../architectures/{file})" for name, file, _ in found}
        peers = [peer for peer in peer_networks.ALL_PEERS if peer.member in own]
        if peers:
            files = dict.fromkeys(file.removesuffix(".arch") for _, file, _ in found)
            parts.append(f"## {family}\n\n{_settings(files, peers)}\n{_networks(own, peers)}")
    return "\n".join(parts)


def _settings(files: Iterable[str], peers: Sequence[peer_networks.Peer]) -> str:
    """Who has which settings, ours first."""
    groups: dict[tuple[str, peer_networks.Settings], list[str]] = {}
    for file in files:
        key = ("archdsl", peer_networks.Settings.of(peer_networks.text_of(file)))
        groups.setdefault(key, []).append(file)
    for library in _LIBRARIES:
        for peer in peers:
            if peer.library == library != "official code":
                groups.setdefault((library, peer.settings), []).append(peer.name)
    every = Counter(
        (library, _kind(name)) for (library, _), names in groups.items() for name in names
    )
    rows = []
    for (library, settings), names in groups.items():
        here = Counter(map(_kind, names))
        # A kind stands for its networks where all of them are here; files are few.
        shown = dict.fromkeys(
            f"{_kind(name)}*"
            if library != "archdsl" and 1 < here[_kind(name)] == every[library, _kind(name)]
            else name
            for name in names
        )
        numbers = (decimal(number) for number in (settings.eps, settings.momentum))
        dropout = decimal(settings.dropout) if settings.dropout else "none"
        rows.append(
            (_LIBRARIES.get(library, library), _code(shown), settings.pad, *numbers, dropout)
        )
    head = ("", "networks", "padding", "norm epsilon", "norm momentum", "dropout")
    return _table(head, rows)


def _kind(name: str) -> str:
    """The part of a network's name that its relatives share."""
    match = re.match(r"(tf_)?[A-Za-z]+?(_?[Vv]\d|(?![A-Za-z]))(_[a-z]+tpu)?", name)
    assert match is not None
    return match[0]


def _networks(own: dict[str, str], peers: Sequence[peer_networks.Peer]) -> str:
    """Every network there is, settings apart, with what each library calls it."""
    rows: dict[tuple[str, tuple[peer_networks.Change, ...]], dict[str, list[str]]] = {}
    for name in own:
        same = [peer for peer in peers if peer.member == name]
        rows[name, ()] = {}
        for peer in sorted(same, key=lambda peer: bool(peer.changes)):
            names = rows.setdefault((name, peer.changes), {})
            names.setdefault(peer.library, []).append(peer.name)
    libraries = [name for name in _LIBRARIES if any(name in names for names in rows.values())]
    lines = []
    for (name, changes), names in rows.items():
        cost = peer_networks.changed(name, changes).cost()
        what = own[name]
        if changes:
            what = f"{what} with {'; '.join(map(_change, changes))}"
        called = (_called(library, names.get(library, [])) for library in libraries)
        lines.append((what, *called, f"{cost.params:,}", f"{cost.macs:,}"))
    head = (_LIBRARIES[library] for library in libraries)
    return _table(("network", *head, "parameters", "MACs"), lines, 2)


def _called(library: str, names: Sequence[str]) -> str:
    """The names of a network in a library: calls, but of the official code words."""
    return "; ".join(names) if library == "official code" else _code(names)


def _change(change: peer_networks.Change) -> str:
    written, other = (" ".join(text.split()) for text in change)
    return f"`{written}` → `{other}`" if written else f"`{other}`"


def compared() -> str:
    """What benchmarks/equality.py found."""
    path = ROOT / "tests" / "data" / "tensorflow.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    found = (line[2:].split(": ") for line in lines if line.startswith("#"))
    notes = [f"- {_LIBRARIES[library]}: {note}\n" for library, note in found]
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    usual = sum(float(row["float32"]) <= 1e-5 for row in rows)
    notes.append(f"- in float32 {usual} of {len(rows)} differ by at most 1e-5\n")
    shown = [
        (
            _LIBRARIES[row["library"]],
            f"`{row['network']}`",
            f"`{row['member']}`",
            *(row[name] for name in ("largest", "float32", "float64")),
        )
        for row in rows
    ]
    head = ("library", "network", "ours", "largest logit", "in float32", "in float64")
    return f"{''.join(notes)}\n{_table(head, shown, 3)}"


def algorithms() -> str:
    """What proposes networks, with its settings."""
    rows = []
    for name, about in ALGORITHMS.items():
        settings = ", ".join(f"`{key}` {value}" for key, value in settings_of(name).items())
        rows.append((f"`{name}`", about, settings))
    return _table(("name", "what it is", "settings, with their defaults"), rows)


PARTS: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        attributes,
        algorithms,
        backends,
        fields,
        flags,
        kinds,
        layers,
        most,
        most_of_files,
        presets,
        padding,
        rounding,
        squeeze,
        weights,
        json_text,
        formulas,
        liveness,
        network,
        operators,
        roofline,
        devices,
        board,
        profile_keys,
        emitted,
        example,
        families,
        published,
        differences,
        compared,
        claims.verdicts,
        claims.sections,
        adaptations.adapted_int8,
        adaptations.adapted_float,
    )
}

if __name__ == "__main__":
    main()
