"""timm's definitions: all of the family that timm publishes, and random ones, built by both.

timm builds each network from its keywords; we read the same keywords. Parameters, multiplications
and logits must agree. With ARCHDSL_DEEP=1 in the environment the random definitions are 2,000.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import archdsl
from archdsl import ArchError, dialects
from archdsl.lang.source import SourceText

pytestmark = pytest.mark.peers
GENERATED = 2_000 if os.environ.get("ARCHDSL_DEEP") else 150
TOLERANCE = 1e-9  # in double precision

# How many definitions the language cannot say, by the first reason; all others are read.
REFUSED = {
    "a norm but batch norm": 7,
    "anti-aliasing": 4,
    "conditional convolutions": 6,
    "another attention": 1,
    "pruned widths": 3,
    "several sizes": 8,
    "space to depth": 3,
}
LOGITS = (
    "mnasnet_100",
    "semnasnet_075",
    "mobilenetv1_100h",
    "mobilenetv2_110d",
    "fbnetc_100",
    "spnasnet_100",
    "efficientnet_b0",
    "efficientnet_b0_g16_evos",
    "tf_efficientnet_b1",
    "tf_efficientnet_lite2",
    "efficientnet_es",
    "efficientnet_em",
    "tinynet_e",
    "mobilenet_edgetpu_v2_s",
    "efficientnetv2_rw_s",
    "tf_efficientnetv2_b0",
    "mobilenetv3_large_150d",
    "mobilenetv3_rw",
    "lcnet_050",
    "tf_mobilenetv3_small_minimal_100",
    "fbnetv3_b",
    "mobilenetv4_conv_small_035",
    "mobilenetv4_hybrid_medium_075",
)

Keywords = dict[str, Any]
DOCUMENTS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ------------------------------------------------------------------------------ timm's definitions

_NAMES = {"Hardswish": "hard_swish", "ReLU": "relu", "ReLU6": "relu6", "SiLU": "silu"}
_NAMES |= {"GELU": "gelu"}
_OF_THE_LOADER = ("block_args", "cache_dir", "features_only", "kwargs_filter", "pretrained_cfg")
_OF_THE_LOADER += ("pretrained_cfg_overlay", "pretrained_strict")


@pytest.fixture(scope="module")
def definitions(timm: ModuleType) -> dict[str, Keywords]:
    """The keywords of each network of timm's efficientnet.py and mobilenetv3.py, under its name.

    timm's functions are called with a loader that notes what it is given, and builds nothing.
    """
    from timm.models import efficientnet, mobilenetv3

    found: dict[str, Keywords] = {}
    for module in (efficientnet, mobilenetv3):
        decoded: list[Keywords] = []

        def decode(
            arch_def: Any,
            depth_multiplier: Any = 1.0,
            depth_trunc: str = "ceil",
            experts_multiplier: int = 1,
            fix_first_last: bool = False,
            group_size: int | None = None,
            decoded: list[Keywords] = decoded,
        ) -> None:
            decoded.append({name: value for name, value in locals().items() if name != "decoded"})

        def build(
            cls: type,
            variant: str,
            pretrained: bool,
            decoded: list[Keywords] = decoded,
            **others: Any,
        ) -> Any:
            found[variant] = _keywords(variant, cls.__name__, decoded[-1], others)
            return type("Nothing", (), {"default_cfg": {}, "pretrained_cfg": {}})()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "decode_arch_def", decode)
            patch.setattr(module, "build_model_with_cfg", build)
            for name in timm.list_models(module=module.__name__.rpartition(".")[2]):
                timm.create_model(name)
    return found


def _keywords(name: str, cls: str, decoded: Keywords, others: Mapping[str, Any]) -> Keywords:
    """What timm's functions pass to the class, under the keywords of docs/dialects.md."""
    keywords = {**decoded, "architecture": name, "model_cls": cls}
    for key, value in others.items():
        if key in _OF_THE_LOADER or value is None:
            continue
        if key == "round_chs_fn":
            renamed = {"multiplier": "channel_multiplier", "divisor": "channel_divisor"}
            keywords |= {renamed.get(k, k): v for k, v in value.keywords.items()}
        elif key == "norm_layer" and getattr(value, "func", None) is nn.BatchNorm2d:
            keywords |= {f"bn_{k}": v for k, v in value.keywords.items()}
        elif key == "norm_layer":
            keywords[key] = "another"
        elif key == "act_layer":
            keywords[key] = _NAMES[value.__name__]
        elif key == "se_layer" and not isinstance(value, str):
            bound = dict(value.keywords)
            if "force_act_layer" in bound:
                bound["force_act_layer"] = _NAMES[bound["force_act_layer"].__name__]
            if "rd_round_fn" in bound:
                own = isinstance(bound["rd_round_fn"], partial)
                bound["rd_round_fn"] = "round_chs_fn" if own else "round_channels"
            keywords[key] = bound
        else:
            keywords[key] = value
    return keywords


