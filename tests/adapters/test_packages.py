"""The adapters in the packages themselves, where these are installed: by each package's own loader and call.

None of them is needed to develop this one: pip install the one to be tried into an environment of its own.
"""

import asyncio
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest


pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

FOLDER = Path("trl_hybrid/adapters").resolve()
PROBLEMS = [("What is 2 + 2?", "4"), ("What is 2 + 3?", "5"), ("What is 1 + 0?", "")]
"""What is answered 4 is right, wrong and unjudgeable."""


@pytest.fixture
def problems(tmp_path):
    """The problems as a data set's file."""
    file = tmp_path / "problems.jsonl"
    rows = [{"question": question, "answer": answer or "\\undefined{"} for question, answer in PROBLEMS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_verl(tmp_path):
    loaders = pytest.importorskip("verl.utils.import_utils")
    for path in ("pkg://trl_hybrid.adapters.verl_reward", str(FOLDER / "verl_reward.py")):
        compute_score = loaders.load_extern_object(path, "compute_score")
        paid = [
            compute_score(data_source="x", solution_str="It is 4.", ground_truth=answer, extra_info={})
            for _, answer in PROBLEMS
        ]
        assert [(row["score"], row["judged"]) for row in paid] == [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]


def test_openrlhf():
    agent = pytest.importorskip("openrlhf.utils.agent")
    executor = agent.SingleTurnAgentExecutor(str(FOLDER / "openrlhf_reward.py"))

    async def paid():
        for question, answer in PROBLEMS:
            query = f"{question}\nIt is 4.</s>"
            yield (await executor._fetch_rewards_via_func([query], [question], [answer]))[0]

    async def collected():
        return [float(info["rewards"]) async for info in paid()]

    assert asyncio.run(collected()) == [1.0, 0.0, 0.0]


def test_ms_swift(monkeypatch):
    utils = pytest.importorskip("swift.utils")
    algorithm = pytest.importorskip("swift.rl_core.grpo_algorithm")
    from swift.rewards import orms

    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TRL_HYBRID_REWARD_MODEL", "data/embedded_reward_model")
    utils.import_external_file(str(FOLDER / "ms_swift_plugin.py"))
    import torch

    rows = []
    for question, answer in PROBLEMS:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "It is 4."}]
        row = {"messages": turns, "solution": answer}
        rows.append(SimpleNamespace(messages=turns, to_reward_row=lambda row=row: row))
    functions = [
        orms[name](args=SimpleNamespace(num_generations=1)) for name in ("math_verifier_reward", "hybrid_reward")
    ]
    paid = algorithm.compute_rewards_per_func(rows, functions, [None, None], torch.device("cpu"))
    assert paid[:2].tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert paid[2].isnan().all()


def test_verifiers():
    vf = pytest.importorskip("verifiers.v1")
    from verifiers.v1.configs.task import TaskConfig
    from verifiers.v1.graph import MessageNode

    class Data(vf.TaskData):
        answer: str

    config = TaskConfig(rewards={"math_verifier": {"fn": "trl_hybrid.adapters.verifiers_reward.math_verifier"}})
    paid = []
    for question, answer in PROBLEMS:
        task = vf.Task(Data(prompt=question, answer=answer), config)
        node = MessageNode(message=vf.AssistantMessage(content="It is 4."), sampled=True)
        agent = vf.AgentInfo(config=vf.AgentConfig())
        trace = vf.Trace(task=vf.TraceTask(type="Task", data=task.data), agent=agent, nodes=[node])
        asyncio.run(task.score(trace))
        paid.append(trace.reward)
    assert paid == [1.0, 0.0, 0.0]


def test_rubric_of_verifiers_up_to_0_3():
    vf = pytest.importorskip("verifiers")
    if not hasattr(vf, "Rubric"):
        pytest.skip("verifiers 0.4 has no Rubric")
    from trl_hybrid.adapters.verifiers_reward import math_rubric

    rubric, paid = math_rubric(), []
    for question, answer in PROBLEMS:
        turns = [{"role": "user", "content": question}], [{"role": "assistant", "content": "It is 4."}]
        state = vf.State(prompt=turns[0], completion=turns[1], answer=answer, task="x", timing={}, input={})
        asyncio.run(rubric.score_rollout(state))
        paid.append(state["reward"])
    assert paid == [1.0, 0.0, 0.0]


def test_lm_eval(problems, tmp_path):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class SaysFour(LM):
        def generate_until(self, requests):
            return ["It is 4."] * len(requests)

        def loglikelihood(self, requests):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    (tmp_path / "sums.yaml").write_text(
        f"""
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {problems}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
process_results: !function trl_hybrid.adapters.lm_eval_metric.process_results
metric_list:
  - {{metric: math_verifier, aggregation: mean, higher_is_better: true}}
  - {{metric: judged, aggregation: mean, higher_is_better: true}}
"""
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    results = lm_eval.simple_evaluate(SaysFour(), tasks=["sums"], task_manager=manager, bootstrap_iters=0)["results"]
    assert results["sums"]["math_verifier,none"] == 0.5
    assert results["sums"]["judged,none"] == pytest.approx(2 / 3)


def test_inspect_ai(tmp_path):
    inspect_ai = pytest.importorskip("inspect_ai")
    from inspect_ai.dataset import Sample
    from inspect_ai.log import read_eval_log
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from trl_hybrid.adapters.inspect_scorer import math_verifier

    samples = [Sample(input=question, target=answer) for question, answer in PROBLEMS]
    answers = [ModelOutput.from_content("mockllm", "It is 4.") for _ in samples]
    for answer in answers:
        answer.usage = ModelUsage()  # else tokens are counted, with a table from the network
    says_four = get_model("mockllm/model", custom_outputs=answers)
    task = inspect_ai.Task(dataset=samples, scorer=math_verifier())
    (log,) = inspect_ai.eval(task, says_four, display="none", log_dir=str(tmp_path / "logs"))
    (score,) = log.results.scores
    assert score.metrics["accuracy"].value == 0.5
    assert (score.scored_samples, score.unscored_samples) == (2, 1)
    assert math.isnan(log.samples[2].scores["math_verifier"].value)

    options = f"--scorer {FOLDER}/inspect_scorer.py@math_verifier --action append --overwrite --display none"
    program = [sys.executable, "-m", "inspect_ai", "score", log.location, *shlex.split(options)]
    subprocess.run(program, check=True)
    again = read_eval_log(log.location)
    assert [score.metrics["accuracy"].value for score in again.results.scores] == [0.5, 0.5]


def test_lighteval():
    metrics = pytest.importorskip("lighteval.metrics")
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    from trl_hybrid.adapters.lighteval_metric import math_verifier

    docs = [Doc(query=question, choices=[answer], gold_index=0) for question, answer in PROBLEMS]
    outputs = metrics.apply_metric([ModelResponse(text=["It is 4."])] * 3, docs, [math_verifier])
    values = [output["math_verifier"] for output in outputs]
    assert values[:2] == [1.0, 0.0]
    assert math.isnan(values[2])
    assert math_verifier.get_corpus_aggregations()["math_verifier"](values) == 0.5
