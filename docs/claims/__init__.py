"""The claims of the MobileNet papers, computed: docs/claims.md is written from here.

A module has the claims of a paper, or of what several say; `page` has what a claim is.
"""

from __future__ import annotations

import re
from functools import cache

from claims import (
    mnasnet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    mobilenet_v4,
    ridge_points,
    sizes,
)
from claims.page import Claim, table

_PARTS = {
    "MobileNetV1": mobilenet_v1.claims,
    "MobileNetV2": mobilenet_v2.claims,
    "MnasNet": mnasnet.claims,
    "MobileNetV3": mobilenet_v3.claims,
    "MobileNetV4": mobilenet_v4.claims,
    "What each ridge point prefers": ridge_points.claims,
    "Printed sizes": sizes.claims,
}


@cache
def claims() -> dict[str, tuple[Claim, ...]]:
    """Every claim, by the part of the page that it stands in."""
    return {title: tuple(made()) for title, made in _PARTS.items()}


def claim(name: str) -> Claim:
    """The claim of a name."""
    (found,) = [one for part in claims().values() for one in part if one.name == name]
    return found


def verdicts() -> str:
    """A table of all claims with their verdicts."""
    rows = [
        (f"[{one.title}](#{_anchor(one.title)})", one.paper.title, one.headline, one.verdict)
        for part in claims().values()
        for one in part
    ]
    return table(("claim", "of", "which says", "verdict"), rows, "llll")


def sections() -> str:
    """All claims in full."""
    return "\n".join(
        f"## {title}\n\n" + "\n".join(one.section() for one in part)
        for title, part in claims().items()
    )


def _anchor(title: str) -> str:
    """The anchor of a heading; headings are plain words."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
