"""What goes into and comes out of an artefact that is a graph of tensors, and what it is called."""

from __future__ import annotations

from archdsl.backend import OUTPUT, Job
from archdsl.ir.graph import Graph
from archdsl.ir.ops import Input
from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted

IMAGE = "image"
"""The name of an artefact's input."""


def outputs(job: Job, graph: Graph) -> dict[str, str]:
    """The names of a job's outputs, and the nodes of the (folded) graph whose values they are.

    Raises:
        ArchError: E0503 for feature maps whose names other tensors have.
    """
    taken = [name for name in job.options.features if name in (OUTPUT, IMAGE)]
    if taken:
        raise ArchError(
            Diagnostic(
                "E0503",
                f"the feature map of the stage {quoted(name)} cannot have its name: the artefact "
                "has another tensor of that name",
                None,
                "rename the stage",
            )
            for name in taken
        )
    found = {OUTPUT: graph.output}
    found |= {stage: graph.features[stage] for stage in job.options.features}
    if job.options.layers:
        found |= {node.name: node.name for node in graph if not isinstance(node.op, Input)}
    return found
