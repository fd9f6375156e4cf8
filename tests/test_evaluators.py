"""Evaluators by name, as functions and as programs: what they give, and every way to fail."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field

import archdsl
from archdsl.limits import MAX_PRINTED
from archdsl.search.evaluators import (
    GROUP,
    EvaluatorError,
    Failed,
    Program,
    available,
    check_result,
    evaluate,
    resolve,
)
from archdsl.search.identity import canonical_hash
from archdsl.search.trials import Evaluation

ARCH = archdsl.parse("arch net input 32x32x3 stem { conv_k3_s22_o8 } head { pool fc }")


def program(code: str, timeout: float | None = 30) -> Program:
    """A program of Python that runs the code."""
    return Program(f"{sys.executable} -c {_quoted(code)}", timeout)


def _quoted(code: str) -> str:
    return "'" + code.replace("'", "'\\''") + "'"


def said(evaluator: Any) -> str:
    found = evaluate(evaluator, ARCH)
    assert found.accuracy is None
    assert found.fault is not None and "\n" not in found.fault
    return found.fault


# -- what was given -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [0.5, np.float32(0.5), np.array(0.5), np.array([0.5]), {"accuracy": 0.5}],
    ids=str,
)
def test_numbers_of_all_kinds_are_accuracies(given: Any) -> None:
    assert check_result(given) == Evaluation(0.5)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_number_is_as_short_as_its_precision_lets_it_be(kind: type[np.floating]) -> None:
    rng = np.random.default_rng(0)
    for share in (0.93, 1 / 3, 2e-5, 1000.25, *rng.random(100)):
        given = kind(share)
        for value in (given, np.array([given])):
            found = check_result(value).accuracy
            assert found is not None and kind(found) == given
            assert str(found) == str(float(str(given)))
    assert check_result(np.float32(0.93)).accuracy == 0.93
    assert check_result(np.float64(0.9299999475479126)).accuracy == 0.9299999475479126


def test_a_tensor_is_as_short_as_its_precision_lets_it_be() -> None:
    torch = pytest.importorskip("torch")
    right = torch.tensor([1.0] * 93 + [0.0] * 7).mean()
    assert check_result({"accuracy": right, "loss": right.double()}) == Evaluation(
        0.93, None, {"loss": right.double().item()}
    )


def test_a_whole_number_and_a_negative_one_are_accuracies() -> None:
    assert check_result(3).accuracy == 3.0
    assert check_result(-2.5).accuracy == -2.5


def test_other_figures_are_kept_where_they_are_numbers() -> None:
    figures = {"accuracy": 1, "loss": np.float64(0.25), "nan": math.nan, "note": "x", "ok": True}
    assert check_result(figures, 2.0) == Evaluation(1.0, None, {"loss": 0.25}, 2.0)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (None, "the evaluator gave None, and an accuracy is a number"),
        (True, "the evaluator gave True (bool), and an accuracy is a number"),
        ("0.9", "the evaluator gave '0.9' (str), and an accuracy is a number"),
        (1j, "the evaluator gave 1j (complex), and an accuracy is a number"),
        ([0.5], "the evaluator gave [0.5] (list), and an accuracy is a number"),
        (math.nan, "the evaluator gave nan, and an accuracy is a finite number"),
        (-math.inf, "the evaluator gave -inf, and an accuracy is a finite number"),
        (10**400, "the evaluator gave inf, and an accuracy is a finite number"),
        ({"acc": 1}, "the evaluator gave figures without `accuracy`: `acc`"),
        ({}, "the evaluator gave figures without `accuracy`: none"),
        ({"accuracy": "no\x1b[2J"}, "the evaluator gave 'no\\x1b[2J' (str), and an accuracy is"),
    ],
    ids=str,
)
def test_what_is_no_accuracy_is_a_sentence(given: Any, fault: str) -> None:
    found = check_result(given)
    assert found.accuracy is None
    assert found.fault is not None and found.fault.startswith(fault)


def test_an_array_of_several_is_no_number() -> None:
    assert check_result(np.zeros(3)).accuracy is None


def _raises(error: BaseException) -> Callable[[Any], float]:
    def evaluator(arch: Any) -> float:
        raise error

    return evaluator


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ValueError("bad\nthing"), "ValueError: bad thing"),
        (Failed("training diverged"), "training diverged"),
        (MemoryError(), "out of memory"),
        (SystemExit(3), "the evaluator ended the program (exit status 3)"),
        (RuntimeError("x" * 10_000), "RuntimeError: xxx"),
    ],
    ids=repr,
)
def test_what_is_raised_is_a_sentence(error: BaseException, fault: str) -> None:
    shown = said(_raises(error))
    assert shown.startswith(fault)
    assert len(shown) <= 200


def test_faults_of_texts_are_those_of_the_network() -> None:
    def evaluator(arch: archdsl.Arch) -> float:
        raise archdsl.ArchError([archdsl.Diagnostic("E0301", "the image is too small")])

    assert said(evaluator) == "the image is too small"


def test_ctrl_c_is_passed_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(_raises(KeyboardInterrupt()), ARCH)


def test_seconds_are_those_it_took() -> None:
    def slow(arch: archdsl.Arch) -> float:
        time.sleep(0.05)
        return 1.0

    assert 0.05 <= evaluate(slow, ARCH).seconds < 5


# -- by name --------------------------------------------------------------------------------------

Count = Annotated[int, Field(ge=1, le=9)]


def factory(*, count: Count = 1, rate: float = 0.5, name: str = "a", flag: bool = False) -> Any:
    """An evaluator's factory, as a package would have it."""
    return lambda arch: {"accuracy": rate, "count": count, "flag": float(flag), "name": name}


