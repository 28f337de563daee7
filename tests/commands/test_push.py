"""`trl-hybrid push` against a Hub on this machine: the real client, the real protocol, the faults of a network."""

import json
import re
import subprocess
import sys

import pytest
import torch
from hub_run import SYSTEM_PROMPT, make_reward_model_run, make_run
from hub_server import READ_ONLY, TOKEN, HubServer, Repository, client_env
from safetensors.torch import load, save_file

from trl_hybrid.cli import main
from trl_hybrid.reward_model import RewardModel


PUSHED = {
    ".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
    "curves.png", "tokenizer.json", "tokenizer_config.json", "trl_hybrid.json",
}  # fmt: skip


class Client:
    """A process whose `trl-hybrid` knows one Hub, by its environment."""

    def __init__(self, hub, home):
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "tests/launch/hub_client.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=client_env(hub, home),
        )  # fmt: skip

    def order(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.shown = answer["shown"]
        assert TOKEN not in self.shown
        return answer["status"]

    def push(self, *args, token=TOKEN):
        return self.order(args=["push", *map(str, args)], env={"HF_TOKEN": token})


@pytest.fixture(scope="module")
def server():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    client = Client(server, tmp_path_factory.mktemp("home"))
    yield client
    client.process.communicate(timeout=30)


@pytest.fixture
def hub(server):
    """The Hub as it is on the first day."""
    for record in (server.repositories, server.objects, server.requests, server.faults):
        record.clear()
    return server


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", system_prompt=SYSTEM_PROMPT)


def test_what_was_pushed_loads_from_the_hub_and_answers_by_its_own_card(hub, client, run):
    assert client.push(run, "--hub_model_id", "me/tiny") == 0
    assert f"Pushed: {hub.endpoint}/me/tiny" in client.shown
    files = hub.files("me/tiny")
    assert set(files) == PUSHED
    assert files["adapter_model.safetensors"] == (run / "adapter_model.safetensors").read_bytes()
    assert not hub.repositories["me/tiny"].private

    code = re.search(r"```python\n(.*?)```", files["README.md"].decode(), re.DOTALL)[1]
    assert repr(SYSTEM_PROMPT) in code
    assert json.loads(files["trl_hybrid.json"]) == {"system_prompt": SYSTEM_PROMPT}
    assert client.order(code=f"{code}\nprint(type(model).__name__, model.peft_config['default'].r)") is None
    assert "PeftModelForCausalLM 4" in client.shown
    assert hub.count(r"GET /lfs/") == 1
    home = "trl_hybrid.runs.carried_prompt"
    asked = f"from {home} import carried_prompt\nprint([*map(carried_prompt, ['me/tiny', 'me/no'])])"
    assert client.order(code=asked) is None
    assert client.shown.strip() == repr([{"system_prompt": SYSTEM_PROMPT}, {}])


def test_pushing_again_sends_and_commits_nothing(hub, client, run):
    client.push(run, "--hub_model_id", "me/tiny")
    before = hub.repositories["me/tiny"].branches["main"][:]
    uploads = hub.count("PUT /lfs/")
    assert client.push(run, "--hub_model_id", "me/tiny") == 0
    assert hub.repositories["me/tiny"].branches["main"] == before
    assert hub.count("PUT /lfs/") == uploads == 2


def test_dropped_line_in_the_middle_of_the_weights_is_tried_again(hub, client, run):
    hub.cut("PUT /lfs/", times=2)
    assert client.push(run, "--hub_model_id", "me/tiny") == 0
    assert hub.count("PUT /lfs/") == 4
    assert load(hub.files("me/tiny")["adapter_model.safetensors"]).keys()


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ("PUT /lfs/", 400, "Error while uploading"),
        ("/commit/main", 500, "500 Internal Server Error"),
        ("/api/repos/create", 403, "may not write to me/tiny"),
        ("/preupload/", 401, "needs a login: run `hf auth login`"),
    ],
)
def test_failed_push_says_why_and_how_to_repeat_and_the_repeat_works(hub, client, run, request_, status, said):
    weights = (run / "adapter_model.safetensors").read_bytes()
    hub.fail(request_, status, times=2)
    assert client.push(run, "--hub_model_id", "me/tiny") == 2
    assert said in client.shown
    assert f"trl-hybrid push {run} --hub_model_id me/tiny" in client.shown
    assert (run / "adapter_model.safetensors").read_bytes() == weights
    hub.faults.clear()
    assert client.push(run, "--hub_model_id", "me/tiny") == 0
    assert set(hub.files("me/tiny")) == PUSHED