def built(keywords: Keywords) -> nn.Module:
    """The network that timm's classes make of the keywords."""
    from timm.layers import get_act_layer
    from timm.models._efficientnet_blocks import SqueezeExcite
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.efficientnet import EfficientNet
    from timm.models.mobilenetv3 import MobileNetV3

    ours = ("architecture", "input_size", "experts_multiplier")
    left = {k: v for k, v in keywords.items() if k not in ours}
    depth = left.pop("depth_multiplier", 1.0)
    blocks = decode_arch_def(
        left.pop("arch_def"),
        tuple(depth) if isinstance(depth, list) else depth,
        **{k: left.pop(k) for k in ("depth_trunc", "fix_first_last", "group_size") if k in left},
    )
    renamed = {"channel_multiplier": "multiplier", "channel_divisor": "divisor"}
    renamed |= {"channel_min": "channel_min", "round_limit": "round_limit"}
    rule = {theirs: left.pop(ours) for ours, theirs in renamed.items() if ours in left}
    rounding = partial(round_channels, **rule)
    norm = {k: left.pop(f"bn_{k}") for k in ("eps", "momentum") if f"bn_{k}" in left}
    squeeze = dict(left.pop("se_layer", {}))
    if "force_act_layer" in squeeze:
        squeeze["force_act_layer"] = get_act_layer(squeeze["force_act_layer"])
    if "rd_round_fn" in squeeze:
        functions = {"round": None, "round_channels": round_channels, "round_chs_fn": rounding}
        squeeze["rd_round_fn"] = functions[squeeze["rd_round_fn"]]
    cls = {"EfficientNet": EfficientNet, "MobileNetV3": MobileNetV3}[left.pop("model_cls")]
    net: nn.Module = cls(
        block_args=blocks,
        round_chs_fn=rounding,
        norm_layer=partial(nn.BatchNorm2d, **norm),
        act_layer=get_act_layer(left.pop("act_layer", "relu")),
        se_layer=partial(SqueezeExcite, **squeeze),
        **left,
    )
    return net


# ----------------------------------------------------------------------------------- comparisons


def read(keywords: Keywords) -> archdsl.Arch:
    """Our network of the keywords."""
    name = keywords.get("architecture", "net")
    return archdsl.parse(dialects.read_timm(SourceText(name, json.dumps(keywords))))


