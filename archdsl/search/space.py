"""A search space: its decisions, its members, and the ways from one member to another.

A member is a vector: for each choice the number of the option taken, 0 for a choice that the
others leave out. `docs/spaces.md` says what the notation means.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.compiler import Arch, beyond, parse
from archdsl.files import decode_source, read_source
from archdsl.lang.diagnostics import ArchError, Diagnostic, did_you_mean, listed, quoted
from archdsl.lang.printer import print_block, print_spec
from archdsl.lang.source import SourceText
from archdsl.lang.spec import AnyBlock, ArchSpec, Stage
from archdsl.lang.syntax import parse_file
from archdsl.limits import hint, most
from archdsl.search.identity import digest, run_tokens
from archdsl.search.paths import Edge, Node, Paths
from archdsl.search.reading import Choice, Pick, Plan, has_choices, meaning, read_plan

if TYPE_CHECKING:
    pass

Vector = tuple[int, ...]
Rng = "random.Random | np.random.Generator"


class Space:
    """All networks that a text with choices stands for. Made by `parse_space` and `load_space`.

    `choices` are its decisions in the order of the text, statements first; a vector has an index
    for each of them. `len` does not hold such numbers: `count` is exact.

    >>> space = parse_space("arch s input 8x8x3 stem { conv_k{3,5}_o16 ( k3 | k5_e{3,6} | skip ) }")
    >>> [choice.path for choice in space.choices]
    ['stem.0.k', 'stem.1', 'stem.1[2].e']
    >>> space.count
    8
    >>> list(space)[:3]
    [(0, 0, 0), (0, 1, 0), (0, 1, 1)]
    """

    def __init__(self, plan: Plan) -> None:
        self.source = plan.source
        self.choices: tuple[Choice, ...] = plan.choices
        self._places = plan.places
        self._specs: list[ArchSpec] = []
        self._paths: list[Paths] = []
        left = most("steps")
        for picks, spec in plan.members:
            paths = Paths(picks, spec.attributes, plan.places, left)
            left = paths.left
            self._specs.append(spec)
            self._paths.append(paths)
        faults = list(self._faults())
        if faults:
            raise ArchError(faults)

    def __repr__(self) -> str:
        return f"Space({self.name!r}, {len(self.choices)} choices)"

    @property
    def graphs(self) -> tuple[Paths, ...]:
        """The members as paths: a graph for each way to decide the statements."""
        return tuple(self._paths)

    @property
    def name(self) -> str:
        return self._specs[0].name

    @cached_property
    def count(self) -> int:
        """How many members there are: vectors whose text is a valid network."""
        return sum(paths.ways for paths in self._paths)

    @cached_property
    def combinations(self) -> int:
        """The product of the numbers of options: with what is left out, or not valid, counted."""
        return prod(len(choice.options) for choice in self.choices)

    # ------------------------------------------------------------------------------ its faults

    def _faults(self) -> Iterator[Diagnostic]:
        """An error for each option that no member takes."""
        for paths in self._paths:
            place = paths.stuck
            if place is not None and not any(option.picks for option in place.menu.options):
                # A block without a choice that fits nowhere: what is said of it in a network.
                failure = next(n.failure for n in paths.levels[-2] if n.failure)
                option, problem = failure
                span = (option.fields or {}).get(problem.field or "", option.span)
                yield Diagnostic(problem.code, problem.message, span, problem.help)
                return
        live: set[Pick] = set()
        for paths in self._paths:
            if paths.ways:
                live.update(paths.picks)
                live.update(paths.within({}).live())
        dead = [
            (column, index)
            for column, choice in enumerate(self.choices)
            for index in range(len(choice.options))
            if (column, index) not in live
        ]
        if not live and dead:
            stuck = {
                pick
                for paths in self._paths
                if paths.stuck
                for option in paths.stuck.menu.options
                for pick in option.picks
            }
            dead = [pick for pick in dead if pick in stuck] or dead
        for column, index in dead:
            choice = self.choices[column]
            yield Diagnostic(
                "E1001",
                f"no network of this space can have {quoted(choice.options[index])}",
                choice.spans[index],
                self._why((column, index)),
            )

        if not dead:
            yield from self._too_large()

    def _too_large(self) -> Iterator[Diagnostic]:
        """An error where the largest members are beyond the limits of networks."""
        for paths in self._paths:
            if paths.ways:
                total, operators, blocks = paths.largest()
                fault = beyond(total, operators)
                if blocks > most("blocks"):
                    fault = f"the network has more than {most('blocks'):,} blocks", hint("blocks")
                if fault is not None:
                    message = f"the largest networks of this space are too large: {fault[0]}"
                    span = self._places[-1].menu.options[0].span
                    yield Diagnostic("E0110", message, span, fault[1])
                    return

    def _why(self, pick: Pick) -> str | None:
        """What would be said of a network that has an option."""
        for paths in self._paths:
            reason = paths.why(pick)
            if reason is not None:
                option, problem = reason
                where = ""
                span = (option.fields or {}).get(problem.field or "", option.span)
                if span is not None and pick not in option.picks:
                    where = f" ({span.text}, line {span.source.position(span.start)[0]})"
                return f"{problem.message}{where}"
        return None

    # ------------------------------------------------------------------------------ members

    def __iter__(self) -> Iterator[Vector]:
        """All members, in the order of their vectors, made one at a time."""
        for paths in self._paths:
            for path in paths.members():
                yield self.vector_along(paths, path)

    def __contains__(self, vector: object) -> bool:
        try:
            return self._find(vector) is not None  # type: ignore[arg-type]
        except ValueError:
            return False

    def vector_along(self, paths: Paths, path: Iterable[Edge]) -> Vector:
        """The vector of the member that is a path through one of the graphs."""
        vector = [0] * len(self.choices)
        for column, index in paths.picks:
            vector[column] = index
        for edge in path:
            for column, index in edge.option.picks:
                vector[column] = index
        return tuple(vector)

    def _find(self, vector: Sequence[int]) -> tuple[int, list[Edge]] | None:
        """The number of the file-level statements of a member, and its path."""
        taken = tuple(int(index) for index in vector)
        if len(taken) != len(self.choices):
            raise ValueError(f"a vector of this space has {len(self.choices)} indices")
        for number, paths in enumerate(self._paths):
            if all(taken[column] == index for column, index in paths.picks):
                path = paths.follow(taken)
                if path is not None and self.vector_along(paths, path) == taken:
                    return number, path
        return None

    def path_of(self, vector: Sequence[int]) -> tuple[Paths, list[Edge]]:
        """A member's graph, and its path there: an edge for each level.

        Raises:
            ValueError: it is no member's vector.
        """
        number, path = self._member(vector)
        return self._paths[number], path

    def _member(self, vector: Sequence[int]) -> tuple[int, list[Edge]]:
        found = self._find(vector)
        if found is None:
            raise ValueError("no member of this space has this vector")
        return found

    def member(self, number: int) -> Vector:
        """The member of a number from 0, in the order of the vectors.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= number < self.count:
            raise IndexError(f"the space has {self.count:,} members")
        for paths in self._paths:
            if number < paths.ways:
                return self.vector_along(paths, paths.member(number))
            number -= paths.ways
        raise AssertionError("the numbers of members add up")

    def sample(self, rng: Any) -> Vector:
        """A member, all with the same chance.

        `rng` is a `random.Random` or a `numpy.random.Generator`.
        """
        return self.member(_below(rng, self.count))

    def active(self, vector: Sequence[int]) -> tuple[int, ...]:
        """The numbers of the choices that a member decides; the others are left out by these.

        Raises:
            ValueError: it is no member's vector.
        """
        return tuple(sorted(self._taken(vector)))

    def _taken(self, vector: Sequence[int]) -> dict[int, int]:
        number, path = self._member(vector)
        taken = dict(self._paths[number].picks)
        for edge in path:
            taken.update(edge.option.picks)
        return taken

    # ------------------------------------------------------------------------------ texts

    def spec_of(self, vector: Sequence[int], name: str | None = None) -> ArchSpec:
        """A member's specification, under the space's name or another.

        Raises:
            ValueError: it is no member's vector.
        """
        number, path = self._member(vector)
        spec, paths = self._specs[number], self._paths[number]
        sections: dict[str, list[AnyBlock]] = {}
        for place, edge in zip(paths.places, path, strict=True):
            blocks = sections.setdefault(place.section, [])
            if edge.option.block is not None:
                blocks.append(edge.option.block)  # type: ignore[arg-type]
        stages = [
            Stage.model_construct(name=stage.name, blocks=tuple(sections[path]))
            for stage, (path, _) in zip(
                spec.stages,
                ((p, b) for p, b in spec.sections() if p.startswith("stages.")),
                strict=True,
            )
        ]
        update = {
            "name": name or spec.name,
            "stem": tuple(sections.get("stem", ())),
            "stages": tuple(stages),
            "head": tuple(sections.get("head", ())),
        }
        return spec.model_copy(update=update)

    def text_of(self, vector: Sequence[int], name: str | None = None) -> str:
        """A member as the text of a `.arch` file, in canonical form.

        Raises:
            ValueError: it is no member's vector.
        """
        return print_spec(self.spec_of(vector, name))

    def arch_of(self, vector: Sequence[int], name: str | None = None) -> Arch:
        """A member as a checked architecture.

        Raises:
            ValueError: it is no member's vector.
        """
        return parse(SourceText("<member>", self.text_of(vector, name)))

    def hash_of(self, vector: Sequence[int]) -> str:
        """The member's `canonical_hash`: that of every vector and text of the same network.

        Raises:
            ValueError: it is no member's vector.
        """
        number, path = self._member(vector)
        words = (word for edge in path if edge.run for word in run_tokens(edge.run))
        return digest(self._paths[number].attributes.input, words)

    def encode(self, network: Arch | str | SourceText) -> Vector:
        """The vector of a network, or of its text.

        A text that is written as this space writes it has the vector that it was made of. Any
        other has the first vector, in their order, whose network is the same (`canonical_hash`).

        Raises:
            ArchError: the text has errors, or its network is not in the space (E1005).
        """
        arch = network if isinstance(network, Arch) else parse(network)
        written = [(item.section, meaning(item.run.block)) for item in arch.placed]
        for paths in self._paths:
            if paths.attributes == arch.attributes:
                path, _ = _match(paths, written, _written)
                if path is not None:
                    return self.vector_along(paths, path)
        operators = [word for item in arch.placed for word in run_tokens(item.run)]
        reached, nearest = -1, None
        for paths in self._paths:
            if paths.attributes.input != arch.input:
                continue
            memo: dict[int, tuple[str, ...]] = {}

            def lowered(paths: Paths, level: int, edge: Edge) -> tuple[object, ...]:
                if edge.run is None:
                    return ()
                found = memo.get(id(edge.run))  # noqa: B023
                if found is None:
                    found = memo[id(edge.run)] = run_tokens(edge.run)  # noqa: B023
                return found

            path, far = _match(paths, operators, lowered)
            if path is not None:
                return self.vector_along(paths, path)
            if far > reached:
                reached, nearest = far, paths
        raise ArchError([self._outside(arch, reached, nearest)])

    def _outside(self, arch: Arch, reached: int, nearest: Paths | None) -> Diagnostic:
        """Where a network leaves the space."""
        if nearest is None:
            sizes = sorted({paths.attributes.input for paths in self._paths})
            shown = listed(["x".join(map(str, size)) for size in sizes[:8]], "or")
            statements = arch.origins.statements("input")
            value = statements[0].value if statements else None
            span = arch.origins.span(value) if value is not None else None
            message = f"`{self.name}` has no network for images of {'x'.join(map(str, arch.input))}"
            return Diagnostic("E1005", message, span, f"its networks take {shown}")
        count = 0
        for item in arch.placed:
            count += len(run_tokens(item.run))
            if count > reached:
                break
        span = arch.origins.field(item.section, item.position, None)
        shown = quoted(print_block(item.run.block))
        message = f"up to {shown} this is a network of `{self.name}`, and with it no longer"
        if count <= reached:
            message = f"`{self.name}` has longer networks that begin as this one, but not this one"
        return Diagnostic("E1005", message, span)

    # ------------------------------------------------------------------------------ moving about

    def neighbours(self, vector: Sequence[int]) -> Iterator[Vector]:
        """All members whose vectors differ from this one in a single index, in their order of it.

        Raises:
            ValueError: it is no member's vector.
        """
        taken = self._taken(vector)
        whole = tuple(int(index) for index in vector)
        for column in sorted(taken):
            for index in range(len(self.choices[column].options)):
                other = (*whole[:column], index, *whole[column + 1 :])
                if other != whole and other in self:
                    yield other

    def mutate(self, vector: Sequence[int], rng: Any) -> Vector:
        """A member with one decision changed.

        The choice and its new option are drawn until there are members with it that keep all
        other decisions; what becomes open by it is drawn from these members, all with the same
        chance. A member that stands alone is given back.

        Raises:
            ValueError: it is no member's vector.
        """
        taken = self._taken(vector)
        moves = [
            (column, index)
            for column in sorted(taken)
            for index in range(len(self.choices[column].options))
            if index != taken[column]
        ]
        while moves:
            column, index = moves.pop(_below(rng, len(moves)))
            found = self._draw({c: {i} for c, i in taken.items()} | {column: {index}}, rng)
            if found is not None:
                return found
        return tuple(int(index) for index in vector)

    def crossover(self, one: Sequence[int], other: Sequence[int], rng: Any) -> Vector:
        """A member that takes every decision as one or the other does, all with the same chance.

        What neither of them decides is free.

        Raises:
            ValueError: one of them is no member's vector.
        """
        allowed: dict[int, set[int]] = {}
        for parent in (one, other):
            for column, index in self._taken(parent).items():
                allowed.setdefault(column, set()).add(index)
        found = self._draw(allowed, rng)
        assert found is not None, "the parents are among these members"
        return found

    def _draw(self, allowed: Mapping[int, set[int]], rng: Any) -> Vector | None:
        """One of the members that keep to some options, all with the same chance."""
        parts = [(paths, paths.within(allowed)) for paths in self._paths]
        total = sum(part.ways for _, part in parts)
        if not total:
            return None
        number = _below(rng, total)
        for paths, part in parts:
            if number < part.ways:
                return self.vector_along(paths, part.member(number))
            number -= part.ways
        raise AssertionError("the numbers of members add up")

    def excluded(self) -> dict[Pick, tuple[Pick, ...]]:
        """For each option the options of other choices that no member has together with it.

        What an alternative leaves out, since its choices stand inside another one, is not listed.
        """
        live = [frozenset(paths.within({}).live()) | set(paths.picks) for paths in self._paths]
        everything = frozenset().union(*live)
        found: dict[Pick, tuple[Pick, ...]] = {}
        if self._everything_fits():
            return found
        for pick in sorted(everything):
            column, index = pick
            together: set[Pick] = set()
            for paths in self._paths:
                part = paths.within({column: {index}})
                if part.ways:
                    together.update(part.live(), paths.picks)
            inside = {c for c, _ in together}
            found[pick] = tuple(
                other
                for other in sorted(everything - together)
                if other[0] != column and other[0] in inside
            )
        return {pick: others for pick, others in found.items() if others}

    def _everything_fits(self) -> bool:
        """Whether every way to decide is a member."""
        total = len(self._paths)
        for place in self._places:
            menus = {place.menu, *(m for option in place.menu.options for m in option.layers)}
            if any(menu.refused for menu in menus):
                return False
            total *= sum(
                prod(len(menu.options) for menu in option.layers) for option in place.menu.options
            )
        return total == self.count


