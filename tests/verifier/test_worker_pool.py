"""What happens to the processes: deadlines, kills, caps, and that none of them stays behind."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from trl_hybrid.data.golds import find_faults
from trl_hybrid.verifier import MathVerifier
from trl_hybrid.verifier.process import WorkerProcess, _cpu_seconds


EASY = (r"\boxed{y + x}", "x + y")
ENDLESS = (r"\boxed{\binom{9999}{5000}^{20000}}", "7")  # passes the guard; big integers keep C code busy for minutes
COSTLY = (
    r"\boxed{\sin(x)^2+\frac{\sqrt6+\sqrt2}{4}}",
    r"\cos(15^\circ)+1-\cos(x)^2",
)  # right, after 0.3 s of CPU time


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def run_script(tmp_path, body):
    """Start a main script, whose output is read line by line."""
    script = tmp_path / "main.py"
    script.write_text(textwrap.dedent(body))
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    )


def finish(process):
    """Reap a script whatever became of it."""
    process.kill()
    process.communicate()


@pytest.fixture
def one_worker():
    with MathVerifier(num_workers=1, timeout=1.0) as verifier:
        assert verifier.verify("", *EASY).correct
        yield verifier


def test_nothing_is_started_before_algebra_is_needed():
    verifier = MathVerifier(num_workers=1)
    assert verifier.verify("", r"\boxed{0.5}", "1/2").correct
    assert verifier.worker_pids() == []


def test_an_endless_answer_is_wrong_by_timeout_and_its_worker_is_replaced(one_worker):
    (before,) = one_worker.worker_pids()
    verdict = one_worker.verify("", *ENDLESS)
    assert (verdict.correct, verdict.reward, verdict.reason) == (False, 0.0, "timeout")
    assert not is_running(before)
    assert one_worker.verify("", r"\boxed{a+b}", "b+a").correct
    assert len(one_worker.worker_pids()) == 1


def test_a_gold_that_cannot_be_handled_in_time_is_unjudgeable(one_worker):
    verdict = one_worker.verify("", r"\boxed{8}", ENDLESS[0])
    assert (verdict.correct, verdict.reward, verdict.reason) == (None, None, "unjudgeable")


def test_an_idle_worker_that_was_killed_from_outside_is_replaced(one_worker):
    (pid,) = one_worker.worker_pids()
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not is_running(pid))
    assert one_worker.verify("", r"\boxed{a+b}", "b+a").correct
    assert one_worker.worker_pids() != [pid]


def test_a_busy_worker_that_was_killed_from_outside_does_not_decide_the_verdict(one_worker):
    (pid,) = one_worker.worker_pids()
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    assert one_worker.verify("", r"\boxed{a+b}", "b+a").correct


def test_a_deadline_that_passes_without_cpu_time_is_tried_again(one_worker, monkeypatch):
    monkeypatch.setattr("trl_hybrid.verifier.process.PATIENCE", 2.0)
    (pid,) = one_worker.worker_pids()
    os.kill(pid, signal.SIGSTOP)  # as on a machine that has no time for it
    assert one_worker.verify("", r"\boxed{a+b}", "b+a").correct


def test_a_task_that_a_stopped_worker_does_not_read_ends_at_the_deadline(monkeypatch):
    monkeypatch.setattr("trl_hybrid.verifier.process.PATIENCE", 2.0)
    worker = WorkerProcess(timeout=1.0, memory_limit_mb=512)
    try:
        assert "reason" in worker.ask({"gold": "x", "answer": "y"})
        os.kill(worker.pid, signal.SIGSTOP)
        assert worker.ask({"gold": "x" * 1_000_000, "answer": "y"}) == "starved"  # more than a pipe holds
        assert "reason" in worker.ask({"gold": "x", "answer": "y"})
    finally:
        worker.kill()


@contextmanager
def throttled(pids, share):
    """Let processes run for a share of the time only, as on a machine that is busy with others."""
    done = threading.Event()

    def send(number):
        for pid in pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def throttle():
        while not done.is_set():
            send(signal.SIGSTOP)
            time.sleep(0.05 * (1 - share))
            send(signal.SIGCONT)
            time.sleep(0.05 * share)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        send(signal.SIGCONT)


def test_a_worker_with_little_of_a_core_judges_as_one_with_all_of_it(one_worker):
    with throttled(one_worker.worker_pids, 0.2):
        assert one_worker.verify("", *COSTLY).correct


def test_a_task_gets_all_its_cpu_time_before_it_is_late():
    worker = WorkerProcess(timeout=0.5, memory_limit_mb=512)
    try:
        assert "reason" in worker.ask({"gold": "x", "answer": "y"})
        pid = worker.pid
        start, ended = _cpu_seconds(pid), children_cpu_seconds()
        with throttled(lambda: [pid], 0.4):
            assert worker.ask({"gold": "7", "answer": ENDLESS[0]}) == "late"
        used = children_cpu_seconds() - ended - start
    finally:
        worker.kill()
    assert 0.49 <= used <= 1.0  # the kernel counts in ticks of 0.01 s


def children_cpu_seconds():
    """CPU time of the children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture
