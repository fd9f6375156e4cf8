"""Searches on a Ray cluster of this machine: workers that die, hang and are interrupted."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archdsl.compiler import Arch
from archdsl.limits import raised
from archdsl.search import ray_workers
from archdsl.search.identity import canonical_hash
from archdsl.search.objectives import Objectives
from archdsl.search.outcomes import EvaluatorError
from archdsl.search.ray_workers import RayWorkers
from archdsl.search.space import Space, parse_space
from archdsl.search.study import Study
from archdsl.search.trials import Evaluation

pytestmark = pytest.mark.slow

SPACE = """arch s input 8x8x3
stem { conv_k{1,3}_o{8,16,24} ( k{3,5}_e{1,2,3} | skip ) }"""
COUNT = 24
"""Trials of a search."""
FIFTH = 4
DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def space() -> Space:
    return parse_space(SPACE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster with two CPUs that the process is connected to, as a user's may be."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="CRITICAL",
        object_store_memory=80_000_000,
    )
    yield
    assert ray.is_initialized(), "who has not connected does not disconnect"
    ray.shutdown()


class Evaluator:
    """Notes which trial runs in which process, and counts parameters.

    With `waits` the fifth waits to be killed; the network that is called `deadly` kills its worker.
    """

    def __init__(self, folder: Path, waits: bool = False) -> None:
        self.folder = folder
        self.waits = waits

    def __call__(self, arch: Arch) -> float:
        with open(self.folder / "begun", "a") as file:
            # A study names all networks after their space.
            known_as = canonical_hash(arch) if arch.name == "s" else arch.name
            file.write(f"{known_as} {os.getppid()}\n")
        print("a worker's output is not the driver's")
        if self.waits and begun(self.folder).index((known_as, os.getppid())) == FIFTH:
            time.sleep(600)
        if arch.name == "deadly":
            os.kill(os.getppid(), signal.SIGKILL)
        if arch.name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if arch.name == "raises":
            raise ValueError("no such thing")
        if arch.name == "hangs":
            time.sleep(600)
        return float("nan") if arch.name == "nan" else float(arch.total.params)


def begun(folder: Path) -> list[tuple[str, int]]:
    lines = (folder / "begun").read_text().splitlines() if (folder / "begun").exists() else []
    return [(name, int(pid)) for name, pid in (line.split() for line in lines if " " in line)]


def texts(space: Space) -> dict[int, str]:
    rng = random.Random(3)
    return {n: space.text_of(space.sample(rng), f"t{n}") for n in range(COUNT)}


def gather(workers: RayWorkers, texts: dict[int, str]) -> dict[int, Evaluation]:
    """All trials through the workers as a search hands them out: as many at once as have slots."""
    left = list(texts)
    found: dict[int, Evaluation] = {}
    under_way = 0
    while left or under_way:
        while left and under_way < workers.slots:
            number = left.pop(0)
            workers.submit(number, texts[number])
            under_way += 1
        for number, evaluation in workers.wait():
            assert number not in found, "a trial ends once"
            found[number] = evaluation
            under_way -= 1
    assert workers.wait() == []
    return found


class Assassin(RayWorkers):
    """Workers one of which is killed from outside, once the fifth trial has begun."""

    victim = ""

    def __init__(self, evaluator: Evaluator, retries: int = 2) -> None:
        super().__init__(evaluator, retries=retries)
        self.folder = evaluator.folder

    def wait(self) -> list[tuple[int, Evaluation]]:
        if not self.victim and len(begun(self.folder)) > FIFTH:
            self.victim, pid = begun(self.folder)[FIFTH]
            os.kill(pid, signal.SIGKILL)
        return super().wait()


def test_without_retries_a_killed_worker_costs_its_trial(
    cluster: None, space: Space, tmp_path: Path
) -> None:
    workers = Assassin(Evaluator(tmp_path, waits=True), retries=0)
    assert workers.slots == 2
    asked = texts(space)
    found = gather(workers, asked)
    workers.close()
    victim = int(workers.victim[1:])
    assert sorted(found) == list(range(COUNT))
    assert found.pop(victim) == Evaluation(None, "its worker died")
    for number, evaluation in found.items():
        assert evaluation.accuracy == space.arch_of(space.encode(asked[number])).total.params
        assert evaluation.fault is None
    assert Counter(name for name, _ in begun(tmp_path)) == dict.fromkeys(
        (f"t{n}" for n in range(COUNT)), 1
    )


def test_a_worker_is_killed_in_the_midst_of_a_search(
    cluster: None, space: Space, tmp_path: Path
) -> None:
    """Every trial is there, complete, and evaluated once, but for the killed one's second try."""
    teams: list[Assassin] = []

    def start() -> Assassin:
        teams.append(Assassin(Evaluator(tmp_path, waits=True)))
        return teams[-1]

    def study() -> Study:
        return Study(
            space,
            Objectives(),
            evaluator="parameters",
            algorithm="random",
            workers=start,
            storage=tmp_path / "study.journal",
        )

    with study() as first:
        assert first.run(COUNT // 2).evaluated == COUNT // 2
    assert teams[0].victim
    with study() as second:
        assert second.run(COUNT // 2).evaluated == COUNT // 2
        trials = [trial for trial in second.trials if trial.same_as is None]
    assert len(trials) == COUNT // 2
    for trial in trials:
        assert trial.state == "complete"
        assert trial.accuracy == trial.figures["params"]
    times = Counter(name for name, _ in begun(tmp_path))
    assert times.pop(teams[0].victim) == 2
    assert set(times.values()) == {1}
    assert len(times) == COUNT // 2 - 1


def test_what_evaluators_do_is_told_in_sentences(
    cluster: None, space: Space, tmp_path: Path
) -> None:
    workers = RayWorkers(Evaluator(tmp_path), retries=1, timeout=2)
    names = ("raises", "nan", "hangs", "deadly", "killed", "fine")
    vector = space.member(0)
    found = gather(workers, {n: space.text_of(vector, name) for n, name in enumerate(names)})
    workers.close()
    assert {name: found[n].fault for n, name in enumerate(names)} == {
        "raises": "ValueError: no such thing",
        "nan": "the evaluator gave nan, and an accuracy is a finite number",
        "hangs": "it took longer than 2 s, and was ended",
        "deadly": "its worker died in each of 2 tries",
        "killed": "the evaluator was ended by SIGKILL (a worker's output is not the driver's) "
        "in each of 2 tries",
        "fine": None,
    }
    # What the evaluator says is no reason to ask it again.
    times = Counter(name for name, _ in begun(tmp_path))
    assert times == {"raises": 1, "nan": 1, "hangs": 1, "deadly": 2, "killed": 2, "fine": 1}


def test_evaluators_by_name_and_programs(
    cluster: None, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray_mine.py").write_text(
        "def half(arch, of=1.0):\n    print('half of', of)\n    return of / 2\n"
    )
    monkeypatch.chdir(tmp_path)
    text = {0: space.text_of(space.member(0))}
    log = tmp_path / "log"
    for arguments, accuracy in (
        ({"evaluator": "ray_mine:half", "settings": {"of": 3.0}}, 1.5),
        ({"evaluator": "", "program": "sh -c 'cat >/dev/null; echo 7'"}, 7.0),
    ):
        workers = RayWorkers(**arguments, cpus=0.5, log=log)
        assert workers.slots == 4
        found = gather(workers, text)[0]
        workers.close()
        assert (found.accuracy, found.fault) == (accuracy, None)
    assert log.read_text() == "--- trial 0\nhalf of 3.0\n"


def test_an_evaluator_that_cannot_be_had_is_no_trial(
    cluster: None, space: Space, tmp_path: Path
) -> None:
    """As with local workers; nothing is recorded as failed."""
    for evaluator, why in (
        ("ray_none:none", "on a worker: the module 'ray_none' cannot be imported"),
        ("digitz", "on a worker: no evaluator is called `digitz`"),
    ):
        study = Study(
            space,
            Objectives(),
            evaluator=evaluator,
            workers=lambda evaluator=evaluator: RayWorkers(evaluator, slots=1),
            storage=tmp_path / f"{evaluator}.journal",
        )
        with study, pytest.raises(EvaluatorError, match=why):
            study.run(3)
        assert study.trials == []


def test_an_evaluator_that_hangs_when_it_is_imported_is_ended(
    cluster: None, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hasty(ray_workers._Worker):
        def evaluate(self, number: int, text: str) -> ray_workers._Answer:
            from archdsl.search import workers

            workers._LOADING = 1.0
            return super().evaluate(number, text)

    (tmp_path / "ray_hanging.py").write_text("import time\n\ntime.sleep(600)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_workers, "_Worker", Hasty)
    workers = RayWorkers("ray_hanging:count", slots=1, timeout=0.5)
    found = gather(workers, {0: space.text_of(space.member(0))})
    workers.close()
    assert found[0].fault == "the evaluator was not ready after 1 s, and was ended"


def test_raised_limits_hold_on_workers(cluster: None, tmp_path: Path) -> None:
    text = "arch a input 8x8x3 stem { r1001_k1_o8 }"
    with raised(repeats=1001):
        workers = RayWorkers(Evaluator(tmp_path), slots=1)
    (found,) = gather(workers, {0: text}).values()
    workers.close()
    assert found.fault is None


def test_a_full_cluster_is_waited_for(
    cluster: None, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where it only seems to have room, not for ever."""
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray_workers, "_SILENCE", 1.0)
    monkeypatch.setattr(ray_workers, "_STARTING", 1.0)
    monkeypatch.setattr(ray_workers, "_PATIENCE", 0.2)

    class Other:
        """An actor of somebody else."""

        def there(self) -> None:
            pass

    other = ray.remote(Other).options(num_cpus=2).remote()
    ray.get(other.there.remote())
    said: list[str] = []

    def say(message: str) -> None:
        """The other one makes room as soon as it is heard that it is waited for."""
        said.append(message)
        if len(said) == 1:
            monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 2.0})

    workers = RayWorkers(Evaluator(tmp_path), slots=1, retries=1, say=say)
    text = space.text_of(space.member(0))
    assert gather(workers, {0: text}) == {
        0: Evaluation(None, "no worker could be started (not within 1 s) in each of 2 tries")
    }
    assert said == ["waiting for a worker: the cluster has no 1 CPU to spare"]
    monkeypatch.undo()
    ray.kill(other)
    assert gather(workers, {1: text})[1].fault is None
    workers.close()


def test_a_worker_that_fails_makes_room_for_the_next(
    cluster: None, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is alive, and has its resources."""

    class Failing(ray_workers._Worker):
        def evaluate(self, number: int, text: str) -> ray_workers._Answer:
            if not os.path.exists("failed"):
                Path("failed").touch()
                raise OSError("no more processes can be started")
            return super().evaluate(number, text)

    monkeypatch.setattr(ray_workers, "_Worker", Failing)
    monkeypatch.chdir(tmp_path)
    workers = RayWorkers(Evaluator(tmp_path), cpus=2, retries=1)
    found = gather(workers, {0: space.text_of(space.member(0), "fine")})
    workers.close()
    assert found[0].fault is None
    assert Path("failed").exists()


def test_a_worker_that_dies_between_trials_costs_none(
    cluster: None, space: Space, tmp_path: Path
) -> None:
    workers = RayWorkers(Evaluator(tmp_path), slots=1, retries=0)
    for number in range(2):
        workers.submit(number, space.text_of(space.member(number), f"t{number}"))
        ((ended, evaluation),) = workers.wait()
        assert (ended, evaluation.fault) == (number, None)
        pid = begun(tmp_path)[-1][1]
        os.kill(pid, signal.SIGKILL)
        give_up = time.monotonic() + 30
        while alive(pid) and time.monotonic() < give_up:
            time.sleep(0.05)
    workers.close()
    assert [name for name, _ in begun(tmp_path)] == ["t0", "t1"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_program_ends_with_its_worker(
    killed: bool, cluster: None, space: Space, tmp_path: Path
) -> None:
    note = tmp_path / "pids"
    command = f"sh -c 'echo $$ $PPID > {note}.part; mv {note}.part {note}; sleep 600; echo 1'"
    workers = RayWorkers("", program=command, slots=1)
    workers.submit(0, space.text_of(space.member(0)))
    give_up = time.monotonic() + 30
    while not note.exists() and time.monotonic() < give_up:
        workers._assign()
        for ref in workers._ray.wait([*workers._running, *workers._starting], timeout=0.1)[0]:
            workers._settle(ref)
    pids = [int(word) for word in note.read_text().split()]
    if killed:
        # The program's parent is the worker's child.
        stat = Path(f"/proc/{pids[1]}/stat").read_text()
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    else:
        workers.close()
    while any(map(alive, pids)) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert not any(map(alive, pids))
    workers.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_a_cluster_cannot_give(cluster: None) -> None:
    with pytest.raises(ValueError, match="no node of the cluster has 3 CPU and 0 GPU"):
        RayWorkers("digits", cpus=3)
    for wrong, message in (
        ({"slots": 0}, "slots 0"),
        ({"cpus": -1}, "cpus -1"),
        ({"cpus": 0}, "needs a CPU or a GPU"),
        ({"gpus": float("nan")}, "gpus nan"),
        ({"retries": -1}, "retries -1"),
        ({"timeout": 0.0}, "timeout 0"),
    ):
        with pytest.raises(ValueError, match=message):
            RayWorkers("digits", **wrong)


COUNTING = """
import os, time
from archdsl.search.identity import canonical_hash

def count(arch):
    # The fifth waits to be killed, the ninth to be interrupted.
    print("counting")
    mine = f"{canonical_hash(arch)} {os.getppid()}"
    with open("begun", "a") as file:
        file.write(mine + "\\n")
    if open("begun").read().split("\\n").index(mine) in (4, 8):
        time.sleep(600)
    return arch.total.params
"""


def test_a_search_of_the_command_line_loses_nothing(cluster: None, tmp_path: Path) -> None:
    """One worker is killed; the search is interrupted, and the same command goes on."""
    ray = pytest.importorskip("ray")
    (tmp_path / "ray_counting.py").write_text(COUNTING)
    words = ["search", str(DOCS / "tiny_space.arch"), "--evaluator", "ray_counting:count"]
    words += ["--algorithm", "random", "--budget", "12", "-o", "out", "--engine", "ray"]
    words += ["--ray-address", ray.get_runtime_context().gcs_address]

    def searching() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "archdsl", *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(found: Callable[[list[tuple[str, int]]], bool]) -> list[tuple[str, int]]:
        give_up = time.monotonic() + 60
        while not found(begun(tmp_path)):
            assert search.poll() is None and time.monotonic() < give_up
            time.sleep(0.1)
        return begun(tmp_path)

    search = searching()
    victim, pid = until(lambda lines: len(lines) > 4)[4]
    os.kill(pid, signal.SIGKILL)
    until(lambda lines: len(lines) > 8 and [name for name, _ in lines].count(victim) == 2)
    search.send_signal(signal.SIGINT)
    out, err = search.communicate(timeout=60)
    assert (search.returncode, out) == (130, ""), err
    assert "the same command goes on" in err
    before = len(begun(tmp_path))
    search = searching()
    out, err = search.communicate(timeout=60)
    assert search.returncode == 0, err
    trials = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").open()]
    trials = [trial for trial in trials if trial["same_as"] is None]
    assert len(trials) == 12
    assert {trial["state"] for trial in trials} == {"complete"}
    assert all(trial["accuracy"] == trial["params"] for trial in trials)
    assert (tmp_path / "out" / "evaluator.log").read_text().count("counting") == 12
    # What was under way is tried again, and nothing else.
    first, second = (
        Counter(name for name, _ in part)
        for part in (begun(tmp_path)[:before], begun(tmp_path)[before:])
    )
    assert len(first.keys() | second.keys()) == 12
    assert 1 <= len(first.keys() & second.keys()) <= 2
    assert first.pop(victim) == 2
    assert {*first.values(), *second.values()} == {1}


DYING = """
import os, signal
from archdsl.search.identity import canonical_hash

def count(arch):
    mine = canonical_hash(arch)
    with open("begun", "a") as file:
        file.write(f"{mine} {os.getppid()}\\n")
    if len(open("begun").readlines()) == 1:
        # The first network's first try: its worker is killed.
        os.kill(os.getppid(), signal.SIGKILL)
    return arch.total.params
"""


def test_a_cluster_that_runs_already_and_wants_a_token(tmp_path: Path) -> None:
    """As `docs/ray.md` has it: `ray start` on a machine, and searches by its addresses."""
    pytest.importorskip("ray")
    (tmp_path / "ray_dying.py").write_text(DYING)
    port = free_port()
    # The paths of Ray's sockets must be short; `auto` finds the cluster of this folder.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
        environment |= {
            "RAY_TMPDIR": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        start = ["start", "--head", "--block", f"--port={port}", "--num-cpus=1"]
        start += ["--include-dashboard=false", "--object-store-memory=80000000"]
        begin = "from ray.scripts.scripts import main; main()"
        with open(tmp_path / "head.log", "wb") as log:
            head = subprocess.Popen(
                [sys.executable, "-c", begin, *start],
                env=environment,
                stdout=log,
                stderr=log,
            )
        try:
            give_up = time.monotonic() + 90
            while b"block forever" not in (tmp_path / "head.log").read_bytes():
                assert head.poll() is None and time.monotonic() < give_up
                time.sleep(0.1)
            for address, budget in ((f"127.0.0.1:{port}", 2), ("auto", 1)):
                words = ["search", str(DOCS / "tiny_space.arch"), "-o", address[:4]]
                words += ["--algorithm", "random", "--evaluator", "ray_dying:count"]
                words += ["--engine", "ray", "--ray-address", address, "--budget", str(budget)]
                done = subprocess.run(
                    [sys.executable, "-m", "archdsl", *words],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                )
                assert done.returncode == 0, done.stderr
                lines = (tmp_path / address[:4] / "trials.jsonl").read_text().splitlines()
                trials = [json.loads(line) for line in lines]
                assert len(trials) == budget
                assert all(trial["accuracy"] == trial["params"] for trial in trials)
        finally:
            head.terminate()
            head.wait(timeout=60)
    # A try whose worker died and another one, a second network; the second search's.
    tries = begun(tmp_path)
    assert len(tries) == 4
    assert tries[0][0] == tries[1][0] != tries[2][0]
    assert tries[0][1] != tries[1][1]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


INTERRUPTED = """
import os, signal, sys, time
from archdsl.search.ray_workers import RayWorkers

def evaluator(arch, first=sys.argv[1], second=sys.argv[2]):
    print("a worker's output is not the driver's")
    if not os.path.exists(first):
        open(first, "w").close()
        os.kill(os.getppid(), signal.SIGKILL)
    open(second, "w").close()
    time.sleep(600)

if __name__ == "__main__":
    workers = RayWorkers(evaluator)
    workers.submit(0, "arch a input 8x8x3 stem { conv_k3_o8 }")
    print(workers._ray.get_runtime_context().gcs_address, flush=True)
    try:
        workers.wait()
    except KeyboardInterrupt:
        workers.close()
        sys.exit(130)
"""


def test_ctrl_c_ends_the_cluster_that_was_started(tmp_path: Path) -> None:
    """Nothing but its own line is printed, though a worker is killed before."""
    pytest.importorskip("ray")
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    begun = tmp_path / "second"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # Its own group, all of which a terminal's Ctrl-C goes to.
    child = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "first"), str(begun)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    give_up = time.monotonic() + 50
    while not begun.exists() and child.poll() is None and time.monotonic() < give_up:
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, "")
    (address,) = out.splitlines()
    port = address.rpartition(":")[2]
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert not [line for line in left.stdout.splitlines() if f":{port} " in f"{line} "]


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray alone would ask for two minutes, and then end the process."""
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address, message in (
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("nonsense", "no Ray cluster: nonsense"),
    ):
        with pytest.raises(ConnectionError, match=message):
            RayWorkers("digits", address=address)
    # Ray's own message for a token that is not sent says nothing of tokens.
    for mode, hint in ((None, "RAY_AUTH_MODE=token here as well$"), ("token", r"nonsense.*\)$")):
        if mode is None:
            monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        else:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
        with pytest.raises(ConnectionError, match=hint):
            RayWorkers("digits", address="nonsense")


def test_a_missing_ray_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "archdsl\[ray\]"'):
        RayWorkers("digits")
