"""Prompts and completions as TRL hands them over, brought into one form: messages whose content is plain text."""

from collections.abc import Sequence
from typing import Any

from trl_hybrid.errors import InputError


Message = dict[str, Any]
Conversation = str | Sequence[Message]
"""Raw text, or chat messages."""

POLICY_ONLY_ROLES = ("system", "developer")
"""Roles whose turns are instructions to the policy, of no concern to a reward model."""


def as_messages(conversation: Conversation, role: str) -> list[Message]:
    """Turn text into a message of `role`, and message contents into plain text."""
    if isinstance(conversation, str):
        return [{"role": role, "content": conversation}]
    return [{**message, "content": _text(message.get("content"))} for message in conversation]


def _text(content: Any) -> str:
    """Return the text of a message's content: a string, a list of text blocks, or nothing."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    other = sorted({str(block.get("type")) for block in content} - {"text"})
    if other:
        raise InputError(f"A reward model reads text alone, but a message has content of the types {other}.")
    return "".join(block["text"] for block in content)
