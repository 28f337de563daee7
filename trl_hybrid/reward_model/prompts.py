"""From a prompt and a completion to the reward model's own token ids: its system prompt, its template, its limit."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.messages import POLICY_ONLY_ROLES, Conversation, Message, as_messages
from trl_hybrid.reward_model.plan import Row, common_start
from trl_hybrid.reward_model.truncation import shorten


SOLUTION_MARK = "THESOLUTIONSTANDSHERE"


@dataclass(frozen=True)
class RenderedRow:
    """One conversation in the reward model's tokens.

    Attributes:
        ids: Token ids, at least one and at most `max_length`.
        shortened: Whether tokens were left out to stay within `max_length`.
    """

    ids: Row
    shortened: bool


class RowRenderer:
    """Renders prompts and completions for one reward model.

    Args:
        tokenizer: The reward model's tokenizer, with a chat template.
        system_prompt: The reward model's system prompt, None for no system turn.
        max_length: Most tokens of a row, None for no limit.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, system_prompt: str | None = None, max_length: int | None = None
    ) -> None:
        if max_length is not None and max_length < 2:
            raise InputError(
                f"`max_length` must be at least 2 tokens, but got {max_length}. Leave it unset for no limit."
            )
        if not tokenizer.chat_template:
            raise InputError(
                f"A reward model's tokenizer needs a chat template, but {tokenizer.name_or_path!r} has none. Save the "
                "template that the model was trained with beside its weights (`tokenizer.chat_template = ...`, then "
                "`save_pretrained`)."
            )
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        self.max_length = max_length
        special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special = re.compile("|".join(map(re.escape, special))) if special else None

    def render(
        self, prompts: Sequence[Conversation], completions: Sequence[Conversation], cut_off: Sequence[bool]
    ) -> list[RenderedRow]:
        """Render one row per completion.

        Args:
            prompts: Problems as raw text, or chat messages whose system turn is left out.
            completions: Solutions as text or as chat messages, one per prompt.
            cut_off: Whether a completion stopped at the length limit. Its row ends with the solution's last token; a
                finished one ends as the template closes the turn.
        """
        texts: list[str] = []
        conversations: list[list[Message]] = []
        for prompt, completion, unfinished in zip(prompts, completions, cut_off, strict=True):
            messages = self._messages(prompt, completion)
            text = self._apply_template(messages)
            texts.append(self._reopen(text, messages) if unfinished else text)
            conversations.append(messages)
        # An empty list of texts is not something that every tokenizer takes.
        rows = self._tokenize(texts) if texts else []
        return [self._fit(row, messages) for row, messages in zip(rows, conversations, strict=True)]

    def _messages(self, prompt: Conversation, completion: Conversation) -> list[Message]:
        """Join the reward model's system prompt, the conversation so far and the solution."""
        messages = [message for message in as_messages(prompt, "user") if message["role"] not in POLICY_ONLY_ROLES]
        if not messages:
            raise InputError(f"A prompt needs a user message for the reward model to judge by, but got {prompt!r}.")
        for answer in as_messages(completion, "assistant"):
            answer = answer | {"content": self._defuse(answer["content"])}
            if messages[-1]["role"] == answer["role"] == "assistant":  # the completion goes on where a prefill stopped
                messages[-1] = messages[-1] | {"content": messages[-1]["content"] + answer["content"]}
            else:
                messages.append(answer)
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        return messages

    def _defuse(self, text: str) -> str:
        """Part the reward model's control tokens where a policy spells them out, so that it cannot forge a turn."""
        if self._special is None:
            return text
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    def _apply_template(self, messages: list[Message]) -> str:
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))
        except TemplateError as error:
            roles = [message["role"] for message in messages]
            raise InputError(
                f"The reward model's chat template must render the roles {roles}, but it says: {error}. If it knows "
                "no system turn, set the reward model's system prompt to none."
            ) from error

    def _around_solution(self, messages: list[Message]) -> tuple[str, str]:
        """Return what the template writes before and after the last message's text."""
        marked = [*messages[:-1], messages[-1] | {"content": SOLUTION_MARK}]
        before, mark, after = self._apply_template(marked).rpartition(SOLUTION_MARK)
        if not mark:
            raise InputError(
                "The reward model's chat template must render the assistant's text, but it drops it. Check the "
                f"template of {self.tokenizer.name_or_path!r}."
            )
        return before, after

    def _reopen(self, text: str, messages: list[Message]) -> str:
        """Take the end of turn away again."""
        _, closing = self._around_solution(messages)
        if not text.endswith(closing):
            raise InputError(
                f"The reward model's chat template must close every turn alike, but it closed one with {closing!r} "
                f"and another with {text[-len(closing) :]!r}, so that a cut-off solution cannot be left open."
            )
        return text[: len(text) - len(closing)]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]  # pyright: ignore[reportReturnType]

    def _fit(self, row: list[int], messages: list[Message]) -> RenderedRow:
        """Shorten a row that is too long, keeping the question and the end of the solution."""
        if not row:
            raise InputError(f"A row must have a token, but the chat template rendered none for {messages!r}.")
        if self.max_length is None or len(row) <= self.max_length:
            return RenderedRow(tuple(row), shortened=False)
        before, _ = self._around_solution(messages)
        head = common_start(self._tokenize([before])[0], row)
        return RenderedRow(shorten(row, head, self.max_length), shortened=True)
