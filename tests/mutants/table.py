"""The faults: in which file, which text becomes which other one, and what goes wrong by it."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One fault; `old` stands exactly once in `file` (a path from the repository's root)."""

    name: str
    area: str
    file: str
    old: str
    new: str


_ONNX_RANDOM = "test_onnx.py::test_every_node_of_a_random_network_has_the_value_that_the_graph_says"
_HYBRID = "test_onnx.py::test_a_published_network_is_its_pytorch_module[mnv4_hybrid_m]"
_TFLITE_RANDOM = "test_tflite.py::test_a_random_network_is_its_graph"
_ONNX8_EACH = "test_onnx_int8.py::test_each_operator_is_right"
_TFLITE8_EACH = "test_tflite_int8.py::test_each_operator_is_right"

AREAS: dict[str, tuple[str, ...]] = {
    "language": ("test_members.py", "test_variants.py", "test_equality.py", "test_language.py"),
    "lowering": (
        *("test_members.py", "test_language.py", "test_passes.py"),
        *(_HYBRID, "test_torch_random.py", "test_torch.py"),
    ),
    "shapes": ("test_members.py", "test_passes.py", "test_language.py"),
    "cost": (
        *("test_members.py", "test_language.py", "test_passes.py", "test_api.py"),
        *("test_roofline.py", "test_properties.py"),
    ),
    "folding": ("test_passes.py", _ONNX_RANDOM, _TFLITE_RANDOM),
    "executor": ("test_passes.py", _ONNX_RANDOM),
    "torch": (
        "test_torch_random.py",
        "test_torch.py::test_norms_are_those_of_the_file",
        "test_torch.py::test_initialisation_is_as_published",
        "test_torch.py::test_stochastic_depth_rises_over_the_residuals_to_its_peak",
        "test_torch.py",
    ),
    "onnx": (
        *(_ONNX_RANDOM, "test_onnx.py::test_strides_differ_by_side", _HYBRID, "test_onnx.py"),
    ),
    "onnx int8": (_ONNX8_EACH, "test_onnx_int8.py"),
    "tflite": (*(_TFLITE_RANDOM, "test_tflite.py::test_strides_differ_by_side", "test_tflite.py"),),
    "tflite int8": (
        _TFLITE8_EACH,
        "test_tflite_int8.py::test_scales_and_versions",
        "test_tflite_int8.py::test_sigmoids_have_the_scale_that_their_kernel_gives",
        "test_tflite_int8.py",
    ),
    "quantisation": ("test_quantization.py", _ONNX8_EACH, _TFLITE8_EACH),
    "weights": ("test_weights.py", "test_weights_import.py"),
    "latency": ("test_roofline.py",),
}
"""The tests that are likely to find a fault of an area: they run first."""

_WIDTHS = "archdsl/lang/widths.py"
_ROUNDING = "archdsl/rounding.py"
_LOWER = "archdsl/ir/lower.py"
_OPS = "archdsl/ir/ops.py"
_COST = "archdsl/passes/cost.py"
_FOLD = "archdsl/passes/fold.py"
_EXECUTE = "archdsl/ir/execute.py"
_TORCH = "backends/templates/torch_"
_ONNX = "backends/onnx_network.py"
_ONNX8 = "backends/onnx_quantized.py"
_PLAN = "backends/tflite_plan.py"
_TFLITE = "backends/tflite_network.py"
_SCHEME = "archdsl/quantization/scheme.py"
_KERAS = "archdsl/weights/keras.py"

