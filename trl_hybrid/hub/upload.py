"""From a run's folder to the Hub; a push that failed has lost nothing and can be repeated."""

import shlex
from pathlib import Path

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError

from trl_hybrid.errors import InputError
from trl_hybrid.hub.card import make_card
from trl_hybrid.hub.origin import licence_of
from trl_hybrid.hub.reward_model_card import make_reward_model_card
from trl_hybrid.models.files import weight_files
from trl_hybrid.runs.carried_prompt import CARRIED, save_system_prompt
from trl_hybrid.runs.folder import newest_whole_checkpoint
from trl_hybrid.runs.record import RunRecord, read_record


# No checkpoints, optimizer states, completions or reports, which hold the data set's rows; and no pickle, as
# training_args.bin is one.
WEIGHTS = ["adapter_config.json", "adapter_model*.safetensors", "model*.safetensors", "model.safetensors.index.json"]
SHARED = [
    *WEIGHTS,
    *("config.json", "generation_config.json", CARRIED, "README.md", "curves.png", "chat_template.jinja"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("tokenizer.model", "spiece.model"),
]

# What huggingface_hub raises when a push fails; an upload's own thread wraps in RuntimeError.
FAILURES = (OSError, HTTPError, ValueError, RuntimeError)


def record_to_share(folder: Path) -> RunRecord:
    """Read what a run says of itself that has saved its model.

    Args:
        folder: The run's folder.

    Returns:
        The record, with the settings that the saved model was trained with.

    Raises:
        InputError: There is no such folder, it is no run's that made something to share, or the run has not saved its
            model yet.
    """
    record = read_record(folder)
    if not record.settings:
        raise InputError(
            f"{str(folder)!r} is no run's folder: it has neither summary.json nor settings.json, which the recipe "
            "writes. Give a run's folder, as runs/embedded, and not a checkpoint's."
        )
    if not weight_files(folder):
        raise InputError(
            f"The run in {str(folder)!r} is not finished: it has no saved model"
            + (
                f". Go on with it: --output_dir {folder} --resume_from_checkpoint latest"
                if newest_whole_checkpoint(folder)
                else " and no checkpoint. Train it first."
            )
        )
    if not record.reward_model and not record.made_reward_model:
        raise InputError(
            f"The run in {str(folder)!r} was not trained with a reward, such as a cold start, and this card tells of "
            "one. Push the GRPO run that goes on from it, or upload the folder by `hf upload`."
        )
    return record.at(record.steps)


def push_run(
    folder: Path,
    hub_model_id: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Write the card and upload a finished run; what is on the Hub already is not sent again.

    Args:
        folder: The run's folder.
        hub_model_id: Repository, made where it does not exist; by default the run's own `hub_model_id`, or else the
            folder's name, under the account that is logged in.
        private: Whether a new repository is private; by default the run's `hub_private_repo`, or else as the account
            has it.
        revision: Branch, made where it does not exist; by default the run's `hub_revision`, or else main.
        token: By default that of `hf auth login` or HF_TOKEN.

    Returns:
        The repository's page.

    Raises:
        InputError: As [`record_to_share`]; or the push failed, and the message says why and how to repeat it.
    """
    record = record_to_share(folder)
    name = hub_model_id or record.asked.get("hub_model_id") or record.name
    private = record.asked.get("hub_private_repo") if private is None else private
    revision = revision or record.asked.get("hub_revision")
    again = how_to_repeat(folder, name, private, revision)
    api = HfApi(token=token)
    try:
        url = api.create_repo(name, private=private, exist_ok=True)
        if private and not api.model_info(url.repo_id).private:
            raise InputError(
                f"{url.repo_id} exists and is public, and a private one was asked for. Make it private in its "
                "settings on the Hub, or give another hub_model_id."
            )
        _upload(api, record, url.repo_id, revision)
    except InputError:
        raise
    except KeyboardInterrupt:
        raise InputError(f"The push was interrupted.\n{again}") from None
    except FAILURES as error:
        raise InputError(f"{_reason(error, name)}\n{again}") from error
    return str(url)


def _upload(api: HfApi, record: RunRecord, name: str, revision: str | None) -> None:
    _card(api, record, name).save(record.folder / "README.md")
    if revision is not None:
        api.create_branch(name, branch=revision, exist_ok=True)
    what = "reward modelling" if record.made_reward_model else "GRPO with the hybrid reward"
    api.upload_folder(
        repo_id=name,
        folder_path=record.folder,
        allow_patterns=SHARED,
        # Weights of an earlier push that this run has not, such as the shards of a larger model.
        delete_patterns=WEIGHTS,
        revision=revision,
        commit_message=f"{record.steps or 'Some'} steps of {what}",
    )


def _card(api: HfApi, record: RunRecord, name: str) -> ModelCard:
    base = licence_of(record.base_model, api)
    if record.made_reward_model:
        return make_reward_model_card(record, name, base)
    save_system_prompt(record.folder, record.asked.get("system_prompt"))
    return make_card(record, name, {"model": base, "reward_model": licence_of(record.reward_model, api)})


def how_to_repeat(folder: Path, name: str, private: bool | None, revision: str | None) -> str:
    """Say that nothing is lost, and the command that pushes again: to the same place, and as private."""
    command = ["trl-hybrid", "push", str(folder), "--hub_model_id", name]
    command += ["--private"] if private else []
    command += ["--hub_revision", revision] if revision else []
    return f"Nothing of the run is lost: it lies in {folder}. To push it again:\n  {shlex.join(command)}"


def _reason(error: Exception, name: str) -> str:
    """Name what went wrong and what helps, without the request's headers."""
    cause = error.__cause__ if type(error) is RuntimeError and isinstance(error.__cause__, Exception) else error
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    if status == 401 or isinstance(cause, LocalTokenNotFoundError):
        return f"Pushing to {name} needs a login: run `hf auth login`, with a token that may write."
    if status == 403:
        return (
            f"The account or its token may not write to {name}. Check the name before the slash, and that the token "
            "has the right to write (`hf auth whoami`)."
        )
    if isinstance(cause, HFValidationError):
        return f"hub_model_id must be a name such as you/name, got {name!r}."
    if isinstance(cause, ConnectionError) or (isinstance(cause, HTTPError) and status is None):
        return f"The network or the Hub failed: {str(cause).splitlines()[0]}"
    text = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    what = str(error).strip() + " " if cause is not error else ""
    return f"The push to {name} failed: {what}{text}"
