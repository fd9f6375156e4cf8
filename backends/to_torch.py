"""The PyTorch backend: one source file that needs torch alone.

What a block is made of is read from its lowered operators: which layers there are, their widths,
kernels and strides. Here stands how PyTorch code says it: a constructor call for each block, and in
`templates/torch_*.py.j2` the classes that are called, with no more options than the network's
blocks use.

A user's text enters the source as a number, as a name that has been checked, or escaped inside the
docstring; the templates refuse to print anything else.
"""

from __future__ import annotations

import hashlib
import keyword
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.abc import ExecutionLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType
from typing import TYPE_CHECKING, Any

from archdsl.backend import OUTPUT, Artifact, BackendError, Emission, Job, Session
from archdsl.compiler import Arch
from archdsl.extras import needs
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.source import Span
from archdsl.lang.syntax import parse_file
from archdsl.lang.trees import Section

from .torch_code import broken, render
from .torch_network import Network
from .torch_supernet import Supernet

if TYPE_CHECKING:
    from archdsl.ir.execute import Array
    from archdsl.search.objectives import Objectives
    from archdsl.search.space import Space

    from .torch_oneshot import Winner

# The attributes of nn.ModuleDict (torch 2.10 to 2.13), which it refuses as keys.
_MODULE_DICT = frozenset(
    re.findall(
        r"\w+",
        """
        add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda double
        dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
        get_submodule half ipu items keys load_state_dict modules mtia named_buffers named_children
        named_modules named_parameters parameters pop register_backward_hook register_buffer
        register_forward_hook register_forward_pre_hook register_full_backward_hook
        register_full_backward_pre_hook register_load_state_dict_post_hook
        register_load_state_dict_pre_hook register_module register_parameter
        register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
        set_submodule share_memory state_dict to to_empty train training type update values xpu
        zero_grad
        """,
    )
)


def _stages(arch: Arch) -> Iterator[tuple[str, Span | None]]:
    """The names of an architecture's stages, with their places."""
    for stage in arch.spec.stages:
        section = arch.origins.sections.get(f"stages.{stage.name}")
        span = arch.origins.span(section.name) if section and section.name else None
        yield stage.name or "", span


def _stages_of(space: Space) -> Iterator[tuple[str, Span | None]]:
    """The same of a search space."""
    for item in parse_file(space.source).items:
        if isinstance(item, Section) and item.name is not None:
            name = item.name
            yield name.text, Span(space.source, name.start, name.start + len(name.text))


def _refuse(stages: Iterable[tuple[str, Span | None]]) -> None:
    """Report every stage whose name cannot be one in PyTorch."""
    diagnostics = []
    for name, span in stages:
        if name in _MODULE_DICT:
            why = "nn.ModuleDict, which holds the stages, has an attribute of that name"
        elif keyword.iskeyword(name):
            why = "it is a word of Python, and torch.export writes the names of stages as Python"
        elif name == "torch":
            why = "TorchScript keeps that name for itself"
        else:
            continue
        message = f"a PyTorch module cannot have a stage `{name}`: {why}"
        diagnostics.append(Diagnostic("E0702", message, span, "rename the stage"))
    if diagnostics:
        raise ArchError(diagnostics)