def multiplications(net: nn.Module, image: torch.Tensor) -> int:
    """The MACs of the convolutions and linear layers."""
    total = 0

    def count(module: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() // output.shape[0] * module.weight[0].numel()

    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        net.eval()(image)
    for hook in hooks:
        hook.remove()
    return total


def tensors(net: nn.Module) -> list[torch.Tensor]:
    """The tensors in the order of the forward pass, timm's joint projection in its three parts."""
    found: list[torch.Tensor] = []
    for key, tensor in net.state_dict().items():
        found += tensor.chunk(3) if key.endswith("attn.qkv.weight") else [tensor]
    return found


def compare(keywords: Keywords, arch: archdsl.Arch, theirs: nn.Module, side: int) -> None:
    """Equal MACs and logits, at an image of a small side, with statistics that are lively."""
    channels = arch.input[2]
    small = archdsl.parse(arch.to_text(), input=(side, side + 5, channels))
    torch.manual_seed(3)
    image = torch.randn(2, channels, side, side + 5, dtype=torch.float64)
    theirs = theirs.double()
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.5)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.3)
        elif hasattr(part, "gamma"):
            nn.init.uniform_(part.gamma, 0.5, 1.5)
    assert multiplications(theirs, image[:1]) == small.cost().macs_conv_linear
    ours = archdsl.compile(small, to="torch").load().double()
    state, given = ours.state_dict(), tensors(theirs)
    assert [tuple(t.shape) for t in state.values()] == [tuple(t.shape) for t in given]
    ours.load_state_dict(dict(zip(state, given, strict=True)))
    with torch.inference_mode():
        logits, expected = ours.eval()(image), theirs.eval()(image)
    largest = float(expected.abs().max())
    assert largest > 1e-3
    assert float((logits - expected).abs().max()) <= TOLERANCE * largest


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# ------------------------------------------------------------------------------------------ tests


def reason(error: ArchError) -> str:
    """Why a definition is refused."""
    assert {d.code for d in error.diagnostics} == {"E0605"}, str(error)
    return next((known for known in REFUSED if known in str(error)), str(error))


def test_every_definition_of_timm(timm: ModuleType, definitions: dict[str, Keywords]) -> None:
    """Read, with timm's parameters, or refused for what it is; written and read, the same again."""
    refused: Counter[str] = Counter()
    for name, keywords in definitions.items():
        try:
            arch = read(keywords)
        except ArchError as error:
            refused[reason(error)] += 1
            continue
        with torch.device("meta"):
            assert arch.cost().params == parameters(timm.create_model(name)), name
        again = archdsl.parse(dialects.read_timm(dialects.write_timm(arch.spec, arch.origins).text))
        assert again.to_text() == arch.to_text(), name
    assert refused == REFUSED
    said = f"Of the {len(definitions)} definitions"
    read_of_them = f", {len(definitions) - refused.total()} are read"
    text = " ".join((DOCUMENTS / "dialects.md").read_text(encoding="utf-8").split())
    assert said in text and read_of_them in text


@pytest.mark.parametrize("name", LOGITS)
def test_timm_logits(name: str, timm: ModuleType, definitions: dict[str, Keywords]) -> None:
    theirs = timm.create_model(name)
    compare(definitions[name], read(definitions[name]), theirs, 64)


def test_our_adapter_builds_what_timm_builds(definitions: dict[str, Keywords]) -> None:
    """The random definitions go through `built`: here it is held to timm's own functions."""
    import timm

    for name in ("mobilenetv4_hybrid_medium", "fbnetv3_b", "tf_efficientnet_lite1"):
        with torch.device("meta"):
            state = built(definitions[name]).state_dict()
            expected = timm.create_model(name).state_dict()
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}


# ------------------------------------------------------------------------------ random definitions


