"""Accuracy is the mean over problems and samples, and measuring it leaves no trace in training."""

import json
import math
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import GenerationConfig

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, RewardModel
from trl_hybrid.data import load_tasks
from trl_hybrid.policy.generation import Decoding
from trl_hybrid.training import held_out_accuracy
from trl_hybrid.training.held_out_accuracy import HeldOutAccuracy, accuracy, change, judged_answers
from trl_hybrid.training.stop_signals import StopSignals


@pytest.fixture(scope="module")
def tasks():
    return load_tasks("data/addition", split="test", max_rows=24)


def measure(policy, tokenizer, tasks, verifier, decoding, accelerator, **options):
    judged = judged_answers(policy, tokenizer, tasks, verifier, decoding, accelerator, **options)
    return None if judged is None else accuracy(judged.values(), decoding)


def one_by_one(policy, tokenizer, tasks):
    """The oracle: each prompt alone, no padding, and the boxed number compared as a string."""
    right = []
    for task in tasks:
        ids = tokenizer.apply_chat_template(task["prompt"], add_generation_prompt=True, return_tensors="pt")[
            "input_ids"
        ]
        config = GenerationConfig(max_new_tokens=64, do_sample=False, eos_token_id=2, pad_token_id=2)
        out = policy.generate(ids, generation_config=config)
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        right.append(f"\\boxed{{{task['solution']}}}" in text)
    return sum(right) / len(right)


def test_greedy_accuracy_equals_one_prompt_at_a_time(policy, tokenizer, verifier, tasks):
    # Shorter problems among the others, so that batches are padded.
    tasks = [*tasks, *({"prompt": [{"role": "user", "content": f"What is {n} + {n}?"}], "solution": str(2 * n)}
                       for n in range(5, 9))]  # fmt: skip
    measured = measure(policy, tokenizer, tasks, verifier, Decoding(0), Accelerator(cpu=True), batch_size=7)
    expected = one_by_one(policy, tokenizer, tasks)
    assert 0 < expected < 1
    assert measured == {"greedy": expected}


def test_mean_of_samples_is_a_mean_and_not_the_best_of_them(policy, tokenizer, tasks):
    class Alternating:
        """Calls every second completion right; of three answers a problem, the greedy one first."""

        def verify_batch(self, completions, solutions, prompts, truncated):
            assert prompts == [row["prompt"] for row in tasks for _ in range(3)]
            assert solutions == [row["solution"] for row in tasks for _ in range(3)]
            return [SimpleNamespace(correct=i % 3 == 1) for i in range(len(completions))]

    measured = measure(policy, tokenizer, tasks, Alternating(), Decoding(2), Accelerator(cpu=True))
    assert measured == {"greedy": 0.0, "mean_of_2": 0.5}