def needs(*, data: str) -> Any:
    return lambda arch: float(len(data))


def gives_nothing() -> Any:
    return None


def breaks() -> Any:
    raise RuntimeError("no luck")


def lacks() -> Any:
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint(name, f"{__name__}:{value}", GROUP)
        for name, value in {
            "mine": "factory",
            "needy": "needs",
            "empty": "gives_nothing",
            "broken": "breaks",
            "gone": "nowhere",
            "torchless": "lacks",
        }.items()
    ]
    monkeypatch.setattr("archdsl.plugins.entry_points", lambda group: entries)


def test_the_shipped_ones_are_installed() -> None:
    assert {"digits", "train", "synflow", "naswot"} <= set(available())


def test_texts_of_a_command_line_become_values(installed: None) -> None:
    evaluator: Any = resolve("mine", {"count": "3", "rate": "1e-1", "name": "5", "flag": "true"})
    assert evaluator(ARCH) == {"accuracy": 0.1, "count": 3, "flag": 1.0, "name": "5"}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mien", {}, "no evaluator is called `mien`; did you mean 'mine'?"),
        ("zzz", {}, "installed: broken, empty, gone, mine, needy and torchless"),
        ("mine", {"cuont": 1}, "'mine' has no setting `cuont`; did you mean 'count'?"),
        ("mine", {"zzz": 1}, "it has count, rate, name and flag"),
        ("mine", {"count": "0"}, "count=0: must be at least 1"),
        ("mine", {"count": "two"}, "count=two: must be a whole number"),
        ("mine", {"count": 1.5}, "count=1.5: must be a whole number"),
        ("mine", {"rate": "x"}, "rate=x: must be a number"),
        ("mine", {"flag": "perhaps"}, "flag=perhaps: must be true or false"),
        ("needy", {}, "the evaluator 'needy' needs 'data' to be set"),
        ("empty", {}, "is broken: its factory gave nothing that can be called"),
        ("broken", {}, "is broken: RuntimeError: no luck"),
        ("gone", {}, "is broken: AttributeError"),
        ("torchless", {}, "(No module named 'torch'); pip install \"archdsl[torch]\""),
    ],
)
def test_what_is_wrong_with_a_name_or_a_setting(
    installed: None, name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaluatorError) as caught:
        resolve(name, settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_line_that_installs_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint("mine", "evaluators_here:Mine", GROUP)]
    monkeypatch.setattr("archdsl.plugins.entry_points", lambda group: entries)
    line = 'pip install "archdsl[search]"'

    def lacking(*_: object) -> None:
        raise ImportError(f"the digits come with scikit-learn; {line}", name="sklearn")

    monkeypatch.setattr(EntryPoint, "load", lacking)
    with pytest.raises(EvaluatorError) as caught:
        resolve("mine")
    assert str(caught.value).count(line) == 1


def test_one_name_of_two_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint("mine", f"a:{value}", GROUP) for value in ("f", "g")]
    monkeypatch.setattr("archdsl.plugins.entry_points", lambda group: entries)
    with pytest.raises(EvaluatorError, match="two evaluators are called 'mine': a:f of an unknown"):
        resolve("mine")