class Generator:
    """Random valid definitions, of small networks."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def some(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def keywords(self) -> Keywords:
        some = self.some
        self.cls = some("EfficientNet", "MobileNetV3")
        self.rule = {"multiplier": some(0.35, 0.5, 0.75, 1.0, 1.0, 1.0, 1.1, 1.4)}
        self.rule |= {"divisor": some(8, 8, 8, 4, 16), "round_limit": some(0.9, 0.9, 0.0, 0.95)}
        found: Keywords = {"model_cls": self.cls, "num_classes": some(5, 10)}
        found["channel_multiplier"] = self.rule["multiplier"]
        found["channel_divisor"] = self.rule["divisor"]
        found["round_limit"] = self.rule["round_limit"]
        found["stem_size"] = some(8, 12, 16, 24, 32)
        found["fix_stem"] = some(True, False)
        found["num_features"] = some(32, 50, *([0] if self.cls == "EfficientNet" else [64]))
        found["pad_type"] = some("", "same")
        found["act_layer"] = self.act = some("relu", "relu6", "hard_swish", "swish", "gelu")
        found["bn_eps"] = some(1e-3, 1e-5)
        found["depth_multiplier"] = some(1.0, 1.0, 0.6, 1.1, 1.4, 1.8)
        found["depth_trunc"] = some("ceil", "round")
        found["fix_first_last"] = some(True, False)
        if some(True, False):
            found["group_size"] = some(1, 1, 4)  # 1 is of a depthwise convolution
        squeeze = {"gate_layer": some("sigmoid", "hard_sigmoid")}
        squeeze["rd_round_fn"] = some("round", "round", "round_channels", "round_chs_fn")
        if some(True, False):
            squeeze["force_act_layer"] = some("relu", "swish")
        found["se_layer"] = squeeze
        if self.cls == "MobileNetV3":
            found["head_norm"], found["head_bias"] = some(True, False), some(True, False)
            found["se_from_exp"] = some(True, False)
            found["layer_scale_init_value"] = some(None, 1e-5)
        else:
            found["stem_kernel_size"] = some(3, 5)
        found = {k: v for k, v in found.items() if v is not None}
        self.channels = self.width(found["stem_size"], fixed=found["fix_stem"])
        self.group_size = found.get("group_size")
        found["arch_def"] = self.stages()
        return found

    def width(self, channels: int, *, fixed: bool = False) -> int:
        from timm.models._efficientnet_builder import round_channels

        width: int = channels if fixed else round_channels(channels, **self.rule)
        return width

    def stages(self) -> list[list[str]]:
        strides = 0
        stages = []
        for _ in range(self.random.randint(1, 5)):
            stage: list[str] = []
            blocks = self.random.randint(1, 3)
            for number in range(1, blocks + 1):
                stride = 2 if not stage and strides < 4 and self.random.random() < 0.6 else 1
                strides += stride == 2
                stage.append(self.block(stride, last=number == blocks))
            stages.append(stage)
        return stages

    def block(self, stride: int, *, last: bool) -> str:
        some = self.some
        kinds = ["ir", "ir", "ds", "er", "uir", "uir", "cn", "dsa"]
        # timm's attention cannot end a stage: it lacks what `feature_info` asks it for.
        kind = some(*kinds, *(["mqa", "mha"] if stride == 1 and not last else []))
        out = some(8, 12, 16, 20, 24, 32, 40, 48)
        if kind == "mha" or some(True, False):
            same = self.written(self.channels)
            out = same or out
        before, self.channels = self.channels, self.width(out)
        ratio = some(1, 1.5, 2, 2.5, 3, 3.67, 4, 6, 0.5)
        words = [kind, f"r{some(1, 1, 2, 3)}", f"s{stride}", f"c{out}"]
        if kind in ("mqa", "mha"):
            heads, width = some(2, 4), some(8, 16)
            if kind == "mha":
                if before != self.channels:
                    words[1] = "r1"
                heads = some(*[h for h in (1, 2, 4) if before % h == 0])
                width = before // heads
            words += [f"h{heads}", f"d{width}", f"k{some(3, 5)}"]
            words += [f"v{some(1, 2)}"] if kind == "mqa" and some(True, False) else []
            words += ["noskip"] if some(True, False, False) else []
            return self.shuffled(words)
        if kind == "uir":
            start, middle = some((0, 3), (3, 0), (5, 3), (3, 5), *([(0, 0)] if stride == 1 else []))
            words += [f"a{start}"] if start or some(True, False) else []
            words += [f"k{middle}", f"e{ratio}"]
        else:
            words += [f"k{some(1, 3, 5) if kind == 'cn' else some(3, 5, 7)}"]
        if kind in ("ir", "er"):
            words += [f"e{ratio}"]
        elif kind in ("ds", "dsa", "cn") and some(True, False):
            words += ["e1"]
        squeezed = kind in ("ir", "ds", "dsa", "er") and some(True, False, False)
        if squeezed:
            words += [f"se{some(0.25, 0.25, 0.5, 0.15, 0.3)}"]
        words += self.groups(kind, before, ratio, words)
        if some(True, False, False):
            words += [some("nre", "nr6", "nhs", "nsw")]
        if kind in ("ir", "ds", "er", "uir") and some(True, False, False, False):
            words += [some("noskip", "noskip", "skip")]
        if kind == "cn" and some(True, False):
            words += ["skip"]
        return self.shuffled(words)

    def groups(self, kind: str, before: int, ratio: float, words: list[str]) -> list[str]:
        """Where the network's group size does not fit, or at will, one that does."""
        from timm.layers import make_divisible

        convolutions = []
        for channels in (before, self.channels):
            hidden = make_divisible(channels * ratio)
            convolutions += {
                "er": [(channels, hidden)],
                "ir": [(hidden, hidden)],
                "uir": [
                    *([(channels, channels)] if {"a3", "a5"} & {*words} else []),
                    *([(hidden, hidden)] if "k0" not in words else []),
                ],
                "cn": [(channels, self.channels)],
            }.get(kind, [(channels, channels)])
        if not convolutions:  # timm passes over a size then, and the language does not
            return []

        def fits(size: int | None, channels: int, out: int) -> bool:
            groups, rest = divmod(channels if kind == "cn" else out, size or 1)
            return not size or not (rest or channels % groups or out % groups)

        fitting = [
            size
            for size in (0, 1, 2, 4, 8, 16)
            if all(fits(size, *widths) for widths in convolutions)
            # Full convolutions in a `uir` need two sizes in the language.
            and (size or kind != "uir" or len({out for _, out in convolutions}) == 1)
        ]
        given = all(fits(self.group_size, *widths) for widths in convolutions)
        if given and self.some(True, True, False):
            return []
        return [f"gs{self.some(*fitting)}"]

    def written(self, channels: int) -> int | None:
        """A width as written that comes to these channels."""
        return next((c for c in range(4, 200, 4) if self.width(c) == channels), None)

    def shuffled(self, words: list[str]) -> str:
        """The fields may stand in any order."""
        rest = words[1:]
        self.random.shuffle(rest)
        return "_".join([words[0], *rest])