def frozen(monkeypatch):
    """Workers that get no CPU time at all, after the first `spared` tasks and until `thaw`."""
    exchange = WorkerProcess._exchange

    def freeze(self, process, task):
        if machine.spared == 0:
            patch.setattr("trl_hybrid.verifier.process.PATIENCE", 2.0)
            os.kill(process.pid, signal.SIGSTOP)
        machine.spared = max(0, machine.spared - 1)
        return exchange(self, process, task)

    with monkeypatch.context() as patch:
        machine = SimpleNamespace(spared=0, thaw=patch.undo)
        patch.setattr(WorkerProcess, "_exchange", freeze)
        yield machine


def test_an_answer_that_starves_is_not_judged_nor_remembered_and_its_gold_not_blamed(one_worker, frozen, caplog):
    one_worker.timeout = 0.2
    one_worker.close()
    verdict = one_worker.verify("", r"\boxed{a+b}", "b+a")
    assert (verdict.correct, verdict.reward, verdict.reason) == (None, None, "starved")
    assert "the machine is too busy" in caplog.text
    assert find_faults(one_worker, ["b+a"]) == {}
    frozen.thaw()
    assert one_worker.verify("", r"\boxed{a+b}", "b+a").correct


def test_a_probe_that_starves_does_not_blame_the_gold(one_worker, frozen):
    one_worker.timeout = 0.2
    one_worker.close()
    frozen.spared = 1  # the answer is late, the innocent one starves, twice
    hopeless = rf"\boxed{{x+{ENDLESS[0][7:-1]}}}", "x+7"
    assert one_worker.verify("", *hopeless).reason == "starved"
    frozen.thaw()
    assert one_worker.verify("", *hopeless).reason == "timeout"


def test_a_start_that_is_late_does_not_blame_the_installation(monkeypatch):
    monkeypatch.setattr("trl_hybrid.verifier.process.START_TIMEOUT", 0.01)
    with MathVerifier(num_workers=1) as verifier, pytest.raises(RuntimeError, match="too busy") as late:
        verifier.verify("", *EASY)
    assert "pip install" not in str(late.value)


@pytest.mark.parametrize("closed", [False, True])
def test_a_failure_of_the_machine_is_not_remembered(monkeypatch, closed):
    verifier = MathVerifier(num_workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(FileNotFoundError):
            verifier.verify("", *EASY)
    if closed:
        verifier.close()
    assert verifier.verify("", *EASY).correct
    verifier.close()


def test_an_error_in_a_feeding_thread_reaches_the_caller_and_the_thread_goes_on(one_worker, monkeypatch):
    def fail(*_):
        raise ValueError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr("trl_hybrid.verifier.pool._judge", fail)
        with pytest.raises(ValueError, match="a defect"):
            one_worker.verify("", r"\boxed{a+b}", "b+a")
    assert one_worker.verify("", r"\boxed{a+c}", "c+a").correct


def test_a_fork_starts_workers_of_its_own(tmp_path):
    process = run_script(
        tmp_path,
        """
        import os

        from trl_hybrid.verifier import MathVerifier

        verifier = MathVerifier(num_workers=1, timeout=60)
        assert verifier.verify("", r"\\boxed{y + x}", "x + y").correct
        verifier.prefetch([r"\\boxed{\\binom{9999}{5000}^{20000}}", r"\\boxed{a + b}"], ["7", "b + a"])
        if (child := os.fork()) == 0:
            with verifier:
                print(verifier.verify("", r"\\boxed{a + b}", "b + a").correct, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(len(verifier.worker_pids()), flush=True)
        """,
    )
    try:
        output, errors = process.communicate(timeout=100)
    finally:
        finish(process)
    assert output.split() == ["True", "1"], errors


def test_a_process_without_standard_input_and_output_can_verify(tmp_path):
    process = run_script(
        tmp_path,
        """
        import os

        for descriptor in (0, 1):
            os.close(descriptor)
        from trl_hybrid.verifier import MathVerifier

        with MathVerifier(num_workers=2) as verifier:
            verdict = verifier.verify("", r"\\boxed{y + x}", "x + y")
        os._exit(0 if verdict.correct else 1)
        """,
    )
    try:
        assert process.wait(timeout=100) == 0
    finally:
        finish(process)


def test_a_run_of_endless_answers_loses_no_slot_and_leaves_no_process():
    with MathVerifier(num_workers=2, timeout=0.3) as verifier:
        seen = set()
        for power in range(19_000, 19_006):
            verdict = verifier.verify("", rf"\boxed{{\binom{{9999}}{{5000}}^{{{power}}}}}", "7")
            assert verdict.reason == "timeout"
            seen.update(verifier.worker_pids())
        assert verifier.verify("", *EASY).correct
        assert wait_until(lambda: len(verifier.worker_pids()) == 2)
    assert wait_until(lambda: not any(is_running(pid) for pid in seen))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_hundred_hostile_answers_leave_pool_and_memory_as_they_were():
    with MathVerifier(num_workers=2, timeout=0.5) as verifier:
        assert verifier.verify("", *EASY).correct
        completions = [rf"\boxed{{\binom{{9999}}{{5000}}^{{{power}}}}}" for power in range(19_000, 19_200)]
        verdicts = verifier.verify_batch(completions, ["7"] * 200)
        assert {verdict.reason for verdict in verdicts} == {"timeout"}
        assert verifier.verify("", r"\boxed{a+b}", "b+a").correct
        assert wait_until(lambda: len(verifier.worker_pids()) == 2)
        assert all(resident_mb(pid) < 150 for pid in verifier.worker_pids())


def resident_mb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def test_a_worker_is_small_and_capped_by_the_kernel(one_worker):
    (pid,) = one_worker.worker_pids()
    assert resident_mb(pid) < 120
    limits = Path(f"/proc/{pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max address space")]
    assert line.split()[3] == str(512 * 2**20)