def test_a_name_is_a_text() -> None:
    with pytest.raises(TypeError, match="must be a name"):
        resolve(len)  # type: ignore[arg-type]


def test_without_torch_the_install_line_is_named() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from archdsl.search.evaluators import resolve, EvaluatorError\n"
        "try: resolve('digits')\n"
        "except EvaluatorError as error: print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stderr == ""
    assert 'pip install "archdsl[torch]"' in shown.stdout


def test_the_registry_imports_no_framework() -> None:
    code = (
        "import sys, archdsl.search.evaluators as e; e.available()\n"
        "print({'torch', 'sklearn', 'PIL', 'optuna'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout == "set()\n"


# -- MODULE:FUNCTION ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_evaluator.py").write_text(
        "import own_helper\n"
        "def accuracy(arch, scale: float = 1): return scale * arch.cost().params\n"
        "class Judge:\n"
        "    def __call__(self, arch): return own_helper.ONE\n"
        "judge = Judge()\n"
        "CONSTANT = 3\n"
    )
    (tmp_path / "own_helper.py").write_text("ONE = 1.0\n")
    (tmp_path / "own_broken.py").write_text("def accuracy(arch:\n")
    (tmp_path / "own_exit.py").write_text("raise SystemExit(1)\n")
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("own_"):
            del sys.modules[name]


def test_a_function_of_the_current_folder(folder: Path) -> None:
    params = ARCH.cost().params
    assert evaluate(resolve("own_evaluator:accuracy"), ARCH).accuracy == params
    assert evaluate(resolve("own_evaluator:accuracy", {"scale": "2"}), ARCH).accuracy == 2 * params
    assert evaluate(resolve("own_evaluator:judge"), ARCH).accuracy == 1.0


def test_the_current_folder_comes_last_once_a_module_is_imported(folder: Path) -> None:
    before = list(sys.path)
    resolve("own_evaluator:accuracy")
    assert sys.path == [*before, str(folder)]
    resolve("own_evaluator:judge")
    assert sys.path == [*before, str(folder)]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("own_evaluator:acuracy", {}, "has no `acuracy`; did you mean 'accuracy'?"),
        ("own_evaluator:CONSTANT", {}, "`own_evaluator:CONSTANT` is no function but int"),
        ("own_evaluator:accuracy", {"arch": "1"}, "has no setting `arch`"),
        ("own_evaluator:accuracy", {"scal": "1"}, "did you mean 'scale'?"),
        ("own_evaluator:", {}, "must be MODULE:FUNCTION"),
        (":accuracy", {}, "must be MODULE:FUNCTION"),
        ("own/evaluator:accuracy", {}, "must be MODULE:FUNCTION"),
        ("own_nothing:accuracy", {}, "and none is installed"),
        ("own_broken:accuracy", {}, "'own_broken' cannot be imported: SyntaxError"),
        ("own_exit:accuracy", {}, "'own_exit' ends the program when it is imported"),
    ],
)
def test_what_is_wrong_with_a_function(
    folder: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaluatorError) as caught:
        resolve(name, settings)
    assert message in str(caught.value)


# -- programs -------------------------------------------------------------------------------------


