"""No text of a file changes what the emitted Python does, nor where a file is written."""

from __future__ import annotations

import ast
import builtins
import json
import keyword
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import archdsl
from archdsl.cli.program import program
from archdsl.dialects import read
from archdsl.lang.diagnostics import ArchError
from archdsl.lang.dialects.json import read_json
from archdsl.lang.source import SourceText
from archdsl.library import networks
from archdsl.testing import architectures

# ------------------------------------------------------------------- what emitted source is made of

KINDS = {
    *("Module", "Expr", "Constant", "ImportFrom", "Import", "alias", "ClassDef", "FunctionDef"),
    *("arguments", "arg", "Return", "Assign", "AnnAssign", "Name", "Load", "Store", "Attribute"),
    *("Subscript", "Tuple", "Dict", "ListComp", "GeneratorExp", "comprehension", "Starred"),
    *("Call", "keyword", "If", "IfExp", "For", "Compare", "Eq", "IsNot", "NotEq", "BoolOp", "Or"),
    *("And", "UnaryOp", "Not", "USub", "BinOp", "Add", "Sub", "Mult", "Div", "FloorDiv", "BitOr"),
}
"""The kinds of nodes in its syntax tree: no `exec`, no `lambda`, no `global`, no walrus."""

BUILTINS = {
    *("int", "bool", "str", "tuple", "dict", "type", "super", "isinstance"),
    *("range", "len", "max", "enumerate"),
}
"""What it takes from Python: nothing that opens, runs or looks up by name."""

SPECIAL = {"__init__"}

OF_SUPERNETS = {
    *("DictComp", "Slice", "Try", "ExceptHandler", "Raise", "JoinedStr", "FormattedValue"),
    *("LtE", "Lt", "Pow", "ValueError", "KeyError", "zip", "list", "collections", "typing"),
    *("Is", "List"),
}
"""What the source of a supernet has beside."""