MUTANTS: tuple[Mutant, ...] = (
    # -- language: numbers of a text, variants, repeats
    Mutant(
        "widths are cut off instead of rounded",
        "language",
        _ROUNDING,
        "int(value + divisor / 2) // divisor",
        "int(value) // divisor",
    ),
    Mutant(
        "rounding may lose more than a tenth",
        "language",
        _ROUNDING,
        "if rounded < limit * value:",
        "if rounded < limit * value * 0.5:",
    ),
    Mutant(
        "the width multiplier is not applied",
        "language",
        _WIDTHS,
        "value = width.channels * attributes.width",
        "value = width.channels * 1.0",
    ),
    Mutant(
        "pinned widths are scaled",
        "language",
        _WIDTHS,
        'if width.mark == "!":',
        'if width.mark == "?":',
    ),
    Mutant(
        "lower bounds become upper bounds",
        "language",
        _WIDTHS,
        'max(width.channels, value) if width.mark == "+"',
        'min(width.channels, value) if width.mark == "+"',
    ),
    Mutant(
        "squeezed from the wrong width",
        "language",
        _WIDTHS,
        '(expanded if rule.base == "expanded" else block_input)',
        '(expanded if rule.base != "expanded" else block_input)',
    ),
    Mutant(
        "squeezed widths are rounded, not truncated",
        "language",
        _WIDTHS,
        "max(1, int(value))",
        "max(1, round(value))",
    ),
    Mutant(
        "the depth multiplier rounds down", "language", _WIDTHS, "math.ceil(round(", "math.floor(("
    ),
    Mutant(
        "the depth multiplier is applied to stem and head too",
        "language",
        "archdsl/compiler.py",
        'deepened = path.startswith("stages.")',
        "deepened = True",
    ),
    Mutant(
        "what a variant says is not applied",
        "language",
        "archdsl/compiler.py",
        "dict(self.variant.overrides) if self.variant else {}",
        "{}",
    ),
    Mutant(
        "a repeat too few",
        "language",
        "archdsl/compiler.py",
        "for index in range(min(repeats, ",
        "for index in range(min(repeats - (repeats > 1), ",
    ),
    Mutant(
        "the wrong one of two strides",
        "language",
        "archdsl/lang/fields.py",
        "pair = divmod(value, 10) if value > MAX_STRIDE else (value, value)",
        "pair = divmod(value, 10)[::-1] if value > MAX_STRIDE else (value, value)",
    ),
    Mutant(
        "declared inputs are not proved",
        "language",
        "archdsl/compiler.py",
        "if block.in_channels is not None and block.in_channels != state.written:",
        "if block.in_channels is not None and block.in_channels > state.written:",
    ),
    # -- lowering
    Mutant(
        "every repeat has the stride",
        "lowering",
        _LOWER,
        'getattr(block, "stride", (1, 1)) if first else (1, 1)',
        'getattr(block, "stride", (1, 1))',
    ),
    Mutant(
        "the residual of an inverted residual is dropped",
        "lowering",
        _LOWER,
        '    b.conv_norm("project", b.out(block.out_channels))\n'
        "    b.residual(block.residual)\n\n\ndef _fused",
        '    b.conv_norm("project", b.out(block.out_channels))\n\n\ndef _fused',
    ),
    Mutant(
        "a residual where the text forbids it",
        "lowering",
        _LOWER,
        "if wanted and self.stride == (1, 1)",
        "if self.stride == (1, 1)",
    ),
    Mutant(
        "the residual adds a value to itself",
        "lowering",
        _LOWER,
        'self.add("add", Add(), self.last, INPUT)',
        'self.add("add", Add(), self.last, self.last)',
    ),
    Mutant(
        "no activation behind the depthwise convolution",
        "lowering",
        _LOWER,
        '    b.act("depthwise.act", block.act)\n    b.squeeze_excite(block)\n'
        '    b.conv_norm("project"',
        '    b.squeeze_excite(block)\n    b.conv_norm("project"',
    ),
    Mutant(
        "an activation before the projection's sum",
        "lowering",
        _LOWER,
        '    b.conv_norm("project", b.out(block.out_channels))\n    b.layer_scale',
        '    b.conv_norm("project", b.out(block.out_channels))\n'
        '    b.act("project.act", block.act)\n    b.layer_scale',
    ),
    Mutant(
        "an expansion by one is kept",
        "lowering",
        _LOWER,
        "return block.expansion != 1",
        "return block.expansion > 0",
    ),
    Mutant(
        "the stride on the wrong depthwise",
        "lowering",
        _LOWER,
        "        stride = (1, 1) if block.middle_kernel else b.stride\n"
        '        b.depthwise("start", block.start_kernel, stride, block.group_size)\n'
        '    b.conv_norm("expand", b.expanded(block))\n'
        '    b.act("expand.act", block.act)\n'
        "    if block.middle_kernel:\n"
        '        b.depthwise("middle", block.middle_kernel, b.stride, block.group_size)\n',
        '        b.depthwise("start", block.start_kernel, b.stride, block.group_size)\n'
        '    b.conv_norm("expand", b.expanded(block))\n'
        '    b.act("expand.act", block.act)\n'
        "    if block.middle_kernel:\n"
        "        stride = (1, 1) if block.start_kernel else b.stride\n"
        '        b.depthwise("middle", block.middle_kernel, stride, block.group_size)\n',
    ),
    Mutant(
        "the layer scale is dropped",
        "lowering",
        _LOWER,
        '    b.conv_norm("project", b.out(block.out_channels))\n'
        "    b.layer_scale(block.layer_scale)\n",
        '    b.conv_norm("project", b.out(block.out_channels))\n',
    ),
    Mutant(
        "the layer scale starts elsewhere",
        "lowering",
        _LOWER,
        "LayerScale(channels, value or _DEFAULT_LAYER_SCALE)",
        "LayerScale(channels, _DEFAULT_LAYER_SCALE)",
    ),
    Mutant(
        "attention scores are scaled by the width, not its root",
        "lowering",
        _LOWER,
        "scale=depth**-0.5",
        "scale=depth**-1.0",
    ),
    Mutant(
        "keys and values come of the input without its norm",
        "lowering",
        _LOWER,
        "        b.last = normed\n",
        '        b.last = normed if name == "query" else INPUT\n',
    ),
    Mutant(
        "heads are joined in the wrong order",
        "lowering",
        _LOWER,
        '        b.add("attend.rows", Transpose((1, 0, 2)))\n',
        '        b.add("attend.rows", Dropout(0.0))\n',
    ),
    Mutant(
        "squeeze-and-excitation takes the block's activation",
        "lowering",
        _LOWER,
        'block.act if rule.act == "block" else rule.act',
        "block.act",
    ),
    Mutant(
        "the wrong gate of squeeze-and-excitation",
        "lowering",
        _LOWER,
        'self.act("se.gate", rule.gate)',
        'self.act("se.gate", "hsigmoid")',
    ),
    Mutant(
        "group sizes are ignored",
        "lowering",
        _LOWER,
        "groups = channels if group_size == 1 else",
        "groups = channels if group_size >= 1 else",
    ),
    Mutant(
        "groups are counted of the input",
        "lowering",
        _LOWER,
        "groups, rest = divmod(out, group_size)",
        "groups, rest = divmod(channels, group_size)",
    ),
    Mutant(
        "symmetric padding is SAME padding",
        "lowering",
        _LOWER,
        'if pad == "symmetric":',
        'if pad == "":',
    ),
    Mutant(
        "the width is padded as the height",
        "lowering",
        _LOWER,
        "left, right = same_padding(width, kernel, stride[1])",
        "left, right = same_padding(height, kernel, stride[0])",
    ),
    Mutant(
        "the norm's eps is PyTorch's",
        "lowering",
        _LOWER,
        "rule.eps, rule.momentum",
        "1e-5, rule.momentum",
    ),
    Mutant(
        "the norm's momentum is PyTorch's",
        "lowering",
        _LOWER,
        "rule.eps, rule.momentum",
        "rule.eps, 0.1",
    ),
    Mutant(
        "a convolution's bias is lost",
        "lowering",
        _LOWER,
        "groups=groups, bias=block.bias)",
        "groups=groups)",
    ),
    Mutant(
        "a classifier always has a bias",
        "lowering",
        _LOWER,
        "Linear(b.channels, out, block.bias)",
        "Linear(b.channels, out, True)",
    ),
    # -- shapes
    Mutant(
        "the odd pixel of padding comes before",
        "shapes",
        _ROUNDING,
        "return total // 2, total - total // 2",
        "return total - total // 2, total // 2",
    ),
    Mutant(
        "SAME padding for the floor of the size",
        "shapes",
        _ROUNDING,
        "-(-size // stride)",
        "(size // stride)",
    ),
    Mutant(
        "convolutions round their size up",
        "shapes",
        _OPS,
        "rows = (height + top + bottom - self.kernel[0]) // self.stride[0] + 1",
        "rows = -(-(height + top + bottom - self.kernel[0]) // self.stride[0]) + 1",
    ),
    Mutant(
        "another image is not looked at",
        "shapes",
        "archdsl/passes/shapes.py",
        "image or node.op.shape",
        "node.op.shape",
    ),
    # -- cost and memory
    Mutant(
        "MACs do not know of groups",
        "cost",
        _OPS,
        "return rows * columns * self.kernel_size",
        "return rows * columns * self.kernel_size * self.groups",
    ),
    Mutant(
        "norms have four parameters a channel",
        "cost",
        _OPS,
        "return 2 * self.channels",
        "return 4 * self.channels",
    ),
    Mutant(
        "biases are not counted",
        "cost",
        _OPS,
        "return self.kernel_size + (self.out_channels if self.bias else 0)",
        "return self.kernel_size",
    ),
    Mutant(
        "attention's MACs from the wrong side",
        "cost",
        _OPS,
        "* inputs[0][-1]",
        "* inputs[1][-1]",
    ),
    Mutant(
        "attention's MACs are left out",
        "cost",
        _COST,
        "macs=(total.macs_conv_linear + total.macs_attention) * batch",
        "macs=total.macs_conv_linear * batch",
    ),
    Mutant(
        "the second operand moves no bytes",
        "cost",
        _COST,
        "for shape in inputs)",
        "for shape in inputs[:1])",
    ),
    Mutant(
        "weights are read once an image",
        "cost",
        _COST,
        "weight_bytes=total.weights * size,",
        "weight_bytes=total.weights * size * batch,",
    ),
    Mutant(
        "latency reads weights once an image",
        "cost",
        _COST,
        "w + a * batch)",
        "(w + a) * batch)",
    ),
    Mutant(
        "grouped convolutions count as pointwise",
        "cost",
        _COST,
        "if op.kernel != (1, 1) or op.groups != 1:",
        "if op.kernel != (1, 1):",
    ),
    Mutant(
        "the peak is the last block's",
        "cost",
        _COST,
        "if part.peak > peak:",
        "if part.peak:",
    ),
    Mutant(
        "a tensor stays after its last reader",
        "cost",
        "archdsl/passes/memory.py",
        "if last_use.get(name, step) <= step",
        "if last_use.get(name, step) < step",
    ),
    Mutant(
        "a residual's input goes with its first reader",
        "cost",
        "archdsl/passes/memory.py",
        "last_use[name] = step",
        "last_use.setdefault(name, step)",
    ),
    Mutant(
        "norms fuse behind a value that others read",
        "cost",
        "archdsl/passes/fuse.py",
        "if producer is not None and readers[source] == 1 and _fuses",
        "if producer is not None and _fuses",
    ),
    # -- folding
    Mutant(
        "eps is lost on folding",
        "folding",
        _FOLD,
        "np.sqrt(variance + node.op.eps)",
        "np.sqrt(variance)",
    ),
    Mutant(
        "the mean has the wrong sign on folding",
        "folding",
        _FOLD,
        "return scale, beta - mean * scale",
        "return scale, beta + mean * scale",
    ),
    Mutant(
        "a bias is lost on folding",
        "folding",
        _FOLD,
        'weights[f"{conv.name}.bias"].astype(np.float64) if conv.op.bias else np.zeros(channels)',
        "np.zeros(channels)",
    ),
    Mutant(
        "a layer scale leaves the shift as it is",
        "folding",
        _FOLD,
        "scale * factor, shift * factor + term",
        "scale * factor, shift + term",
    ),
    Mutant(
        "the layer scale is dropped on folding",
        "folding",
        _FOLD,
        "return gamma, np.zeros_like(gamma)",
        "return np.ones_like(gamma), np.zeros_like(gamma)",
    ),
    Mutant(
        "a norm is folded into what others read",
        "folding",
        _FOLD,
        "            and len(graph.readers(node.inputs[0])) == 1\n",
        "",
    ),
    Mutant(
        "weights are scaled along the wrong axis",
        "folding",
        _FOLD,
        "scale[:, None, None, None]",
        "scale[::-1, None, None, None]",
    ),
    # -- the executor, which passes and backends are proved against
    Mutant(
        "the executor's hard sigmoid",
        "executor",
        _EXECUTE,
        "np.clip(x + 3, 0, 6) / 6",
        "np.clip(x * 1.2 + 3, 0, 6) / 6",
    ),
    Mutant(
        "the executor's norm without its mean",
        "executor",
        _EXECUTE,
        '(x - p["running_mean"]) * scale',
        "x * scale",
    ),
    # -- PyTorch
    Mutant(
        "PyTorch: the gate is added",
        "torch",
        f"{_TORCH}SqueezeExcite.py.j2",
        "return x * gate",
        "return x + gate",
    ),
    Mutant(
        "PyTorch: the residual is dropped",
        "torch",
        f"{_TORCH}Residual.py.j2",
        "return x + y if self.residual else y",
        "return y",
    ),
    Mutant(
        "PyTorch: the layer scale is dropped",
        "torch",
        f"{_TORCH}LayerScale.py.j2",
        "return x * self.gamma.view(-1, 1, 1)",
        "return x",
    ),
    Mutant(
        "PyTorch: the odd pixel comes before",
        "torch",
        f"{_TORCH}SameConv2d.py.j2",
        "return total // 2, total - total // 2",
        "return total - total // 2, total // 2",
    ),
    Mutant(
        "PyTorch: the width is padded as the height",
        "torch",
        f"{_TORCH}SameConv2d.py.j2",
        "left, right = same_padding(x.shape[3]",
        "left, right = same_padding(x.shape[2]",
    ),
    Mutant(
        "PyTorch: the stride on the wrong depthwise",
        "torch",
        f"{_TORCH}UniversalInvertedBottleneck.py.j2",
        "start_stride = 1 if middle else stride",
        "start_stride = stride if middle else 1",
    ),
    Mutant(
        "PyTorch: heads are joined in the wrong order",
        "torch",
        f"{_TORCH}attention.py.j2",
        "y.transpose(2, 3).reshape(",
        "y.reshape(",
    ),
    Mutant(
        "PyTorch: initial weights are too small",
        "torch",
        f"{_TORCH}initialize.py.j2",
        "std=math.sqrt(2 / fan_out)",
        "std=math.sqrt(1 / fan_out)",
    ),
    Mutant(
        "PyTorch: momentum is TensorFlow's",
        "torch",
        "backends/torch_network.py",
        "momentum={attributes.norm.momentum}",
        "momentum={1 - attributes.norm.momentum}",
    ),
    Mutant(
        "PyTorch: swish becomes hard-swish",
        "torch",
        "backends/torch_calls.py",
        'Code("nn.SiLU")',
        'Code("nn.Hardswish")',
    ),
    Mutant(
        "PyTorch: stochastic depth does not rise",
        "torch",
        f"{_TORCH}network.py.j2",
        "{{ drop_path }} * index / len(drop_paths)",
        "{{ drop_path }}",
    ),
    # -- ONNX
    Mutant(
        "ONNX: paddings in the graph's order",
        "onnx",
        _ONNX,
        "return top, left, bottom, right",
        "return top, bottom, left, right",
    ),
    Mutant(
        "ONNX: strides swapped",
        "onnx",
        _ONNX,
        '"strides": op.stride,',
        '"strides": op.stride[::-1],',
    ),
    Mutant(
        "ONNX: convolutions are dilated",
        "onnx",
        _ONNX,
        '"group": op.groups,',
        '"group": op.groups, "dilations": op.kernel,',
    ),
    Mutant(
        "ONNX: eps is ONNX's own",
        "onnx",
        _ONNX,
        "network.name(node), node, epsilon=op.eps)",
        "network.name(node), node)",
    ),
    Mutant(
        "ONNX: alpha of the hard sigmoid is ONNX's own",
        "onnx",
        _ONNX,
        "alpha=1 / 6, beta=0.5",
        "beta=0.5",
    ),
    Mutant(
        "ONNX: gelu by tanh",
        "onnx",
        _ONNX,
        'approximate="none"',
        'approximate="tanh"',
    ),
    Mutant(
        "ONNX: relu6 clips elsewhere",
        "onnx",
        _ONNX,
        "scalar(network, 6.0)",
        "scalar(network, 5.0)",
    ),
    Mutant(
        "ONNX: attention scores are not scaled",
        "onnx",
        _ONNX,
        "np.array(op.scale, np.float32)",
        "np.array(1, np.float32)",
    ),
    Mutant(
        "ONNX: maps are reshaped channels first",
        "onnx",
        _ONNX,
        "same = len(before) == 3 and (before[:2] == (1, 1) or before[2] == 1)",
        "same = len(before) == 3",
    ),
    Mutant(
        "ONNX: maps are turned over their diagonal",
        "onnx",
        _ONNX,
        "order = (0, 3, 1, 2) if first",
        "order = (0, 3, 2, 1) if first",
    ),
    # -- ONNX in 8 bits
    Mutant(
        "ONNX int8: a zero point is off by one",
        "onnx int8",
        _ONNX8,
        "scale.zero_point + _UNSIGNED)",
        "scale.zero_point + _UNSIGNED - 1)",
    ),
    Mutant(
        "ONNX int8: scales along the wrong axis",
        "onnx int8",
        _ONNX8,
        "full, node, axis=0)",
        "full, node, axis=1)",
    ),
    Mutant(
        "ONNX int8: the hard sigmoid's shift",
        "onnx int8",
        _ONNX8,
        "self._kernel(node, kernel, shift=3)",
        "self._kernel(node, kernel, shift=2)",
    ),
    Mutant(
        "ONNX int8: hard-swish is twice too large",
        "onnx int8",
        _ONNX8,
        "scale=above.scale / 6",
        "scale=above.scale / 3",
    ),
    Mutant(
        "ONNX int8: eps is lost",
        "onnx int8",
        _ONNX8,
        "np.sqrt(variance + np.float32(op.eps))",
        "np.sqrt(variance)",
    ),
    Mutant(
        "ONNX int8: scores are not scaled",
        "onnx int8",
        _ONNX8,
        "scale=integers.scale * op.scale",
        "scale=integers.scale",
    ),
    # -- TensorFlow Lite
    Mutant(
        "TFLite: kernels are transposed",
        "tflite",
        _TFLITE,
        '"CONV_2D": (0, 2, 3, 1)',
        '"CONV_2D": (0, 3, 2, 1)',
    ),
    Mutant(
        "TFLite: depthwise kernels are transposed",
        "tflite",
        _TFLITE,
        '"DEPTHWISE_CONV_2D": (1, 2, 3, 0)',
        '"DEPTHWISE_CONV_2D": (1, 3, 2, 0)',
    ),
    Mutant(
        "TFLite: the depth multiplier is one",
        "tflite",
        _PLAN,
        'options["multiplier"] = op.out_channels // op.groups',
        'options["multiplier"] = 1',
    ),
    Mutant(
        "TFLite: strides swapped",
        "tflite",
        _PLAN,
        '"stride_h": op.stride[0], "stride_w": op.stride[1]',
        '"stride_h": op.stride[1], "stride_w": op.stride[0]',
    ),
    Mutant(
        "TFLite: any padding is SAME",
        "tflite",
        _PLAN,
        "if op.padding == (*rows, *columns) and tuple(wanted) == ceilings:",
        "if tuple(wanted) == ceilings:",
    ),
    Mutant(
        "TFLite: relu6 becomes relu",
        "tflite",
        "backends/tflite_ops.py",
        '"relu6": 3}',
        '"relu6": 1}',
    ),
    Mutant(
        "TFLite: the hard sigmoid's sixth",
        "tflite",
        _PLAN,
        "p.times(six, 1 / 6, node.name)",
        "p.times(six, 1 / 3, node.name)",
    ),
    Mutant(
        "TFLite: the gate's factor is forgotten",
        "tflite",
        _PLAN,
        "_times(weight, factor / p.factor(p.values[source]))",
        "_times(weight, factor)",
    ),
    Mutant(
        "TFLite: attention's norm without its mean",
        "tflite",
        _PLAN,
        "_affine(p, node, scale, beta - mean * scale)",
        "_affine(p, node, scale, beta)",
    ),
    Mutant(
        "TFLite: attention's norm without eps",
        "tflite",
        _PLAN,
        "gamma / np.sqrt(variance + op.eps)",
        "gamma / np.sqrt(variance)",
    ),
    Mutant(
        "TFLite: attention's scale counts twice",
        "tflite",
        _PLAN,
        "rest = op.scale / math.prod(map(p.factor, values))",
        "rest = op.scale",
    ),
    Mutant(
        "TFLite: biases are lost",
        "tflite",
        _PLAN,
        'bias = p.parameter(node, "bias") if own else zeros',
        "bias = zeros",
    ),
    Mutant(
        "TFLite: softmax at another temperature",
        "tflite",
        _PLAN,
        '{"beta": 1.0}',
        '{"beta": 0.5}',
    ),
    # -- TensorFlow Lite in 8 bits, and the integers of both
    Mutant(
        "TFLite int8: scales along the wrong axis",
        "tflite int8",
        _TFLITE,
        "Quantization(scale, zeros, layout.index(0))",
        "Quantization(scale, zeros, len(layout) - 1 - layout.index(0))",
    ),
    Mutant(
        "TFLite int8: zero points have the wrong sign",
        "tflite int8",
        _TFLITE,
        "scale = self.scales[value]\n            "
        "quantization = Quantization((scale.scale,), (scale.zero_point,))",
        "scale = self.scales[value]\n            "
        "quantization = Quantization((scale.scale,), (-scale.zero_point,))",
    ),
    Mutant(
        "TFLite int8: biases in steps of the weights alone",
        "tflite int8",
        _TFLITE,
        "scale = (kernel.scales.astype(np.float64) * step)",
        "scale = kernel.scales.astype(np.float64)",
    ),
    Mutant(
        "TFLite int8: a gate of 255 steps",
        "tflite int8",
        "backends/tflite_scales.py",
        "SIGMOID = Scale(1 / 256, -128)",
        "SIGMOID = Scale(1 / 255, -128)",
    ),
    Mutant(
        "a zero point has the wrong sign",
        "quantisation",
        _SCHEME,
        "round(-128 - low / scale)",
        "round(-128 + low / scale)",
    ),
    Mutant(
        "one scale for all channels",
        "quantisation",
        _SCHEME,
        "np.abs(flat).max(axis=1).astype(np.float64) / 127",
        "np.full(len(flat), np.abs(flat).max()).astype(np.float64) / 127",
    ),
    Mutant(
        "integers are cut off instead of rounded",
        "quantisation",
        _SCHEME,
        "np.rint(weight / rounded",
        "np.trunc(weight / rounded",
    ),
    Mutant(
        "biases do not know of the input's scale",
        "quantisation",
        _SCHEME,
        "steps = rounded.astype(np.float64) * input_scale",
        "steps = rounded.astype(np.float64)",
    ),
    Mutant(
        "ranges are the last image's",
        "quantisation",
        "archdsl/quantization/ranges.py",
        "extremes[name] = min(low, least), max(high, largest)",
        "extremes[name] = min(0.0, least), max(0.0, largest)",
    ),
    # -- weights
    Mutant(
        "Keras' kernels are transposed",
        "weights",
        _KERAS,
        "axes = (3, 2, 0, 1)",
        "axes = (3, 2, 1, 0)",
    ),
    Mutant(
        "Keras' depthwise kernels are transposed",
        "weights",
        _KERAS,
        "axes = (2, 3, 0, 1)",
        "axes = (2, 3, 1, 0)",
    ),
    Mutant(
        "a bias before a norm has the wrong sign",
        "weights",
        "archdsl/weights/importing.py",
        "(mean - bias)",
        "(mean + bias)",
    ),
    Mutant(
        "norms without a scale get zero",
        "weights",
        "archdsl/weights/importing.py",
        '(np.ones if role == "weight" else np.zeros)',
        "np.zeros",
    ),
    Mutant(
        "layers are matched in the file's order",
        "weights",
        "archdsl/weights/matching.py",
        "sorted(theirs, key=lambda layer: order[layer.path])",
        "list(theirs)",
    ),
    Mutant(
        "bfloat16 is shifted by a byte",
        "weights",
        "archdsl/weights/tensors.py",
        "<< 16",
        "<< 8",
    ),
    Mutant(
        "initial weights do not know of groups",
        "weights",
        "archdsl/weights/initial.py",
        "math.prod(op.kernel) * op.out_channels // op.groups",
        "math.prod(op.kernel) * op.out_channels",
    ),
    # -- latency
    Mutant(
        "compute and memory always overlap",
        "latency",
        "archdsl/roofline/model.py",
        "busy = larger + (1.0 - self.overlap) * smaller",
        "busy = larger",
    ),
    Mutant(
        "the ridge point is upside down",
        "latency",
        "archdsl/roofline/model.py",
        "return self.peak_macs / self.bandwidth",
        "return self.bandwidth / self.peak_macs",
    ),
)