def test_workers_import_neither_the_main_script_nor_torch(tmp_path):
    process = run_script(
        tmp_path,
        """
        from pathlib import Path

        import torch
        import trl

        from trl_hybrid.verifier import MathVerifier

        with open(Path(__file__).with_name("imports"), "a") as file:
            file.write("x")
        with MathVerifier(num_workers=1) as verifier:
            assert verifier.verify("", r"\\boxed{y + x}", "x + y").correct
            (pid,) = verifier.worker_pids()
            maps = Path(f"/proc/{pid}/maps").read_text()
            status = Path(f"/proc/{pid}/status").read_text()
            resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
            print("torch" in maps, "numpy" in maps, resident < 120_000, flush=True)
        """,
    )
    try:
        output, errors = process.communicate(timeout=100)
    finally:
        finish(process)
    assert output.split() == ["False", "False", "True"], errors
    assert (tmp_path / "imports").read_text() == "x"


def test_a_worker_lives_on_beside_a_large_parent(tmp_path):
    process = run_script(
        tmp_path,
        """
        from trl_hybrid.verifier import MathVerifier

        weights = b"x" * (400 * 2**20)  # a training process is larger than a worker may become
        with MathVerifier(num_workers=1) as verifier:
            for number in range(5):
                assert verifier.verify("", rf"\\boxed{{{number} + x}}", "7 + x").correct is False
                print(*verifier.worker_pids(), flush=True)
        """,
    )
    try:
        output, errors = process.communicate(timeout=100)
    finally:
        finish(process)
    assert len(output.split()) == 5, errors
    assert len(set(output.split())) == 1


def test_the_modules_of_a_worker_are_light():
    code = "import trl_hybrid.verifier.worker, trl_hybrid.verifier.symbolic, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "trl", "transformers", "numpy"} & set(modules)


def test_importing_the_verifier_imports_no_algebra():
    code = "import trl_hybrid.verifier, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sympy", "math_verify", "torch", "trl", "transformers"} & set(modules)


BUSY = """
    import signal
    import threading
    import time

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored

    from trl_hybrid.verifier import MathVerifier

    verifier = MathVerifier(num_workers=1, timeout=60)
    assert verifier.verify("", r"\\boxed{y + x}", "x + y").correct
    verifier.prefetch([r"\\boxed{\\binom{9999}{5000}^{20000}}"], ["7"])
    time.sleep(0.3)
    print(*verifier.worker_pids(), flush=True)
"""


@pytest.mark.parametrize(
    ("how", "body"),
    [
        ("exit", ""),
        ("exception", "    raise ValueError\n"),
        ("SIGKILL", "    time.sleep(60)\n"),
        ("SIGTERM", "    time.sleep(60)\n"),
        ("SIGINT", "    verifier.verify('', r'\\boxed{\\binom{9999}{5000}^{20000}}', '7')\n"),
    ],
)
def test_no_worker_outlives_its_parent(tmp_path, how, body):
    process = run_script(tmp_path, BUSY + body)
    try:
        (pid,) = [int(word) for word in process.stdout.readline().split()]
        if how.startswith("SIG"):
            time.sleep(0.2)
            assert is_running(pid)
            os.killpg(process.pid, getattr(signal, how))
        process.wait(timeout=100)
        assert wait_until(lambda: not is_running(pid))
    finally:
        finish(process)


def test_an_environment_without_math_verify_is_an_error_that_names_the_fix(monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text("raise ImportError('no math-verify here')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with MathVerifier(num_workers=1) as verifier, pytest.raises(RuntimeError, match=r"pip install 'math-verify"):
        verifier.verify("", *EASY)


def test_closing_twice_and_using_again_is_fine():
    verifier = MathVerifier(num_workers=1)
    assert verifier.verify("", *EASY).correct
    (pid,) = verifier.worker_pids()
    verifier.close()
    verifier.close()
    assert wait_until(lambda: not is_running(pid))
    assert verifier.verify("", r"\boxed{a+b}", "b+a").correct
    verifier.close()
