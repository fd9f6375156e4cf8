"""Figures by matplotlib, which is loaded here alone: a canvas, a palette, and files.

The same input gives the same bytes: no date, no version, and SVG ids from a fixed salt.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

from archdsl.extras import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png", ".html")

# Colours that the colour-blind tell apart: Okabe and Ito, https://jfly.uni-koeln.de/color/
BLACK, GREY = "#222222", "#999999"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, RED, PINK = "#0072B2", "#D55E00", "#CC79A7"

BOUNDS = {"compute": RED, "memory": BLUE, "overhead": GREY}
CLASSES = {
    "pointwise": (BLUE, "o"),
    "depthwise": (ORANGE, "s"),
    "conv": (RED, "^"),
    "linear": (GREEN, "D"),
    "attention": (PINK, "P"),
    "elementwise": (GREY, "X"),
}

_STYLE: dict[str, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": BLACK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.hashsalt": "archdsl",
    "svg.fonttype": "path",
    "path.simplify": False,
}


class style:
    """Within it, matplotlib draws as archdsl's figures do, whatever the user's settings.

    Raises:
        ImportError: matplotlib is missing; the message names the install line.
    """

    def __enter__(self) -> None:
        with needs("plot", "matplotlib cannot be imported"):
            import matplotlib

        self._context = matplotlib.rc_context()
        self._context.__enter__()
        matplotlib.rcdefaults()
        for name, value in _STYLE.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]

    def __exit__(self, *failure: Any) -> None:
        self._context.__exit__(*failure)


def canvas(width: float, height: float) -> Figure:
    """An empty figure; inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure, suffix: str, title: str) -> bytes:
    """The file of a figure: `.svg`, `.png` at 200 dots an inch, or `.html` with the SVG inside."""
    data = io.BytesIO()
    if suffix == ".png":
        figure.savefig(data, format="png", dpi=200, metadata={"Software": None})
        return data.getvalue()
    metadata = {"Date": None, "Creator": None, "Title": title}
    figure.savefig(data, format="svg", metadata=metadata)
    text = _renamed(data.getvalue().decode("utf-8"))
    if suffix == ".svg":
        return text.encode("utf-8")
    drawing = text[text.index("<svg") :]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        "<style>body { margin: 2em auto; max-width: 70em } "
        "svg { width: 100%; height: auto }</style>\n"
        f"</head>\n<body>\n{drawing}</body>\n</html>\n"
    )
    return page.encode("utf-8")


def _renamed(text: str) -> str:
    """An SVG with its hashed ids numbered in their order: some are hashes of memory addresses."""
    names = dict.fromkeys(re.findall(r'\bid="([a-z][0-9a-f]{10})"', text))
    numbers = {name: f"x{number}" for number, name in enumerate(names)}
    return re.sub(r"\b[a-z][0-9a-f]{10}\b", lambda m: numbers.get(m[0], m[0]), text)


def plain(axis: Axis, steps: tuple[float, ...] = (1,)) -> None:
    """Ticks of a logarithmic axis at these multiples of powers of ten, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, subs=steps, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axis.set_minor_formatter(NullFormatter())


def note(
    axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], align: str
) -> Any:
    """A small text beside a point, readable over lines; the offset is in points."""
    from matplotlib.patheffects import withStroke

    return axes.annotate(
        text,
        point,
        offset,
        textcoords="offset points",
        ha=align,
        va="center",
        fontsize=6.5,
        color=BLACK,
        path_effects=[withStroke(linewidth=1.8, foreground="white")],
    )


def spread(
    axes: Axes, labels: list[tuple[float, float, str]], marks: list[tuple[float, float]]
) -> None:
    """Write a label beside each (x, y), the first first, clear of marks and other labels.

    A label that has no room is left out.
    """
    from matplotlib.transforms import Bbox

    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    radius = figure.dpi / 72 * 2.5
    taken = []
    for x, y in axes.transData.transform(marks) if marks else ():
        taken.append(Bbox.from_extents(x - radius, y - radius, x + radius, y + radius))
    frame = axes.get_window_extent(renderer)
    for x, y, label in labels:
        for dx, dy, align in _OFFSETS:
            written = note(axes, label, (x, y), (dx, dy), align)
            box = written.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
            inside = inside and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box.expanded(1.02, 1.1))
                break
            written.remove()


_OFFSETS: tuple[tuple[float, float, str], ...] = (
    (0, 8, "center"),
    (6, 0, "left"),
    (-6, 0, "right"),
    (0, -8, "center"),
    (5, 6, "left"),
    (-5, 6, "right"),
    (5, -7, "left"),
    (-5, -7, "right"),
    (0, 16, "center"),
    (10, 12, "left"),
    (-10, 12, "right"),
    (0, -16, "center"),
)