@pytest.mark.parametrize("part", range(10))
def test_random_definitions(part: int, timm: ModuleType) -> None:
    """Built by timm and by us: equal parameters, MACs and logits, and the same when written."""
    for seed in range(part, GENERATED, 10):
        keywords = Generator(seed).keywords()
        torch.manual_seed(seed)
        theirs = built(keywords)
        try:
            arch = read(keywords)
        except ArchError as error:
            # Attention's `d` in repeats of different widths, of which timm takes no notice.
            reasons = ("an expansion of", "timm's `mha` passes over `d`")
            assert any(reason in str(error) for reason in reasons), (seed, keywords)
            continue
        assert arch.cost().params == parameters(theirs), (seed, keywords)
        compare(keywords, arch, theirs, 33)
        try:
            text = dialects.write(arch, "timm").text
        except ArchError as error:
            # Squeezed to more than what comes in: a ratio above 1, which is not read either.
            assert "no ratio squeezes" in str(error), (seed, keywords)
            continue
        again = archdsl.parse(dialects.read_timm(text))
        assert again.cost().params == arch.cost().params
        assert again.cost().macs == arch.cost().macs
        assert operators(again) == operators(arch), (seed, keywords)


def operators(arch: archdsl.Arch) -> list[Any]:
    """What the network is made of, in order."""
    return [node.op for _, unit in arch.blocks() for node in unit.fragment.nodes]