def test_problems_that_cannot_be_judged_do_not_count(policy, tokenizer, tasks):
    class OneUnjudged:
        def verify_batch(self, completions, solutions, prompts, truncated):
            return [SimpleNamespace(correct=[None, True, True, False][i // 2]) for i in range(len(completions))]

    four = tasks.select(range(4))
    measured = measure(policy, tokenizer, four, OneUnjudged(), Decoding(1), Accelerator(cpu=True))
    assert measured == {"greedy": pytest.approx(2 / 3), "mean_of_1": pytest.approx(2 / 3)}


def test_where_nothing_can_be_judged_accuracy_is_unknown(policy, tokenizer, tasks):
    class Unjudged:
        def verify_batch(self, completions, solutions, prompts, truncated):
            return [SimpleNamespace(correct=None) for _ in completions]

    for decoding, names in ((Decoding(1), {"greedy", "mean_of_1"}), (Decoding(2, greedy=False), {"mean_of_2"})):
        measured = measure(policy, tokenizer, tasks.select(range(2)), Unjudged(), decoding, Accelerator(cpu=True))
        assert set(measured) == names
        assert all(math.isnan(share) for share in measured.values())


def test_without_a_greedy_answer_every_answer_is_a_sample(policy, tokenizer, tasks):
    class FirstRight:
        def verify_batch(self, completions, solutions, prompts, truncated):
            return [SimpleNamespace(correct=i % 4 == 0) for i in range(len(completions))]

    decoding = Decoding(4, greedy=False, max_completion_length=4)
    measured = measure(policy, tokenizer, tasks.select(range(3)), FirstRight(), decoding, Accelerator(cpu=True))
    assert measured == {"mean_of_4": 0.25}


def test_processes_take_turns_and_make_the_same_number_of_calls(tokenizer, tasks, monkeypatch):
    """Five problems on two processes in batches of two: the second one answers the first problem again, uncounted."""
    asked, right = [], [True, False, True, False, True]
    monkeypatch.setattr(
        "trl_hybrid.training.held_out_accuracy.gather_object", lambda rows: asked.append(len(rows)) or rows
    )

    def generate(model, tokenizer, prompts, numbers, decoding, broken_off):
        assert prompts == [tasks[number]["prompt"] for number in numbers]
        asked.append(numbers)
        return [[SimpleNamespace(text=str(right[number]), truncated=number == 2)] for number in numbers]

    class Read:
        def verify_batch(self, completions, solutions, prompts, truncated):
            told = zip(completions, truncated, strict=True)
            return [SimpleNamespace(correct=text == "True" and not cut) for text, cut in told]

    monkeypatch.setattr(held_out_accuracy, "generate_completions", generate)
    shares = []
    for rank in (0, 1):
        accelerator: Any = SimpleNamespace(num_processes=2, process_index=rank, is_main_process=rank == 0)
        five = tasks.select(range(5))
        shares.append(measure(None, tokenizer, five, Read(), Decoding(0), accelerator, batch_size=2)["greedy"])
    assert asked == [[0, 2], [4], 3, [1, 3], [0], 2]
    assert shares == [pytest.approx(2 / 3), 0.0]  # the third problem's answer was cut off


def test_64_problems_are_answered_at_once_unless_said(tokenizer, monkeypatch):
    asked = []

    def generate(model, tokenizer, prompts, numbers, decoding, broken_off):
        asked.append(len(prompts))
        return [[SimpleNamespace(text="", truncated=False)] for _ in prompts]

    class Right:
        def verify_batch(self, completions, solutions, prompts, truncated):
            return [SimpleNamespace(correct=True) for _ in completions]

    monkeypatch.setattr(held_out_accuracy, "generate_completions", generate)
    many: Any = [{"prompt": "P", "solution": "S"}] * 130
    assert measure(None, tokenizer, many, Right(), Decoding(0), Accelerator(cpu=True)) == {"greedy": 1.0}
    assert asked == [64, 64, 2]


def test_told_to_stop_it_breaks_the_answers_off_and_measures_nothing(policy, tokenizer, tasks, verifier):
    stop, passes = StopSignals(SimpleNamespace(accelerator=Accelerator(cpu=True))), []

    def tell(*_):
        passes.append(None)
        if len(passes) == 3:
            stop.received = signal.SIGTERM

    hook = policy.register_forward_hook(tell)
    try:
        measured = measure(policy, tokenizer, tasks, verifier, Decoding(0), Accelerator(cpu=True), stop=stop)
    finally:
        hook.remove()
    assert measured is None
    assert len(passes) == 3


@pytest.mark.parametrize(
    ("rank", "description", "shown"), [(0, "Accuracy then", True), (1, "Accuracy then", False), (0, None, False)]
)
def test_the_bar_is_the_main_processes_and_has_a_name(
    rank, description, shown, policy, tokenizer, tasks, capsys, monkeypatch
):
    class Wrong:
        def verify_batch(self, completions, solutions, prompts, truncated):
            return [SimpleNamespace(correct=False) for _ in completions]

    monkeypatch.setattr("trl_hybrid.training.held_out_accuracy.gather_object", lambda rows: rows)
    accelerator: Any = SimpleNamespace(num_processes=2, process_index=rank, is_main_process=rank == 0)
    decoding = Decoding(0, max_completion_length=2)
    measure(policy, tokenizer, tasks.select(range(2)), Wrong(), decoding, accelerator, description=description)
    printed = capsys.readouterr().err
    assert ("Accuracy then" in printed) is shown
    assert not printed.endswith("\n")  # it makes room for the next line
    assert bool(printed) is shown


def test_the_number_of_processes_and_the_batch_make_no_difference(policy, tokenizer, tasks, verifier, monkeypatch):
    decoding, seven = Decoding(2, temperature=1.0, seed=3), tasks.select(range(7))

    def share(rank, world):
        accelerator = SimpleNamespace(num_processes=world, process_index=rank, is_main_process=rank == 0)
        return measure(policy, tokenizer, seven, verifier, decoding, accelerator, batch_size=2)["mean_of_2"]

    monkeypatch.setattr("trl_hybrid.training.held_out_accuracy.gather_object", lambda rows: rows)
    assert share(0, 1) * 7 == pytest.approx(share(0, 2) * 4 + share(1, 2) * 3)


def greedy(right, problems=8):
    """So many of eight problems are answered right."""
    return {number: [number < right] for number in range(problems)}


def shares(callback):
    return {name: {when: values[when] for when in ("before", "after")} for name, values in callback.figures().items()}


class TestHeldOutAccuracy:
    @pytest.fixture
    def first_run(self, tmp_path, tasks):
        callback = HeldOutAccuracy(None, tasks, None, tmp_path, num_samples=0)
        measured = iter([greedy(2), greedy(6)])
        callback._measure = lambda when: next(measured)
        callback.on_train_begin(None, SimpleNamespace(is_world_process_zero=True), None)
        callback.on_train_end(None, None, None)
        assert shares(callback) == {"greedy": {"before": 0.25, "after": 0.75}}
        return tmp_path

    def resumed(self, checkpoint, tasks, folder):
        callback = HeldOutAccuracy(None, tasks, None, folder, checkpoint=str(checkpoint), num_samples=0)
        callback._measure = lambda when: greedy(7)
        callback.on_train_begin(None, SimpleNamespace(is_world_process_zero=True), None)
        callback.on_train_end(None, None, None)
        return shares(callback)["greedy"]

    def test_resumed_run_keeps_the_figure_of_the_untrained_policy(self, first_run, tasks, tmp_path):
        assert self.resumed(first_run / "checkpoint-2", tasks, first_run) == {"before": 0.25, "after": 0.875}
        elsewhere = tmp_path / "elsewhere"
        assert self.resumed(first_run / "checkpoint-2", tasks, elsewhere) == {"before": 0.25, "after": 0.875}
        assert self.resumed(elsewhere / "checkpoint-4", tasks, elsewhere) == {"before": 0.25, "after": 0.875}

    def test_a_file_of_an_earlier_version_is_no_figure_and_no_fault(self, first_run, tasks):
        file = first_run / "accuracy_before.json"
        kept = json.loads(file.read_text())
        file.write_text(json.dumps({"problems": kept["problems"], "accuracy": {"greedy": 0.25}}))
        assert self.resumed(first_run / "checkpoint-2", tasks, first_run) == {"before": None, "after": 0.875}

    def test_figure_of_other_problems_or_none_is_unknown_and_never_that_of_trained_weights(
        self, first_run, tasks, tmp_path
    ):
        fewer, other = tasks.select(range(3)), tasks.select(reversed(range(len(tasks))))
        assert self.resumed(first_run / "checkpoint-2", fewer, first_run) == {"before": None, "after": 0.875}
        assert self.resumed(first_run / "checkpoint-2", other, first_run) == {"before": None, "after": 0.875}
        stray = tmp_path / "stray" / "checkpoint-2"
        assert self.resumed(stray, tasks, tmp_path) == {"before": None, "after": 0.875}


class TestWhenItIsMeasured:
    def callback(self, folder, every, **options):
        callback: Any = HeldOutAccuracy(None, [], None, folder, every=every, num_samples=0, **options)
        measured, logged = [], []
        callback._measure = lambda when: measured.append(when) or greedy(len(measured))
        callback._log = logged.append
        return callback, measured, logged

    def state(self, step, last=7, main=True):
        return SimpleNamespace(global_step=step, max_steps=last, is_world_process_zero=main)

    def train(self, callback, steps, last=7):
        callback.on_train_begin(None, self.state(0), None)
        for step in steps:
            callback.on_step_end(None, self.state(step, last), None)
        callback.on_train_end(None, self.state(steps[-1], last), None)

    def test_every_so_many_steps_and_after_the_last_one_which_is_not_measured_twice(self, tmp_path):
        callback, measured, logged = self.callback(tmp_path, every=3)
        assert callback.figures() == {}
        self.train(callback, range(1, 8))
        assert measured == ["before training", "at step 3", "at step 6", "at step 7"]
        assert logged == [greedy(count) for count in (1, 2, 3, 4)]
        assert shares(callback) == {"greedy": {"before": 0.125, "after": 0.5}}

    def test_a_run_that_stops_elsewhere_is_measured_where_it_stops(self, tmp_path):
        callback, measured, _ = self.callback(tmp_path, every=3)
        self.train(callback, range(1, 6))
        assert measured == ["before training", "at step 3", "after training"]
        assert shares(callback) == {"greedy": {"before": 0.125, "after": 0.375}}

    def test_before_and_after_alone_unless_said_and_not_among_the_logs(self, tmp_path):
        callback, measured, logged = self.callback(tmp_path, every=None)
        self.train(callback, range(1, 8))
        assert measured == ["before training", "after training"]
        assert logged == []

    def test_only_the_main_process_writes_the_first_figure(self, tmp_path):
        for main in (False, True):
            callback, _, _ = self.callback(tmp_path / str(main), every=None)
            callback.folder.mkdir()
            callback.on_train_begin(None, self.state(0, main=main), None)
            assert (tmp_path / str(main) / "accuracy_before.json").exists() is main
        found = json.loads((tmp_path / "True" / "accuracy_before.json").read_text())
        assert found["right"] == {str(number): [number == 0] for number in range(8)}

    def test_what_was_not_measured_before_is_unknown(self, tmp_path):
        callback, _, _ = self.callback(tmp_path, every=None)
        callback.after = greedy(6)
        unknown = {"before": None, "change": None, "low": None, "high": None}
        assert callback.figures() == {"greedy": {**unknown, "after": 0.75}}


def test_the_change_is_one_of_the_same_problems_with_its_interval():
    """Of three problems that both have, samples go from 0, 1/2, 1 to 1/2, 1/2, 1: by 1/6, all in the first."""
    before = {0: [False, False, False], 1: [True, True, False], 2: [True, True, True], 7: [True, True, True]}
    after = {0: [True, True, False], 1: [True, False, True], 2: [False, True, True], 8: [False, False, False]}
    found = change(before, after, Decoding(num_samples=2), seed=0)
    assert found["greedy"][0] == pytest.approx(0.0)
    mean, low, high = found["mean_of_2"]
    assert mean == pytest.approx(1 / 6)
    assert (low, high) == (0.0, 0.5)  # none of three drawn problems is the first, or all are
    assert change({1: [True]}, {2: [True]}, Decoding(num_samples=0)) == {}


def test_the_policy_is_measured_as_it_is_trained(policy, tokenizer, tasks, verifier, tmp_path, monkeypatch):
    """Prompts are rendered and answers are drawn as the trainer does it."""
    own = {
        "max_completion_length": 24, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
        "repetition_penalty": 1.1, "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
    trainer: Any = SimpleNamespace(
        **own, args=SimpleNamespace(seed=3, per_device_eval_batch_size=2), accelerator=Accelerator(cpu=True),
        model_wrapped=policy, processing_class=tokenizer,
    )  # fmt: skip
    found = []
    monkeypatch.setattr(
        held_out_accuracy,
        "judged_answers",
        lambda *args, **kwargs: found.append((args[4], args[0].training)) or {},
    )
    policy.train()
    HeldOutAccuracy(trainer, tasks, verifier, tmp_path)._measure("then")
    # Without dropout, and then with it again.
    assert found == [(Decoding(num_samples=8, seed=3, **own), False)]
    assert policy.training
    policy.eval()


@pytest.mark.parametrize("training", [True, False])
def test_answers_are_given_in_evaluation_mode_and_the_mode_is_then_what_it_was(
    training, tokenizer, tasks, verifier, tmp_path, monkeypatch
):
    model: Any = torch.nn.Dropout().train(training)
    model.is_gradient_checkpointing, modes = False, []
    stop_signals: Any = SimpleNamespace()
    trainer: Any = SimpleNamespace(
        max_completion_length=4, temperature=1.0, top_p=1.0, top_k=0, min_p=None, repetition_penalty=1.0,
        chat_template_kwargs=None, args=SimpleNamespace(seed=0, per_device_eval_batch_size=9),
        accelerator=Accelerator(cpu=True), model_wrapped=model, processing_class=tokenizer,
    )  # fmt: skip

    def measured(*args, batch_size, description, stop):
        assert args == (model, tokenizer, tasks, verifier, args[4], trainer.accelerator)
        assert stop is stop_signals
        modes.append((args[0].training, batch_size, description))
        if len(modes) == 2:
            raise RuntimeError("out of memory")
        return greedy(8)

    monkeypatch.setattr(held_out_accuracy, "judged_answers", measured)
    callback = HeldOutAccuracy(trainer, tasks, verifier, tmp_path, num_samples=2, stop=stop_signals)
    assert callback._measure("then") == greedy(8)
    assert model.training is training
    trainer.args.per_device_eval_batch_size = 1
    with pytest.raises(RuntimeError, match="out of memory"):
        callback._measure("again")
    assert model.training is training
    # 9 prompts of 2 samples are the sequences of 6 prompts of 2 samples and a greedy answer; one prompt is the least.
    assert modes == [(False, 6, "Accuracy then"), (False, 1, "Accuracy again")]


class TestDuringTraining:
    def train(self, folder, verifier, every):
        """Three steps, each of its own generation."""
        torch.manual_seed(0)
        trainer = HybridGRPOTrainer(
            "data/embedded_policy",
            args=HybridGRPOConfig(
                str(folder), num_generations=4, per_device_train_batch_size=8, max_completion_length=24, max_steps=3,
                learning_rate=1e-3, use_cpu=True, report_to="none", gradient_checkpointing=False, logging_steps=1,
                save_strategy="no", temperature=1.0, per_device_eval_batch_size=4, disable_tqdm=True,
            ),
            train_dataset=load_tasks("data/addition", split="train", max_rows=12),
            verifier=verifier,
            reward_model=RewardModel("data/embedded_reward_model", system_prompt="Reason."),
        )  # fmt: skip
        tasks = load_tasks("data/addition", split="test", max_rows=4)
        held_out = HeldOutAccuracy(trainer, tasks, verifier, folder, num_samples=2, every=every)
        trainer.add_callback(held_out)
        trainer.train()
        return trainer, held_out

    def test_measuring_is_logged_and_leaves_no_trace(self, tmp_path, verifier, capsys):
        plain, _ = self.train(tmp_path / "plain", verifier, every=None)
        measured, held_out = self.train(tmp_path / "measured", verifier, every=2)
        for one, other in zip(plain.model.parameters(), measured.model.parameters(), strict=True):
            assert torch.equal(one, other)

        def kept(trainer):
            timed = ("step_time", "time/", "train_runtime", "train_samples_per_second", "train_steps_per_second")
            rows = [row for row in trainer.state.log_history if "eval_accuracy_greedy" not in row]
            return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]

        assert len(kept(plain)) == 4  # one a step, and the closing one
        assert str(kept(measured)) == str(kept(plain))  # NaN equals itself as text

        logged = [row for row in measured.state.log_history if "eval_accuracy_greedy" in row]
        assert [row["step"] for row in logged] == [0, 2, 3]
        last = {name: logged[-1][f"eval_accuracy_{name}"] for name in ("greedy", "mean_of_2")}
        assert shares(held_out) == {
            name: {"before": logged[0][f"eval_accuracy_{name}"], "after": last[name]} for name in last
        }
        said = "greedy {eval_accuracy_greedy:.1%}, mean of 2 {eval_accuracy_mean_of_2:.1%}".format_map(logged[1])
        assert f"step    2 | accuracy on 4 problems: {said}\n" in capsys.readouterr().out