def _written(paths: Paths, level: int, edge: Edge) -> tuple[object, ...]:
    block = edge.option.block
    return () if block is None else ((paths.places[level].section, meaning(block)),)


def _match(
    paths: Paths,
    wanted: Sequence[object],
    words: Callable[[Paths, int, Edge], tuple[object, ...]],
) -> tuple[list[Edge] | None, int]:
    """The first path whose edges say what is wanted, and how much of it some path says."""
    steps: list[dict[tuple[Node, int], tuple[tuple[Node, int], Edge] | None]] = []
    steps.append({(paths.start, 0): None})
    furthest = 0
    for level in range(len(paths.levels) - 1):
        following: dict[tuple[Node, int], tuple[tuple[Node, int], Edge] | None] = {}
        for key in steps[-1]:
            node, place = key
            for edge in node.edges:
                if not edge.target.ways:
                    continue
                said = words(paths, level, edge)
                if tuple(wanted[place : place + len(said)]) == said:
                    following.setdefault((edge.target, place + len(said)), (key, edge))
                    furthest = max(furthest, place + len(said))
        steps.append(following)
    end = next((key for key in steps[-1] if key[1] == len(wanted)), None)
    if end is None:
        return None, furthest
    path: list[Edge] = []
    for level in range(len(steps) - 1, 0, -1):
        back = steps[level][end]
        assert back is not None
        end, edge = back
        path.append(edge)
    return path[::-1], furthest


