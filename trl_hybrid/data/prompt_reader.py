"""Prompts as the policy reads them, before it is loaded."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import AutoConfig, AutoTokenizer

from trl_hybrid.errors import InputError


class PromptReader:
    """Renders and tokenizes prompts as TRL's GRPO trainer does; loads a tokenizer and no weights.

    Args:
        model: The policy's id or folder.
        max_completion_length: Tokens of the context that are kept for the completion; `None` for none.
        context: Length of the context where it is not the policy's own (vLLM).
        revision: Branch, tag or commit.
        trust_remote_code: Run code that the policy's repository holds.
        chat_template_kwargs: For the chat template.

    Raises:
        InputError: The tokenizer has no chat template, or the completion takes the whole context.
    """

    def __init__(
        self,
        model: str,
        max_completion_length: int | None,
        context: int | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        shared = {"revision": revision, "trust_remote_code": trust_remote_code}
        self.tokenizer = AutoTokenizer.from_pretrained(model, **shared)
        if self.tokenizer.chat_template is None:
            raise InputError(
                f"The policy's tokenizer needs a chat template, and {model!r} has none. Choose an instruction-tuned "
                "policy, or put a `chat_template.jinja` into its folder."
            )
        config = AutoConfig.from_pretrained(model, **shared).get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        self.context: int | None = context or positions
        self.completion = max_completion_length or 0
        self.chat_template_kwargs = chat_template_kwargs or {}
        if self.room is not None and self.room < 1:
            raise InputError(
                f"max_completion_length must leave room for the prompt in the context of {self.context} tokens of "
                f"{model!r}, got {self.completion}. Lower it."
            )

    @property
    def room(self) -> int | None:
        """Most tokens of a prompt; `None` where the policy names no bound."""
        return None if self.context is None else self.context - self.completion

    def render(self, prompt: list[dict[str, Any]]) -> str:
        """Return the text that the policy reads."""
        return self._apply(prompt, tokenize=False)

    def own_system_message(self) -> str | None:
        """Return the system message that the chat template writes where none is given, `None` where it writes none.

        The text around a given system message is looked for where none was given.
        """
        mark, user = "\x00", [{"role": "user", "content": "?"}]
        bare = self.render(user)
        try:
            before, _, after = self.render([{"role": "system", "content": mark}, *user]).partition(mark)
        except InputError:  # it takes no system message
            return None
        if not after or not bare.startswith(before) or not bare.endswith(after) or len(bare) < len(before + after):
            return None
        return bare[len(before) : len(bare) - len(after)].strip() or None

    def lengths(self, prompts: Sequence[list[dict[str, Any]]]) -> list[int]:
        """Count each prompt's tokens."""
        if not prompts:
            return []
        # Not verbose: that a prompt is too long is said by the report.
        tokens = self._apply(list(prompts), tokenize=True, return_dict=True, tokenizer_kwargs={"verbose": False})
        return [len(ids) for ids in tokens["input_ids"]]

    def _apply(self, prompts: Any, **kwargs: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(
                prompts, add_generation_prompt=True, **kwargs, **self.chat_template_kwargs
            )
        except TemplateError as error:
            raise InputError(
                f"The policy's chat template refuses the prompts: {error}. If it takes no system message, add "
                "--system_prompt '' and ask for the answer in \\boxed{} within the problems."
            ) from error