class TorchBackend:
    """Writes a network as PyTorch source, and loads it."""

    suffix = ".py"
    runtime = "torch"
    dtypes = ("float32",)

    def emit(self, job: Job) -> Emission:
        """The source of a module that defines the network under its own name and as `Model`.

        Weights that were given lie beside it, as safetensors under the module's own name.

        Raises:
            ArchError: stages have names that a PyTorch module cannot have; weights do not fit.
        """
        _refuse(_stages(job.arch))
        network = Network(job.arch)
        body = render("torch_network.py.j2", network.body())
        body = "\n".join(broken(line) for line in body.split("\n"))
        source = render("torch_module.py.j2", network.frame(body)).encode()
        if job.given is None:
            return Emission(source)
        from archdsl.weights.tensors import safetensors

        name = f"{job.filename.removesuffix(self.suffix)}.safetensors"
        return Emission(source, {name: safetensors(job.weights)})

    def supernet(self, space: Space) -> Supernet:
        """All networks of a space in one module, with shared weights.

        Raises:
            ArchError: stages have names that a PyTorch module cannot have; it is too large.
        """
        _refuse(_stages_of(space))
        return Supernet(space)

    def oneshot(
        self,
        space: Space,
        data: str,
        objectives: Objectives | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        watch: Callable[[int, int], None] | None = None,
    ) -> Winner:
        """Search a space by training its supernet: see `torch_oneshot.search`.

        Raises:
            BackendError: PyTorch is not installed.
        """
        import_torch()
        from .torch_oneshot import Settings, search

        chosen = Settings(**(settings or {}))
        return search(space, data, objectives, chosen, folder=folder, watch=watch)

    def load(self, artifact: Artifact) -> Any:
        """The network with the job's weights, ready for inference (`eval()`).

        PyTorch's own random state stays as it was. Equal artefacts share a module in `sys.modules`,
        where TorchScript and tracebacks find its lines.

        Raises:
            BackendError: PyTorch is not installed.
        """
        torch = import_torch()
        model = executed(artifact.arch.name, artifact.data).Model
        with torch.random.fork_rng(devices=()):
            network = model()
        weights = artifact.job.weights
        network.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
        return network.eval()

    def session(self, artifact: Artifact) -> Session:
        """The network in PyTorch, on one thread while it runs.

        Raises:
            BackendError: PyTorch is not installed.
        """
        return _Session(artifact)


def import_torch() -> Any:
    """PyTorch.

    Raises:
        BackendError: it is not installed.
    """
    with needs("torch", "PyTorch cannot be imported", BackendError):
        import torch
    return torch


class _Session:
    """An emitted module and what its results are called."""

    def __init__(self, artifact: Artifact) -> None:
        self._torch = import_torch()
        self._options = artifact.job.options
        self._network = artifact.load()
        self._seen: dict[str, Any] = {}
        if self._options.layers:
            nodes = {node.name for node in artifact.job.graph}
            for name, module in self._network.named_modules():
                if name in nodes:
                    module.register_forward_hook(self._keeper(name))

    def _keeper(self, name: str) -> Any:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            self._seen[name] = output

        return keep

    def feed(self, images: Array) -> Any:
        return self._torch.tensor(images).movedim(-1, 1).contiguous()

    def run(self, fed: Any) -> Any:
        threads = self._torch.get_num_threads()
        self._torch.set_num_threads(1)
        try:
            return self._run(fed)
        finally:
            self._torch.set_num_threads(threads)

    def _run(self, fed: Any) -> Any:
        with self._torch.inference_mode():
            results = {OUTPUT: self._network(fed)}
            if self._options.features:
                maps = self._network.forward_features(fed)
                results.update({name: maps[name] for name in self._options.features})
            return {**self._seen, **results}

    def values(self, results: Any) -> dict[str, Array]:
        return {
            name: (value.movedim(1, -1) if value.ndim == 4 else value).numpy()
            for name, value in results.items()
        }


_KEPT = 256
"""Modules that are kept; a search may load thousands."""

_loaded: dict[str, ModuleType] = {}


class _EmittedLoader(ExecutionLoader):
    """Gives the import system, and through it `inspect`, the source of an emitted module."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_filename(self, fullname: str) -> str:
        # There is no such file, and each source has a name of its own, as linecache needs it.
        return f"<archdsl>/{fullname}.py"

    def get_source(self, fullname: str) -> str:
        return self.source

    def is_package(self, fullname: str) -> bool:
        return False


def executed(name: str, data: bytes) -> ModuleType:
    """The module that emitted source defines; the oldest gives way where there are many."""
    key = f"_archdsl_{name}_{hashlib.sha256(data).hexdigest()[:16]}"
    if key not in _loaded:
        loader = _EmittedLoader(data.decode())
        spec = spec_from_loader(key, loader, origin=loader.get_filename(key))
        assert spec is not None
        module = module_from_spec(spec)
        loader.exec_module(module)
        sys.modules[key] = _loaded[key] = module
        if len(_loaded) > _KEPT:
            oldest = next(iter(_loaded))
            del _loaded[oldest], sys.modules[oldest]
    return _loaded[key]