@pytest.mark.parametrize(
    ("token", "name", "said"),
    [
        (None, "me/tiny", "needs a login"),
        ("hf_unknown", "me/tiny", "needs a login"),
        (READ_ONLY, "me/tiny", "may not write to me/tiny"),
        (TOKEN, "others/tiny", "may not write to others/tiny"),
        (TOKEN, "me/ti ny", "must be a name such as you/name"),
    ],
)
def test_who_may_not_push_is_told_so(hub, client, run, token, name, said):
    assert client.push(run, "--hub_model_id", name, token=token) == 2
    assert said in client.shown
    assert hub.repositories == {}


def test_private_branch_and_default_name(hub, client, run):
    assert client.push(run, "--private", "--hub_revision", "second") == 0
    assert hub.repositories["me/tiny"].private
    assert set(hub.files("me/tiny", "second")) == PUSHED
    assert set(hub.files("me/tiny")) == {".gitattributes"}


def test_public_repository_is_not_taken_for_a_private_one(hub, client, run):
    client.push(run, "--hub_model_id", "me/tiny")
    assert client.push(run, "--hub_model_id", "me/tiny", "--private") == 2
    assert "me/tiny exists and is public" in client.shown


def test_weights_that_the_run_has_not_are_taken_off(hub, client, run):
    client.push(run, "--hub_model_id", "me/tiny")
    old = {"model-00001-of-00002.safetensors": b"x", "model.safetensors.index.json": b"{}", "notes.txt": b"mine"}
    hub.repositories["me/tiny"].commit("main", old)
    assert client.push(run, "--hub_model_id", "me/tiny") == 0
    assert set(hub.files("me/tiny")) == {*PUSHED, "notes.txt"}


def test_broken_adapter_is_not_pushed(hub, client, run, tmp_path):
    folder = make_run(tmp_path / "broken")
    (folder / "adapter_model.safetensors").write_bytes(b"cut off")
    assert client.push(folder, "--hub_model_id", "me/tiny") == 2
    assert "adapter_model.safetensors cannot be read" in client.shown
    assert hub.requests == []


def test_base_model_that_is_not_here_is_not_downloaded_for_the_check(hub, client, tmp_path):
    folder = make_run(tmp_path / "moved", base="me/base")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "me/base"}))
    assert client.push(folder, "--hub_model_id", "me/tiny") == 0
    assert "Only the adapter's own weights were checked: me/base is not on this machine" in client.shown
    assert hub.count("GET /me/base/resolve/") == 0


def test_origin_of_a_model_is_the_commit_in_the_cache_and_its_card_s_licence(hub, client):
    base = hub.repositories["lab/base"] = Repository()
    loaded = base.commit("main", {"config.json": b"{}", "README.md": b"---\nlicense: apache-2.0\n---\n"})
    code = """
from huggingface_hub import HfApi, hf_hub_download
from trl_hybrid.hub.origin import commit_of, licence_of
print(commit_of("lab/base"))
hf_hub_download("lab/base", "config.json")
print(commit_of("lab/base"), licence_of("lab/base", HfApi()), licence_of("lab/none", HfApi()))
"""
    client.order(code=code)
    assert client.shown.splitlines() == ["None", f"{loaded} apache-2.0 None"]


@pytest.mark.parametrize("options", [[], ["--private", "--hub_revision", "second"]])
def test_no_network_is_said_with_the_command_that_pushes_to_the_same_place_and_as_private(run, capsys, options):
    args = ["push", str(run), "--hub_model_id", "me/tiny", *options]
    # The tests' own process is offline.
    with pytest.raises(SystemExit):
        main(args)
    shown = capsys.readouterr().err
    assert "The network or the Hub failed: Cannot reach" in shown
    assert shown.splitlines()[-1] == " ".join(["  trl-hybrid", *args])


def test_check_finds_a_token_that_the_hub_refuses(hub, client):
    code = """
from trl_hybrid.checks.machine import check_hub
for found in check_hub():
    print(found.status, found.text)
"""
    for token, said in (
        (TOKEN, "ok Logged in as me"), ("hf_unknown", "problem The Hub refuses the token"), (None, "note Nobody is"),
    ):  # fmt: skip
        client.order(code=code, env={"HF_TOKEN": token})
        assert said in client.shown


