"""What is said of texts with faults: every code, its place in the text, its words.

Each file in golden/diagnostics is one that a user could have written, in the notation that its
ending names; beside it stands what is said of it. With ARCHDSL_UPDATE_GOLDEN=1 in the environment
these texts and docs/errors.md are written anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import archdsl
from archdsl import dialects
from archdsl.calibration.fit import fit
from archdsl.calibration.results import results_of
from archdsl.datasets import load_data
from archdsl.demonstrations import given, only_convolutions
from archdsl.files import read_source
from archdsl.lang.codes import CODES, NOTATIONS, Code
from archdsl.lang.diagnostics import ArchError, Diagnostic, render
from archdsl.lang.source import SourceText
from archdsl.roofline.accuracies import accuracies_of
from archdsl.roofline.extrapolation import extrapolations
from archdsl.roofline.profiles import read_profiles
from archdsl.search.evaluators import resolve
from archdsl.search.netadapt import NetAdapt
from archdsl.search.objectives import Objectives
from archdsl.search.refining import refined
from archdsl.search.space import load_space, parse_space
from archdsl.search.study import Study
from archdsl.weights.importing import imported

TESTS = Path(__file__).parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden" / "diagnostics"
ENDINGS = {".toml", ".results", ".csv", *(f".{dialect}" for dialect in dialects.DIALECTS)}
FILES = sorted(path.name for path in GOLDEN.iterdir() if path.suffix in ENDINGS)
ERRORS_PAGE = ROOT / "docs" / "errors.md"
UPDATE = bool(os.environ.get("ARCHDSL_UPDATE_GOLDEN"))


def check(
    source: SourceText,
    variant: str | None = None,
    to: str | None = None,
    checkpoint: str | None = None,
    space: str | None = None,
    learn: str | None = None,
    adapt: dict[str, str] | None = None,
    search: dict[str, str] | None = None,
    refine: bool = False,
    **options: Any,
) -> list[Diagnostic]:
    """All that is said of a text, be it returned or raised."""
    try:
        if source.name.endswith(".toml"):
            mnv1 = archdsl.load("mnv1")
            times = [(device, mnv1.latency(device)) for device in read_profiles(source)]
            return [w for d, t in times for w in extrapolations(mnv1.name, mnv1.work, d, t)]
        if source.name.endswith(".csv"):
            accuracies_of(source)
            return []
        if space is not None:
            _ = parse_space(source) if space == "this" else load_space(space).encode(source)
            return []
        if search is not None:
            limit = {"params": float(search["max-params"])} if "max-params" in search else {}
            evaluator = resolve(search["evaluator"])
            with Study(
                *(parse_space(source), Objectives(bounds=limit)),
                evaluator=evaluator,
                algorithm=search.get("algorithm", "random"),
                storage=search.get("storage"),
            ) as study:
                study.run(5)
            return []
        if source.name.endswith(".results"):
            fit(results_of(source), "board")
            return []
        dialect = source.name.rpartition(".")[2]
        source = dialects.read(source, dialect if f".{dialect}" in ENDINGS else "arch")
        found = archdsl.check(source, variant=variant)
        if learn is not None:
            arch = archdsl.parse(source)
            load_data(learn, arch.input[:2], arch.input[2])
        if adapt is not None:
            accuracy = resolve(adapt["evaluator"]) if "evaluator" in adapt else lambda arch: 1.0
            target = float(adapt["target-ms"]) * 1e3
            device = archdsl.load_device(adapt["device"])
            run = NetAdapt(archdsl.parse(source), device, target, accuracy)
            if "report" in adapt:
                run.keep(adapt["report"])
            return run.run().problems
        if refine:
            refined(archdsl.parse(source))
        if checkpoint is not None:
            found += imported(checkpoint, archdsl.parse(source)).warnings
        if to in dialects.DIALECTS:
            found += dialects.write(archdsl.parse(source), to).warnings
        elif to == "convolutions":
            only_convolutions(archdsl.parse(source))
        elif to is not None:
            archdsl.compile(archdsl.parse(source), to=to, **options)
    except ArchError as error:
        return list(error.diagnostics)
    return found


def check_text(text: str) -> list[Diagnostic]:
    return check(SourceText("net.arch", text))


def rendered(diagnostics: Iterable[Diagnostic]) -> str:
    return "\n".join(map(render, diagnostics))


# ----------------------------------------------------------------------------------- golden files


def check_file(path: Path) -> list[Diagnostic]:
    """All that is said of a file; its first line may give the options, as a command."""
    try:
        source = read_source(path)
    except ArchError as error:
        return list(error.diagnostics)
    command = source.text.partition("\n")[0]
    options: dict[str, Any] = dict(re.findall(r"--(\w+) (\S+)", command))
    if "features" in options:
        options["features"] = options["features"].split(",")
    if learned := re.search(r"--set data=(\S+)", command):
        options = {"learn": learned[1]}
    elif "archdsl search" in command:
        options = {"search": dict(re.findall(r"--([a-z-]+) (\S+)", command))}
    if "archdsl netadapt" in command:
        options = {"adapt": dict(re.findall(r"--([a-z-]+) (\S+)", command))}
    if "oneshot --fine" in command:
        options = {"refine": True}
    if imported := re.search(r"weights import (\S+) --for", command):
        options = {"checkpoint": imported[1]}
    return check(source, **options)


@pytest.mark.parametrize("name", FILES)
def test_golden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    shown = rendered(check_file(Path(name)))
    golden = Path(name).with_suffix(".txt")
    if UPDATE:
        golden.write_text(shown, encoding="utf-8")
    assert shown == golden.read_text(encoding="utf-8")


def test_every_golden_text_has_its_file() -> None:
    stems = [Path(name).stem for name in FILES]
    assert len(set(stems)) == len(stems)
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(stems)


def test_golden_files_show_every_code(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "".join(path.read_text(encoding="utf-8") for path in GOLDEN.glob("*.txt"))
    assert set(re.findall(r"^\w+\[(\w+)\]", shown, re.MULTILINE)) == set(CODES)


def test_help_fits_a_terminal() -> None:
    for path in GOLDEN.glob("*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 100 or not line.lstrip().startswith("= help"), line


def test_all_errors_of_a_file_are_reported_at_once() -> None:
    found = check_file(GOLDEN / "many_errors_at_once.arch")
    assert len(found) >= 18
    assert len({diagnostic.code for diagnostic in found}) >= 15


# ------------------------------------------------------------------------------------------ codes


def codes_in_the_source() -> set[str]:
    files = [*(ROOT / "archdsl").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in files if path.name != "codes.py")
    return set(re.findall(r'"([EW][01]\d{3})"', text))


def test_the_source_uses_the_codes_that_are_explained() -> None:
    assert codes_in_the_source() == set(CODES)


@pytest.mark.parametrize("code", CODES.values(), ids=list(CODES))
def test_an_example_gives_its_code_and_no_other(code: Code) -> None:
    found = given(code)
    assert {diagnostic.code for diagnostic in found} == {code.code}
    assert all(d.severity == ("warning" if code.code[0] == "W" else "error") for d in found)


@pytest.mark.parametrize("code", CODES.values(), ids=list(CODES))
def test_a_repaired_example_is_clean(code: Code) -> None:
    assert given(code, repaired=True) == []


@pytest.mark.parametrize("code", CODES.values(), ids=list(CODES))
def test_an_explanation_can_be_read(code: Code) -> None:
    assert CODES[code.code] is code
    assert code.title[0].islower() or code.title[0] in "`J"
    assert not code.title.endswith(".")
    assert code.explanation.endswith(".")
    assert 20 < len(code.explanation) < 600
    assert max(map(len, code.example.splitlines())) < 100


def test_codes_import_nothing_heavy() -> None:
    program = (
        "import sys, archdsl.lang.codes; print('lark' in sys.modules, 'pydantic' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["False", "False"]


def errors_page() -> str:
    """docs/errors.md: every code with its example, what is said of it, and its repair."""
    parts = [
        "# Errors and warnings",
        "Every error and warning has a code, a place in the text, a plain sentence and, where "
        "there is one, a repair. `archdsl explain CODE` shows what stands here. An error (E) ends "
        "a command with exit status 1, a warning (W) does not. This page is made from the codes "
        "themselves (`archdsl/lang/codes.py`) by `tests/test_diagnostics.py`, which proves every "
        "example and every repair.",
        "\n".join(
            ["| code | |", "| --- | --- |"]
            + [f"| [{code.code}](#{code.code.lower()}) | {code.title} |" for code in CODES.values()]
        ),
    ]
    for code in CODES.values():
        shown = rendered(given(code)).rstrip()
        language = "json" if code.code in {"E0601", "E0602", "E0607"} else "text"
        language = {"toml": "toml", "results": "json"}.get(NOTATIONS.get(code.code, ""), language)
        parts += [
            f"## {code.code}",
            f"**{code.title[0].upper()}{code.title[1:]}.** {code.explanation}",
            f"```{language}\n{code.example}```",
            f"```text\n{shown}\n```",
        ]
        if code.repaired != code.example:
            parts += ["Repaired:", f"```{language}\n{code.repaired}```"]
    return (
        "\n\n".join(
            part
            if part.startswith(("```", "|"))
            else textwrap.fill(part, 100, break_on_hyphens=False)
            for part in parts
        )
        + "\n"
    )


def test_the_page_of_errors_is_up_to_date() -> None:
    page = errors_page()
    if UPDATE:
        ERRORS_PAGE.write_text(page, encoding="utf-8")
    assert ERRORS_PAGE.read_text(encoding="utf-8") == page


# ------------------------------------------------------------------------------------------ spans


def file_with(stem: str, rest: str = "") -> str:
    return f"arch net\ninput 32x32x3\nse from=input\n{rest}\nstem {{ {stem} }}\n"


@pytest.mark.parametrize(
    ("block", "code", "faulty"),
    [
        ("k5_q3_o16", "E0202", "q3"),
        ("k5_o16_nosklp", "E0202", "nosklp"),
        ("k5_see0.25_o16", "E0202", "see0.25"),
        ("k3_h4_o16", "E0205", "h4"),
        ("conv_k3_se0.25_o16", "E0205", "se0.25"),
        ("k3_k5_o16", "E0204", "k5"),
        ("k3_relu_o16_swish", "E0204", "swish"),
        ("mqa_d16", "E0206", "mqa"),
        ("dropout", "E0206", "dropout"),
        ("k3_se_o16", "E0207", "se"),
        ("k3_e0_o16", "E0207", "e0"),
        ("k3_o16_noskip1", "E0207", "noskip1"),
        ("uib_m3_s22_o16", "E0208", "s22"),
        ("k4_o16", "E0209", "k4"),
        ("uib_s3_m6_o16", "E0209", "m6"),
        ("e4_x64_o16", "E0210", "x64"),
        ("x64_e4_o16", "E0210", "x64"),
        ("fused_e1_o16_se0.5", "E0210", "se0.5"),
        ("fused_x3!_o16_se0.5", "E0210", "se0.5"),
        ("mqa_d16_h0", "E0211", "h0"),
        ("k3__o16", "E0212", "_"),
        ("k3_o16,", "E0212", ","),
        ("k3_o16_conv", "E0213", "conv"),
        ("conv_k3_skip", "E0213", "skip"),
        ("conf_k3", "E0201", "conf"),
        ("k{3,5}_o16", "E0107", "k{3,5}"),
        ("( k3 | k5 )", "E0107", "( k3 | k5 )"),
        ("k3_i16_o16", "E0203", "i16"),
        ("conv_s99_o16 conv_s55_o16", "E0301", "s55"),
        ("fc_o10", "E0302", "fc_o10"),
        ("dw_k3_o16", "E0303", "o16"),
        ("uib_e4_st2_o16", "E0304", "st2"),
        ("fused_e8_g7_o16", "E0305", "g7"),
        ("pool fc_o10 k3_o16", "E0307", "k3_o16"),
        ("conv_k3_o20", "W0502", "o20"),
    ],
)
def test_carets_stand_under_the_faulty_field(block: str, code: str, faulty: str) -> None:
    text = file_with(block)
    (found,) = check_text(text)
    assert (found.code, found.span and found.span.text) == (code, faulty)
    _, _, _, line, carets, *_ = render(found).splitlines()
    start = carets.index("^")
    assert carets[start:] == "^" * len(faulty) + " here"
    assert line[start : start + len(faulty)] == faulty


@pytest.mark.parametrize(
    ("text", "code", "faulty"),
    [
        ("arch net\nstem { k3_o16 }", "E0401", "arch"),
        ("arch net\ninput 8x8x3\nact relu\nact relu6\nstem { k3_o16 }", "E0402", "act"),
        ("arch net\ninput 8x8\nstem { k3_o16 }", "E0403", "8x8"),
        ("arch net\ninput 8x8x3\nnorm batch eps=2\nstem { k3_o16 }", "E0403", "2"),
        ("arch net\ninput 8x8x3\nnorm batch epsilon=2\nstem { k3_o16 }", "E0404", "epsilon"),
        ("arch net\ninput 8x8x3\nact\nstem { k3_o16 }", "E0405", "act"),
        ("arch net\ninput 8x8x3\nhead { pool }\nstem { k3_o16 }", "E0406", "stem"),
        ("arch net\ninput 8x8x3\nstage a { k3 }\nstage a { k3_o16 }", "E0407", "a"),
        ("arch Net\ninput 8x8x3\nstem { k3_o16 }", "E0408", "Net"),
        ("arch net\ninput 8x8x3\nround 8 min=8 min=9\nstem { k3_o16 }", "E0409", "min"),
        ("arch net\ninput 8x8x3\nstem { k3_o16 }\nexpect macs=1", "E0412", "macs=1"),
        (
            "arch net\ninput 8x8x3\nstem { k3_o16 }\nvariant a { expect macs = 1 }",
            "E0412",
            "macs = 1",
        ),
        ("arch net\ninput 8x8x3\nstem { k3_o16 }\npublished macs=1", "W0501", "macs=1"),
        ("arch net\ninput 8x8x3\nstem { k3_o16 }\nvariant a { } variant a { }", "E0501", "a"),
        ('arch net\nsource "x\ninput 8x8x3\nstem { k3_o16 }', "E0105", '"x'),
        ("arch net\ninput 8x8x3\nfoo bar\nstem { k3_o16 }", "E0104", "foo"),
        ("arch net\ninput 8x8x3\nfoo bar { k3_o16 }", "E0104", "foo"),
        ("arch net\ninput 8x8x3\nstem { k3_o16 } }", "E0102", "}"),
        ("arch net\ninput 8x8x3\nstem { k3_o16", "E0103", "{"),
        ("arch net\ninput 8x8x3 4\nstem { k3_o16 }", "E0102", "4"),
        ("arch net\ninput 8x8x3\nstem { }", "E0306", "stem"),
    ],
)
def test_carets_stand_under_the_faulty_word(text: str, code: str, faulty: str) -> None:
    (found,) = check_text(text)
    assert (found.code, found.span and found.span.text) == (code, faulty)


@pytest.mark.parametrize(
    ("fault", "repair"),
    [
        ("k5_see0.25_o16", "`se0.25`"),
        ("k5_o16_nosklp", "`noskip`"),
        ("K5_o16", "`k5`"),
        ("k4_o16", "`k3` or `k5`"),
        ("uib_m3_s22_o16", "`st22`"),
        ("conf_k3", "`conv`"),
        ("mbconv_k3", "`ir`"),
        ("conv_o20", "o24"),
        ("i4", "i3"),
        ("k3_c24", "`o24`"),
    ],
)
def test_help_is_the_repair(fault: str, repair: str) -> None:
    (found,) = check_text(file_with(fault))
    assert repair in (found.help or "")


# -------------------------------------------------------------------- what one fault does not hide


@pytest.mark.parametrize(
    "broken",
    [
        "stem { k3_o16",
        "stem k3_o16 }",
        "stem stem { k3_o16 }",
        "body { k3_o16 }",
        'source "x',
        "width 1 2",
        "act=relu",
        "foo\nbar",
        "stem { ( k3 | k5 }",
        "}",
        "stage head { k3_o16 }",
        "expect params=",
        'published source="x',
        "variant x",
    ],
)
def test_what_follows_a_broken_part_is_read(broken: str) -> None:
    text = f"arch net\ninput 8x8x3\n{broken}\nstage c9 {{ k4_o16 }}\nnorm epsilon=1\n"
    codes = [diagnostic.code for diagnostic in check_text(text)]
    assert codes[-2:] == ["E0209", "E0404"]
    # The name and the image are there: nothing says they are missing.
    assert "E0401" not in codes
    assert len(codes) in {3, 4}


def test_an_error_of_one_variant_does_not_hide_another() -> None:
    text = (
        "arch net input 8x8x3 stem { conv_s2_o8 conv_s2_o8 }"
        " variant a { input=1x1x3 } variant b { input=2x2x3 } variant c { expect params=1 }"
    )
    found = check_text(text)
    # Of each variant the first stride that does not fit: the others follow from it.
    assert [d.code for d in found] == ["E0301", "E0301", "E0412"]
    assert [re.findall(r"variant `(.)`", d.message) for d in found] == [["a"], ["b"], []]


# ---------------------------------------------------------------------------------------- renderer


def test_diagnostics_come_in_the_order_of_the_text() -> None:
    found = check_text("arch net\ninput 8x8x3\nstem { k4_o16 }\nact relu7\nexpect parms=1\n")
    assert [d.code for d in found] == ["E0209", "E0403", "E0404"]
    with pytest.raises(ArchError) as caught:
        archdsl.parse("arch net\ninput 8x8x3\nstem { k4_o16 }\nact relu7\nexpect parms=1\n")
    assert [d.code for d in caught.value.diagnostics] == ["E0209", "E0403", "E0404"]
    assert str(caught.value) == rendered(found).replace("net.arch", "<string>")


def test_json_of_a_diagnostic_counts_from_one() -> None:
    (found,) = check_text("arch net\ninput 8x8x3\nstem { k4_o16 }\n")
    assert json.loads(json.dumps(found.to_json())) == {
        "code": "E0209",
        "severity": "error",
        "message": "`k4`: must be odd",
        "file": "net.arch",
        "line": 3,
        "column": 8,
        "end_column": 10,
        "help": "write `k3` or `k5`",
    }


def test_color_changes_nothing_but_color() -> None:
    (found,) = check_text("arch net\ninput 8x8x3\nstem { k4_o16 }\n")
    colored = render(found, color=True)
    assert "\x1b[1;31m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == render(found)
