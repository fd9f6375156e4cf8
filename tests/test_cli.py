"""The commands, run in this process: results, exit statuses, files written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click import ClickException
from click.testing import CliRunner, Result

import archdsl
from archdsl.cli.program import _misuse, program
from archdsl.lang.codes import CODES
from archdsl.library import members

GOLDEN = Path(__file__).parent / "golden" / "cli"
TINY = GOLDEN / "tiny.arch"
UNTIDY = GOLDEN / "untidy.arch"

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `archdsl` with these words, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    environment = {"COLUMNS": "100", "NO_COLOR": "", "FORCE_COLOR": "", "ARCHDSL_DEBUG": ""}

    def call(*words: object, stdin: str | bytes = "") -> Result:
        runner = CliRunner(env=environment)
        return runner.invoke(program, [str(w) for w in words], input=stdin, prog_name="archdsl")

    return call


def ok(result: Result) -> str:
    """The standard output of a command that did what it was asked."""
    assert result.exit_code == 0, result.output
    assert not result.stderr
    return result.stdout


def ok_json(result: Result) -> Any:
    return json.loads(ok(result))


# -- check ---------------------------------------------------------------------------------------


def test_check_says_ok_on_standard_output(run: Run) -> None:
    assert ok(run("check", "mnv2_140")) == "mnv2_140: ok, 6,108,776 parameters, 582,195,824 MACs\n"


def test_check_prints_diagnostics_on_standard_error(run: Run) -> None:
    result = run("check", GOLDEN / "wrong.arch")
    assert result.exit_code == 1
    assert not result.stdout
    assert "error[E0209]" in result.stderr
    assert "error[E0208]" in result.stderr


def test_check_json_is_an_array_of_diagnostics(run: Run) -> None:
    assert ok_json(run("check", TINY, "--json")) == []
    result = run("check", GOLDEN / "wrong.arch", TINY, "--json")
    assert result.exit_code == 1
    assert not result.stderr
    found = json.loads(result.stdout)
    assert [(d["code"], d["line"], d["column"]) for d in found] == [
        ("E0209", 4, 9),
        ("E0208", 4, 33),
        ("E0203", 4, 43),
    ]


def test_check_goes_on_after_a_missing_file(run: Run) -> None:
    result = run("check", "nowhere.arch", GOLDEN / "wrong.arch", TINY)
    assert result.exit_code == 2
    assert "nowhere.arch: No such file" in result.stderr
    assert "E0209" in result.stderr
    assert "tiny.arch: ok" in result.stdout


def test_check_warnings_alone_are_no_failure(run: Run) -> None:
    text = "arch a input 8x8x3 stem { conv_o16 } head { pool fc_o2 } published params=5M"
    result = run("check", "-", stdin=text)
    assert result.exit_code == 0
    assert "warning[W0501]" in result.stderr
    assert result.stdout.startswith("<stdin>: ok with 1 warning, ")


def test_check_names_the_file_of_a_fault_without_a_place(run: Run) -> None:
    result = run("check", "mnv2", "--variant", "141", "--json")
    assert result.exit_code == 1
    (found,) = json.loads(result.stdout)
    assert (found["code"], found["file"]) == ("E0502", "mnv2")


def test_check_all_published(run: Run) -> None:
    files = sorted({m["file"] for m in ok_json(run("list", "--json"))})
    result = run("check", *(file.removesuffix(".arch") for file in files))
    assert result.exit_code == 0
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == len(files)


# -- fmt -----------------------------------------------------------------------------------------


def test_fmt_rewrites_in_place_and_once(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "net.arch"
    path.write_bytes(UNTIDY.read_bytes())
    result = run("fmt", path)
    assert result.exit_code == 0
    assert not result.stdout
    assert "# the comment stays" in path.read_text()
    before = path.stat()
    assert run("fmt", path).exit_code == 0
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert run("fmt", "--check", path).exit_code == 0


@pytest.mark.parametrize("option", ["--check", "--diff"])
def test_fmt_check_and_diff_change_nothing(run: Run, tmp_path: Path, option: str) -> None:
    path = tmp_path / "net.arch"
    path.write_bytes(UNTIDY.read_bytes())
    result = run("fmt", option, path, TINY)
    assert result.exit_code == 1
    assert "net.arch" in result.stdout
    assert "tiny.arch" not in result.stdout
    assert path.read_bytes() == UNTIDY.read_bytes()


def test_fmt_standard_input(run: Run) -> None:
    result = run("fmt", "-", stdin=UNTIDY.read_bytes())
    again = run("fmt", "-", stdin=ok(result))
    assert ok(again) == ok(result)


def test_fmt_leaves_what_it_cannot_read(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "net.arch"
    path.write_text("arch a input 8x8x3 stem { conv_q3")
    other = tmp_path / "other.arch"
    other.write_bytes(UNTIDY.read_bytes())
    result = run("fmt", path, other)
    assert result.exit_code == 1
    assert "error[" in result.stderr
    assert path.read_text().endswith("conv_q3")
    assert other.read_bytes() != UNTIDY.read_bytes()


def test_fmt_sees_byte_order_marks_and_carriage_returns(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "net.arch"
    path.write_bytes(b"\xef\xbb\xbf" + TINY.read_bytes().replace(b"\n", b"\r\n"))
    assert run("fmt", "--check", path).exit_code == 1
    assert run("fmt", path).exit_code == 0
    assert path.read_bytes() == TINY.read_bytes()


def test_fmt_keeps_published_files(run: Run) -> None:
    result = run("fmt", "mnv2")
    assert result.exit_code == 2
    assert "published" in result.stderr


# -- show, cost, list ----------------------------------------------------------------------------


def test_show_rows_add_up(run: Run) -> None:
    arch = archdsl.load("mnv4_hybrid_m")
    for option, rows in ((), "blocks"), (("--ops",), "layers"):
        shown = ok_json(run("show", "mnv4_hybrid_m", "--json", *option))
        for key in ("params", "macs", "weight_bytes", "activation_bytes"):
            assert sum(row[key] for row in shown[rows]) == shown[key] == getattr(arch.cost(), key)


def test_show_rows_are_blocks_that_stand_alone(run: Run) -> None:
    """The block strings of a table, written as a text, are the same network."""
    for name in ("mnv2_140", "mnv3_large", "mnv4_hybrid_l", "mnasnet_a1"):
        arch = archdsl.load(name)
        rows = ok_json(run("show", name, "--json"))["blocks"]
        spec = arch.spec
        text = archdsl.parse(
            f"arch copy {_attributes(arch)} stem {{ {' '.join(row['block'] for row in rows)} }}"
        )
        assert text.cost().params == arch.cost().params, spec.name
        assert text.cost().macs == arch.cost().macs


def _attributes(arch: archdsl.Arch) -> str:
    statements = ("input", "act", "norm", "pad", "round", "width", "se", "layer_scale")
    lines = [line for line in arch.to_text().splitlines() if line.startswith(statements)]
    return "\n".join([*lines, f"width {arch.attributes.width}"][-len(lines) - 1 :])


def test_show_takes_overrides(run: Run) -> None:
    shown = ok_json(run("show", TINY, "--width", 2, "--input", "64x48x1", "--classes", 7, "--json"))
    arch = archdsl.load(TINY, width=2, input=(64, 48, 1), classes=7)
    assert shown["input"] == [64, 48, 1]
    assert shown["output"] == [7]
    assert shown["params"] == arch.cost().params


def test_cost_json_is_the_cost(run: Run) -> None:
    found = ok_json(run("cost", "mnv2_140", "--json", "--dtype", "int8", "--batch", 4))
    assert found == archdsl.load("mnv2_140").cost(dtype="int8", batch=4).to_json()
    assert found["name"] == "mnv2_140"
    assert found["latency"] == []


def test_cost_roofline(run: Run) -> None:
    device = archdsl.Device("custom", peak_macs=50e9, bandwidth=10e9)
    wanted = archdsl.load("mnv4_conv_m").cost(devices=[device]).latency[0]
    words = ("cost", "mnv4_conv_m", "--peak", 50, "--bandwidth", 10)
    assert ok_json(run(*words, "--json"))["latency"] == [wanted.to_json()]
    assert f"{wanted.us:,.1f} µs  {wanted.bound}-bound" in ok(run(*words))


@pytest.mark.parametrize(
    "options",
    [
        ["--peak", "50"],
        ["--bandwidth", "50"],
        ["--peak", "nan", "--bandwidth", "1"],
        ["--peak", "-1", "--bandwidth", "1"],
        ["--batch", "0"],
        ["--dtype", "int4"],
        ["--width", "inf"],
        ["--classes", "0"],
        ["--input", "224x224"],
        ["--input", "0x1x1"],
        ["--input", "99999x1x1"],
        ["--device", "phone"],
    ],
    ids=" ".join,
)
def test_wrong_options(run: Run, options: list[str]) -> None:
    result = run("cost", TINY, *options)
    assert result.exit_code == 2
    assert not result.stdout
    assert result.stderr.startswith("error: ")


def test_list_json_has_every_member_exactly(run: Run) -> None:
    listed = ok_json(run("list", "--json"))
    keys = ["name", "file", "variant", "input", "classes", "params", "macs"]
    assert all(list(record)[:7] == keys for record in listed)
    assert {record["name"] for record in listed} == {member.name for member in members()}
    for record in listed:
        cost = archdsl.load(record["name"]).cost()
        figures = (list(cost.input), cost.classes, cost.params, cost.macs)
        assert tuple(record[key] for key in keys[3:]) == figures


# -- compile -------------------------------------------------------------------------------------


def test_compile_writes_the_default_name(run: Run, tmp_path: Path) -> None:
    result = run("compile", TINY, "--to", "torch")
    assert result.exit_code == 0, result.output
    assert not result.stdout
    assert "tiny.py" in result.stderr
    data = (tmp_path / "tiny.py").read_bytes()
    compile(data, "tiny.py", "exec")
    assert data == run("compile", TINY, "--to", "torch", "-o", "-").stdout_bytes


def test_compile_json(run: Run, tmp_path: Path) -> None:
    found = ok_json(run("compile", "mnv2_140", "--to", "torch", "-o", "net.py", "--json"))
    size = (tmp_path / "net.py").stat().st_size
    assert found == {
        "file": "net.py",
        "bytes": size,
        "backend": "torch",
        "dtype": "float32",
        "beside": [],
    }


def test_compile_refuses_before_it_writes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.arch").write_bytes(TINY.read_bytes())
    for words in (
        ("--to", "tprch"),
        ("--to", "torch", "-o", "nowhere/net.py"),
        ("--to", "torch", "-o", "."),
        ("--to", "torch", "-o", "net.arch"),
        ("--to", "torch", "-o", "-", "--json"),
        (),
    ):
        result = run("compile", "net.arch", *words)
        assert result.exit_code == 2
        assert not result.stdout
        assert result.stderr.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["net.arch"]


# -- convert, schema -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnv2", "mnv3_large_075", "mnv4_hybrid_m", str(TINY)])
def test_convert_there_and_back(run: Run, tmp_path: Path, name: str) -> None:
    assert run("convert", name, "--to", "json", "-o", "net.json").exit_code == 0
    text = ok(run("convert", "net.json", "--to", "arch"))
    assert text == ok(run("convert", name, "--to", "arch"))
    assert archdsl.parse(text).cost().macs == archdsl.load(name).cost().macs
    data = (tmp_path / "net.json").read_text(encoding="utf-8")
    assert ok(run("convert", "-", "--to", "json", stdin=data)) == data


def test_convert_one_member(run: Run) -> None:
    arch = archdsl.parse(ok(run("convert", "mnv2", "--variant", "140", "--to", "arch")))
    assert (arch.name, arch.spec.variants) == ("mnv2_140", ())
    assert arch.expect is not None
    assert arch.expect.params == arch.cost().params == 6_108_776


def test_convert_with_an_override_drops_the_figures(run: Run) -> None:
    text = ok(run("convert", "mnv2", "--input", "96x96x3", "--to", "arch"))
    assert "expect" not in text
    assert archdsl.parse(text).input == (96, 96, 3)


def test_convert_refuses_what_is_no_specification(run: Run) -> None:
    result = run("convert", "-", "--to", "arch", stdin='{"name": 3}')
    assert result.exit_code == 1
    assert "error[E0602]" in result.stderr
    assert "Traceback" not in result.output


def test_schema(run: Run) -> None:
    assert ok_json(run("schema")) == archdsl.json_schema()


# -- explain -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_explain(run: Run, code: str) -> None:
    text = ok(run("explain", code.lower()))
    assert text.startswith(f"{code}: {CODES[code].title}\n")
    assert f"[{code}]: " in text
    assert ok_json(run("explain", code, "--json"))["code"] == code


def test_explain_lists(run: Run) -> None:
    assert [line.split()[0] for line in ok(run("explain")).splitlines()] == list(CODES)
    assert [entry["code"] for entry in ok_json(run("explain", "--json"))] == list(CODES)


def test_explain_unknown(run: Run) -> None:
    result = run("explain", "E02033")
    assert result.exit_code == 2
    assert "did you mean E0203?" in result.stderr


# -- the program ---------------------------------------------------------------------------------


def test_version(run: Run) -> None:
    assert ok(run("--version")) == f"archdsl {archdsl.__version__}\n"


def test_alone_it_shows_the_help(run: Run) -> None:
    assert ok(run()) == ok(run("--help"))


@pytest.mark.parametrize("command", program.commands)
def test_help_has_an_example(run: Run, command: str) -> None:
    text = ok(run(command, "--help"))
    assert f"archdsl {command}" in text.partition("\n")[2]


def test_commands_of_later_versions_are_not_here() -> None:
    assert set(program.commands) == {
        *("check", "fmt", "explain", "show", "cost", "list"),
        *("space", "search", "oneshot", "netadapt"),
        *("devices", "sweep", "rank", "plot", "bench-kit", "calibrate"),
        *("compile", "verify", "weights", "convert", "schema", "completion"),
    }


def test_did_you_mean(run: Run) -> None:
    assert "did you mean `show`?" in run("shwo", "mnv2").stderr
    assert "--json" in run("show", "mnv2", "--jsn").stderr
    assert "did you mean mnv2_140?" in run("show", "mnv2_141").stderr
    assert "did you mean 'torch'?" in run("compile", "mnv2", "--to", "trch").stderr


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("archdsl show mnv2_1", {"mnv2_130", "mnv2_140", "mnv2_150"}),
        ("archdsl check ne", {"net.arch"}),
        ("archdsl check folder/", {"folder/"}),
        ("archdsl co", {"cost", "compile", "convert", "completion"}),
        ("archdsl compile mnv2 --to t", {"torch", "tflite"}),
        ("archdsl explain E0203", {"E0203"}),
    ],
)
def test_completion(
    run: Run, tmp_path: Path, words: str, wanted: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.arch").touch()
    count = len(words.split()) - 1
    monkeypatch.setenv("_ARCHDSL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(count))
    lines = ok(run()).split()
    assert {line.split(",", 1)[1] for line in lines} == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Run, shell: str) -> None:
    assert "_ARCHDSL_COMPLETE" in ok(run("completion", shell))


@pytest.mark.parametrize(("said", "shown"), [("PyTorch is", "PyTorch is"), ("No such", "no such")])
def test_a_name_at_the_beginning_of_an_error_keeps_its_capital(
    said: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _misuse(ClickException(said))
    assert capsys.readouterr().err == f"error: {shown}\n"