def _below(rng: Any, most: int) -> int:
    """A whole number from 0, below `most`, which may be larger than 64 bits."""
    if isinstance(rng, random.Random):
        return rng.randrange(most)
    bits = (most - 1).bit_length()
    while True:
        drawn = int.from_bytes(rng.bytes((bits + 7) // 8), "little") >> (-bits % 8)
        if drawn < most:
            return drawn


# ------------------------------------------------------------------------------------- reading


def is_space(text: str | SourceText) -> bool:
    """Whether a text has choices."""
    source = text if isinstance(text, SourceText) else SourceText("<string>", text)
    return has_choices(parse_file(source))


def parse_space(text: str | SourceText) -> Space:
    """Read a search space; one network is a space too, of one member.

    Raises:
        ArchError: the text has errors, or options that no member can have.
    """
    source = text if isinstance(text, SourceText) else SourceText("<string>", text)
    return Space(read_plan(source))


def shipped_spaces() -> list[str]:
    """The names of the spaces that come with archdsl."""
    folder = files("archdsl.architectures").joinpath("spaces")
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".arch") for name in names if name.endswith(".arch"))


def space_source(where: str | os.PathLike[str]) -> SourceText:
    """The text of a path, or of a shipped space.

    Raises:
        FileNotFoundError: neither a file nor a shipped space.
        OSError: the file cannot be read.
        ArchError: the file is not a text.
    """
    text = os.fspath(where)
    if text in shipped_spaces() and not Path(text).is_file():
        folder = files("archdsl.architectures").joinpath("spaces")
        return decode_source(f"{text}.arch", folder.joinpath(f"{text}.arch").read_bytes())
    if "\0" not in text and (os.sep in text or text.endswith(".arch") or Path(text).exists()):
        return read_source(where)
    guess = did_you_mean(text, shipped_spaces()) if len(text) <= 40 else None
    hint = f"did you mean {guess}?" if guess else f"shipped: {', '.join(shipped_spaces())}"
    raise FileNotFoundError(f"{text!r} is neither a file nor a search space; {hint}")


def load_space(where: str | os.PathLike[str]) -> Space:
    """Read a search space from a file, or a shipped one by its name, such as `mnasnet_space`.

    Raises:
        FileNotFoundError: neither a file nor a shipped space.
        ArchError: the text has errors, or options that no member can have.
    """
    return parse_space(space_source(where))