def test_before_a_run_is_paid_for_the_hub_is_asked_who_may_push(hub, client):
    code = """
from trl_hybrid.training.config import HybridGRPOConfig
from trl_hybrid.errors import InputError
from trl_hybrid.recipe.preflight import check_push
for name, token in {asked}:
    try:
        check_push(HybridGRPOConfig("unused", use_cpu=True, hub_model_id=name, hub_token=token))
        print(name, "fine")
    except InputError as error:
        print(name, error)
"""
    asked = [("me/a", TOKEN), ("lab/b", None), (None, TOKEN), ("me/c", READ_ONLY), ("others/d", TOKEN), ("me/e", "no")]
    client.order(code=code.replace("{asked}", repr(asked)), env={"HF_TOKEN": TOKEN})
    for said in (
        "me/a fine", "lab/b fine", "None fine", "me/c The token of 'me' may not write to 'me/c'",
        "others/d The token of 'me' may not write to 'others/d'", "me/e push_to_hub needs the network and a login",
    ):  # fmt: skip
        assert said in client.shown
    assert hub.repositories == {}


def test_folder_that_is_no_finished_run(tmp_path, capsys):
    empty, stopped, resumable, cold_start = (tmp_path / name for name in ("empty", "stopped", "resumable", "cold"))
    for folder in (empty, stopped, resumable, cold_start):
        folder.mkdir()
    for folder in (stopped, resumable, cold_start):
        (folder / "settings.json").write_text('{"settings": {"tasks": {}}}')
    save_file({"weight": torch.ones(1)}, cold_start / "model.safetensors")
    checkpoint = resumable / "checkpoint-5"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}")
    save_file({"weight": torch.ones(1)}, checkpoint / "adapter_model.safetensors")
    for folder, said in (
        (tmp_path / "none", "A run's folder must be given"),
        (empty, "is no run's folder: it has neither summary.json nor settings.json"),
        (stopped, "is not finished: it has no saved model and no checkpoint. Train it first."),
        (resumable, f"Go on with it: --output_dir {resumable} --resume_from_checkpoint latest"),
        (cold_start, "was not trained with a reward"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["push", str(folder)])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err


def test_a_reward_model_is_pushed_with_its_card_and_scores_by_it(hub, client, tmp_path):
    folder = make_reward_model_run(tmp_path / "rm", balance_length=True)
    assert client.push(folder, "--hub_model_id", "me/rm") == 0
    files = hub.files("me/rm")
    assert set(files) == {
        ".gitattributes", "README.md", "config.json", "model.safetensors", "chat_template.jinja", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    code = re.search(r"```python\n(.*?)```", files["README.md"].decode(), re.DOTALL)[1]
    assert client.order(code=code) is None
    right, wrong = RewardModel(str(folder)).compute_batch_reward(
        "What is 12 + 30?", ["10 + 30 = 40, and 2 more: \\boxed{42}.", "The answer is \\boxed{32}."]
    )
    assert json.loads(client.shown.splitlines()[-1]) == pytest.approx([right, wrong], abs=1e-4)

    (folder / "model.safetensors").write_bytes(b"cut off")
    assert client.push(folder, "--hub_model_id", "me/rm") == 2
    assert "cannot be shared" in client.shown


@pytest.mark.slow
def test_full_model_too(hub, client, tmp_path):
    folder = make_run(tmp_path / "full", adapter=False)
    assert client.push(folder, "--hub_model_id", "lab/full") == 0
    assert {"config.json", "generation_config.json", "model.safetensors"} <= set(hub.files("lab/full"))
    code = re.search(r"```python\n(.*?)```", hub.files("lab/full")["README.md"].decode(), re.DOTALL)[1]
    assert client.order(code=f"{code}\nprint(type(model).__name__)") is None
    assert "ForCausalLM" in client.shown


@pytest.mark.slow
def test_run_whose_push_failed_is_pushed_by_the_command_that_it_names(hub, client, tmp_path):
    hub.fail("/commit/main", 500)
    launched = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--quiet", "recipes/tinyllama_grpo.py",
            "--config", "recipes/configs/embedded.yaml", "--max_steps", "2", "--save_steps", "1",
            "--max_test_rows", "8", "--per_device_train_batch_size", "16", "--output_dir", tmp_path / "run",
            "--push_to_hub", "--hub_model_id", "me/tiny", "--hub_private_repo", "true",
        ],
        capture_output=True, text=True, env=client_env(hub, tmp_path / "home"),
    )  # fmt: skip
    assert launched.returncode != 0
    assert TOKEN not in launched.stdout + launched.stderr
    assert not any(TOKEN.encode() in file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file())
    # Nothing goes there before the run has ended.
    assert hub.count("POST .*/commit/") == 1
    command = re.search(r"trl-hybrid (push .*)", launched.stderr)[1].split()
    assert client.order(args=command, env={"HF_TOKEN": TOKEN}) == 0
    assert hub.repositories["me/tiny"].private
    assert set(hub.files("me/tiny")) == PUSHED

    card = hub.files("me/tiny")["README.md"].decode()
    assert "Accuracy on 8 problems that training did not see" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    assert client.order(code=code) is None
    assert "The answer is \\boxed{" in client.shown