def test_a_program_reads_the_network_on_standard_input() -> None:
    code = "import sys; t = sys.stdin.read(); print('progress'); print(len(t)); print()"
    assert evaluate(program(code), ARCH).accuracy == len(ARCH.to_text())


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("mnv2_140", {}),
        ("mnv2", {"variant": "075"}),
        ("mnv4_conv_s", {"input": (96, 160, 3), "classes": 7}),
        ("efficientnet_b0", {"width": 0.6}),
        ("efficientnet_b2", {"classes": 10}),
        ("mnv3_large_075", {"width": 1.5, "input": "64x64x3"}),
    ],
)
def test_a_program_reads_the_very_network_that_is_judged(
    name: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    arch = archdsl.load(name, **asked)
    text = tmp_path / "text.arch"
    assert evaluate(Program(f"sh -c 'tee {text} | wc -c'"), arch).accuracy
    read = archdsl.load(text)
    assert archdsl.check(text.read_text()) == []
    assert (read.name, read.input, read.classes) == (arch.name, arch.input, arch.classes)
    assert read.attributes == arch.attributes
    assert read.cost() == arch.cost() != archdsl.parse(arch.to_text()).cost()
    assert canonical_hash(read) == canonical_hash(arch)


def test_a_program_may_print_an_object() -> None:
    code = 'print("{\\"accuracy\\": 0.5,"); print("\\"loss\\": 2, \\"note\\": \\"x\\"}")'
    found = evaluate(program(code), ARCH)
    assert (found.accuracy, found.extra) == (0.5, {"loss": 2.0})
    found = evaluate(program('print("begin"); print("{\\"accuracy\\": 0.5}")'), ARCH)
    assert found.accuracy == 0.5


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("", "the program printed nothing, and an accuracy is wanted"),
        ("print()", "the program printed nothing, and an accuracy is wanted"),
        ("print('93 %')", "the last line that the program printed is `93 %`, not a number"),
        ("print('{')", "the last line that the program printed is `{`, not a number"),
        ("print('[' * 100000)", "the last line that the program printed is"),
        ("print('nan')", "the evaluator gave nan, and an accuracy is a finite number"),
        ("print('{}')", "the evaluator gave figures without `accuracy`: none"),
        ("import sys; sys.exit(3)", "the program ended with exit status 3, and said nothing"),
        ("import sys; sys.exit('oh no\\n')", "the program ended with exit status 1: oh no"),
        ("import os; os.kill(os.getpid(), 9)", "the program was ended by SIGKILL"),
        ("import sys; sys.stdout.buffer.write(bytes(range(256)))", "the last line that the"),
    ],
)
def test_what_a_program_does_wrong_is_a_sentence(code: str, fault: str) -> None:
    shown = said(program(code))
    assert shown.startswith(fault)
    assert shown.isprintable()


def test_a_program_that_prints_for_ever_is_killed() -> None:
    shown = said(program("while True: print('x' * 1000)"))
    assert shown == f"the program printed more than {MAX_PRINTED:,} bytes, and was killed"


def test_complaints_without_end_are_no_hindrance() -> None:
    code = "import sys; sys.stderr.write('x' * 5_000_000); print(1)"
    assert evaluate(program(code), ARCH).accuracy == 1.0


def _is_alive(pid: int) -> bool:
    try:
        # A zombie has no command line.
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")
def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "child"
    child = f"{sys.executable} -c 'import time; time.sleep(600)'"
    script = tmp_path / "hang.sh"
    script.write_text(f"{child} & echo $! > {note}.new; mv {note}.new {note}; {child}\n")
    shown = said(Program(f"sh {script}", 1.5))
    assert shown == "the program has not ended after 1.5 s, and was killed"
    assert not _is_alive(int(note.read_text()))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")
def test_children_that_a_program_leaves_are_killed(tmp_path: Path) -> None:
    script = tmp_path / "leave.sh"
    script.write_text(f"sleep 600 & echo $! > {tmp_path}/child; echo 0.5\n")
    started = time.monotonic()
    assert evaluate(Program(f"sh {script}"), ARCH).accuracy == 0.5
    assert time.monotonic() - started < 5
    assert not _is_alive(int((tmp_path / "child").read_text()))


def test_stopping_ends_the_call() -> None:
    hanging = program("import time; time.sleep(600)", timeout=60)
    threading.Timer(0.5, hanging.stop).start()
    assert said(hanging).startswith("the program was ended by SIGKILL")


def test_no_shell_is_asked() -> None:
    assert evaluate(Program(f"{sys.executable} -c 'print(1)' ; echo 2"), ARCH).accuracy == 1.0


def test_a_program_goes_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(program("print(2)")))
    assert evaluate(copy, ARCH).accuracy == 2.0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "the command of the program is empty"),
        ("'x", "no closing quotation"),
        ("no-such-program-here 1", "there is no program `no-such-program-here`"),
    ],
)
def test_commands_that_cannot_run(command: str, message: str) -> None:
    with pytest.raises(EvaluatorError, match=message):
        Program(command)


def test_a_file_that_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evaluate.sh").write_text("echo 1\n")
    with pytest.raises(EvaluatorError, match=r"`evaluate.sh` is not executable: `chmod"):
        Program("evaluate.sh")
    Path("evaluate.sh").chmod(0o755)
    with pytest.raises(EvaluatorError, match=r"the file here needs `./` before it"):
        Program("evaluate.sh")


def test_a_program_that_vanishes() -> None:
    gone = program("print(1)")
    gone._words[0] = os.path.join(os.sep, "nowhere", "python")
    assert said(gone).startswith("the program cannot be run: No such file")