def bound(tree: ast.AST) -> set[str]:
    """The names that a source makes itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def harmless(source: bytes | str, more: set[str] | None = None) -> ast.Module:
    """The syntax tree of an emitted source, which holds nothing but what networks are made of."""
    tree = ast.parse(source)
    more = more or set()
    own = bound(tree) | more
    for node in ast.walk(tree):
        assert type(node).__name__ in KINDS | more, ast.dump(node)[:200]
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            assert node.id in own | BUILTINS, node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else node.names
            modules = {n if isinstance(n, str) else n.name for n in names}
            assert {str(m).partition(".")[0] for m in modules} <= {"torch", "math"} | more, modules
        elif isinstance(node, ast.Attribute | ast.FunctionDef):
            name = node.attr if isinstance(node, ast.Attribute) else node.name
            assert not name.startswith("__") or name in SPECIAL, name
    return tree


def emitted(arch: archdsl.Arch) -> bytes:
    return archdsl.compile(arch, to="torch").data


def code(source: bytes | str) -> str:
    """All of a source that runs: its tree without the docstring at its top."""
    return ast.dump(ast.Module(harmless(source).body[1:], []))


def test_published_networks_are_made_of_allowed_nodes() -> None:
    seen = set()
    for arch in networks():
        tree = harmless(emitted(arch))
        seen |= {type(node).__name__ for node in ast.walk(tree)}
    # Nothing is allowed that none of them needs, but what random ones do.
    assert {"Or"} >= KINDS - seen


@given(architectures())
@settings(max_examples=30, deadline=None)
def test_random_networks_are_made_of_allowed_nodes(arch: archdsl.Arch) -> None:
    harmless(emitted(arch))


def test_the_check_sees_what_is_not_allowed() -> None:
    for planted in (
        "import os",
        "from torch import x\n__import__('os')",
        "eval('1')",
        "x = lambda: 1",
        "().__class__",
        "open('f')",
        "exec('1')",
        "import torch.os, sys",
    ):
        with pytest.raises(AssertionError):
            harmless(planted)


# ------------------------------------------------------------------------- texts that are hostile

HOSTILE = [
    '""" + __import__("os").abort() + """',
    "''' ; import os; os.abort() #",
    "\\",
    '\\"',
    "{{ 7 * 7 }}{% include 'x' %}{# #}",
    "${x} %s {0} {x!r:>{y}}",
    "a\nimport os\nos.abort()",
    "a\r\nimport os",
    "a\u2028import os",
    "\x85import os\x0c\x0b\x1c",
    "__class__",
    "__import__('os')",
    "\uff43\uff4c\uff41\uff53\uff53",  # fullwidth letters, which Python takes for `class`
    "\u0441lass",  # a Cyrillic letter
    "\u202eevil\u2066",
    "\0",
    "\x1b[2J",
    "../../etc/passwd",
    "/tmp/evil",
    "..\\..\\evil",
    "CON",
    "a/b",
    "~/x",
    "-o",
    "$(touch x)",
    "`touch x`",
    "; touch x",
    "x" * 5000,
    "",
    " ",
    *("class", "None", "lambda", "exec", "__init__", "torch", "nn", "Model"),
]
BODY = "input 8x8x3 stage c1 { conv_o8 } head { pool fc_o4 }"
PLACES = {
    "name": "arch @ " + BODY,
    "title": 'arch net source "@" ' + BODY,
    "comment": "arch net # @\n" + BODY,
    "comment in a block": "arch net " + BODY.replace("conv", "# @\nconv"),
    "stage": "arch net " + BODY.replace("c1", "@"),
    "block": "arch net " + BODY.replace("conv_o8", "@"),
    "activation": "arch net act @ " + BODY,
    "published": f'arch net {BODY} published params=1 source="@"',
    "fact": f'arch net {BODY} published note="@"',
    "fact's name": f"arch net {BODY} published @=1",
    "variant": f"arch net {BODY} variant @ {{ width=1 }}",
    "number": "arch net width @ " + BODY,
}


@cache
def plain() -> str:
    return code(emitted(archdsl.parse("arch net " + BODY)))


OPEN = "input ( 8x8x3 | 16x16x3 ) stage c1 { ( conv_o8 | k{3,5}_o8 ) } head { pool fc_o4 }"
OPEN_PLACES = {
    "name": "arch @ " + OPEN,
    "title": 'arch net source "@" ' + OPEN,
    "comment": "arch net # @\n" + OPEN,
    "published": 'arch net published "@" { params 1 } ' + OPEN,
    "stage": "arch net " + OPEN.replace("c1", "@"),
    "alternative": "arch net " + OPEN.replace("conv_o8", "@"),
    "field": "arch net " + OPEN.replace("3,5", "3,@"),
    "statement": "arch net " + OPEN.replace("16x16x3", "@"),
    "activation": "arch net act ( relu | @ ) " + OPEN,
}


def supernet(text: str) -> ast.Module:
    return harmless(archdsl.compile_supernet(archdsl.parse_space(text)).source, OF_SUPERNETS)


@pytest.mark.parametrize("place", OPEN_PLACES)
@pytest.mark.parametrize("words", HOSTILE, ids=lambda words: ascii(words)[:30])
def test_hostile_words_of_a_space_are_refused_or_harmless(place: str, words: str) -> None:
    try:
        tree = supernet(OPEN_PLACES[place].replace("@", words))
    except ArchError as error:
        assert error.diagnostics
        return
    if place in ("title", "published"):
        same = supernet(OPEN_PLACES["name"].replace("@", "net"))
        assert ast.dump(ast.Module(tree.body[1:], [])) == ast.dump(ast.Module(same.body[1:], []))


@pytest.mark.parametrize("name", ["mnv4_fine_m", "ofa_mnv3", "proxylessnas_space"])
def test_supernets_are_made_of_allowed_nodes(name: str) -> None:
    source = archdsl.compile_supernet(archdsl.load_space(name)).source
    harmless(source, OF_SUPERNETS)
    with pytest.raises(AssertionError):
        harmless(source + "\nopen('f')", OF_SUPERNETS)


def variants_of(arch: archdsl.Arch) -> Iterator[archdsl.Arch]:
    yield arch
    for variant in arch.spec.variants:
        yield archdsl.parse(arch.to_text(), variant=variant.name)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("words", HOSTILE, ids=lambda words: ascii(words)[:30])
def test_hostile_words_are_refused_or_harmless(place: str, words: str) -> None:
    try:
        for arch in variants_of(archdsl.parse(PLACES[place].replace("@", words))):
            found = code(emitted(arch))
            if place not in ("name", "stage", "variant", "block", "activation", "comment"):
                assert found == plain()
    except ArchError as error:
        assert error.diagnostics


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_title_and_comment_changes_nothing(words: str) -> None:
    for place in ("title", "comment", "published"):
        try:
            source = emitted(archdsl.parse(PLACES[place].replace("@", words)))
        except ArchError:
            continue
        # A comment ends with its line, and what follows may be a text of its own.
        if place != "comment" or not set(words) & set("\n\r"):
            assert code(source) == plain()
        harmless(source)


JSON = {
    "name": {"name": "@"},
    "source": {"source": "@"},
    "stage": {"stages": [{"name": "@", "blocks": [{"kind": "conv", "out_channels": 8}]}]},
    "kind": {"stem": [{"kind": "@"}]},
    "activation": {"stem": [{"kind": "conv", "act": "@"}]},
    "width": {"stem": [{"kind": "conv", "out_channels": "@"}]},
    "key": {"stem": [{"kind": "conv", "@": 1}]},
    "variant": {"variants": [{"name": "@"}]},
    "fact": {"published": [{"facts": {"note": "@"}}]},
    "fact's name": {"published": [{"facts": {"@": "1"}}]},
}


@pytest.mark.parametrize("place", JSON)
@pytest.mark.parametrize("words", HOSTILE, ids=lambda words: ascii(words)[:30])
def test_hostile_json_is_refused_or_harmless(place: str, words: str) -> None:
    data: dict[str, Any] = {"name": "net", "attributes": {"input": [8, 8, 3]}}
    data |= {"stem": [{"kind": "conv", "out_channels": 8}], **JSON[place]}
    text = json.dumps(data).replace("@", json.dumps(words)[1:-1])
    try:
        for arch in variants_of(archdsl.parse(read_json(SourceText("net.json", text)))):
            harmless(emitted(arch))
    except ArchError as error:
        assert error.diagnostics


DIALECTS = {
    "mnasnet": ["@", "r1_k3_s11_e1_o16_noskip\n@", "['@']", "@_k3_o8"],
    "timm": [
        '[["@"]]',
        '{"arch_def": [["ds_r1_k3_s1_e1_c16"]], "act_layer": "@"}',
        '{"arch_def": [["ds_r1_k3_s1_e1_c16_@"]]}',
        '{"@": 1, "arch_def": [["ds_r1_k3_s1_e1_c16"]]}',
    ],
    "ofa": ['{"name": "@"}', '{"@": 1}', '{"name": "ProxylessNASNets", "blocks": ["@"]}'],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("words", HOSTILE, ids=lambda words: ascii(words)[:30])
def test_hostile_words_of_other_notations(dialect: str, words: str) -> None:
    for pattern in DIALECTS[dialect]:
        for written in (words, json.dumps(words)[1:-1]):
            source = SourceText(f"{words}.txt", pattern.replace("@", written))
            try:
                harmless(emitted(archdsl.parse(read(source, dialect))))
            except ArchError as error:
                assert error.diagnostics


TAKEN = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "torch", "nn", "math", "self"}


def test_names_that_mean_something_to_python_are_made_harmless() -> None:
    for name in sorted({word.lower().strip("_") for word in TAKEN}):
        try:
            source = emitted(archdsl.parse(f"arch {name} {BODY}"))
        except ArchError:
            continue  # a word of the language
        tree = harmless(source)
        # No class nor function takes the place of what the source itself needs.
        assert "Model" in bound(tree)
        assert not bound(tree) & BUILTINS


# -------------------------------------------------------------------------------- where files are


def tree_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("to", ["torch", "onnx", "tflite"])
@pytest.mark.parametrize("place", ["name", "title", "stage", "variant"])
def test_files_stay_where_they_are_asked_for(
    to: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "deep" / "home"
    (home / "out").mkdir(parents=True)
    monkeypatch.chdir(home)
    suffix = {"torch": "py", "onnx": "onnx", "tflite": "tflite"}[to]
    for words in ("../evil", "/tmp/evil", "a/b", "..", "~", "x\0y", "evil.py", "-o", "con"):
        Path("net.arch").write_bytes(PLACES[place].replace("@", words).encode())
        for more in ([], ["-o", f"out/net.{suffix}"]):
            run = ["compile", "net.arch", "--to", to, *more]
            done = CliRunner().invoke(program, run, prog_name="archdsl")
            assert done.exit_code in (0, 1), done.output
            found = tree_of(tmp_path) - {"deep/home/net.arch"}
            names = {f"deep/home/net.{suffix}", f"deep/home/con.{suffix}"}
            wanted = {f"deep/home/out/net.{suffix}"} if more else names
            assert found <= wanted, found
            assert bool(found) == (done.exit_code == 0)
            for path in found:
                (tmp_path / path).unlink()
    assert not Path("/tmp/evil").exists()
