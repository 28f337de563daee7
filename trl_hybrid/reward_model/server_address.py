"""Addresses of servers that score: which are taken, and how they are shown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from trl_hybrid.errors import InputError


KEY_VARIABLE = "TRL_HYBRID_SERVER_KEY"
"""Environment variable of the key that servers ask for (`--api-key`); no setting, so that no run's folder holds it."""


def server_urls(given: str | Sequence[str]) -> list[str]:
    """Read one address or several.

    Args:
        given: Addresses with commas between them, or a list of them.

    Returns:
        Addresses without a slash at their end, each once given.

    Raises:
        InputError: One has no scheme or host, holds credentials or a query, names a path of the server's, or is given
            twice. The message shows no password.

    Example:
        >>> server_urls("http://10.0.0.1:8001, http://10.0.0.2:8001/")
        ['http://10.0.0.1:8001', 'http://10.0.0.2:8001']
        >>> server_urls("https://me:secret@judge:8001")
        Traceback (most recent call last):
        trl_hybrid.errors.InputError: A reward model's server is given without credentials, but got \
'https://***@judge:8001'. Give a key in the environment variable TRL_HYBRID_SERVER_KEY.
    """
    whole = given if isinstance(given, str) else ",".join(given)
    if "@" in whole:
        raise InputError(
            f"A reward model's server is given without credentials, but got {without_secrets(whole)!r}. Give a key in "
            f"the environment variable {KEY_VARIABLE}."
        )
    urls = [_checked(part.strip()) for part in whole.split(",")]
    if len(set(urls)) < len(urls):
        raise InputError(f"Each of the reward model's servers is given once, but got {', '.join(urls)}.")
    return urls


def asked_servers(placement: str, given: str | Sequence[str] | None, quantization_config: Any = None) -> list[str]:
    """Return the servers that a reward model's settings ask for together, none where the weights are loaded here.

    Args:
        placement: As the user gave it.
        given: Addresses, None for none.
        quantization_config: Of weights that are loaded here.

    Raises:
        InputError: The settings contradict each other, or as for [`server_urls`].

    Example:
        >>> asked_servers("auto", None), asked_servers("auto", "http://judge:8001")
        ([], ['http://judge:8001'])
    """
    if not given:
        if placement == "server":
            raise InputError(
                "The placement 'server' needs the server's address, reward_model_server_url (`server_urls`). "
                "`trl-hybrid serve-command` prints how to start one."
            )
        return []
    urls = server_urls(given)
    if placement not in ("auto", "server"):
        raise InputError(
            f"A reward model behind {', '.join(urls)} is not loaded here, but its placement is {placement!r}. Leave "
            "one of the two out."
        )
    if quantization_config is not None:
        raise InputError(
            f"A reward model behind {', '.join(urls)} is not quantized here. Leave load_in_4bit and load_in_8bit "
            "(`quantization_config`) out, and start the server with its own --quantization."
        )
    return urls


def server_key(environment: Mapping[str, str]) -> str | None:
    r"""Read the key that servers ask for, without the space around it, such as a secret file's last line break.

    Raises:
        InputError: No header can hold it. The message does not show it.

    Example:
        >>> server_key({"TRL_HYBRID_SERVER_KEY": "sesame\n"})
        'sesame'
    """
    key = environment.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            f"The environment variable {KEY_VARIABLE} must hold a key of printable ASCII characters on one line, but "
            "another is in it (the value is not shown). Set it to what the server was given as --api-key."
        )
    return key or None


def without_secrets(url: str) -> str:
    """Hide in an address what may be a secret: everything before its last @, and its query.

    Example:
        >>> without_secrets("http://me:a/b@judge:8001/x?token=hf_y"), without_secrets("me:pw@judge")
        ('http://***@judge:8001/x?***', '***@judge')
    """
    hidden = re.sub(r"^(\w+://)?.*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"([?#]).*", r"\1***", hidden, flags=re.DOTALL)


def _checked(url: str) -> str:
    shown = without_secrets(url)
    rule = f"A reward model's server is given as http://host:port, but got {shown!r}."
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:  # a port that is no number, a broken IPv6 address
        raise InputError(f"{rule} Its host or port cannot be read.") from error
    if not known or re.search(r"\s", url):
        raise InputError(f"{rule} Begin with http:// or https://, then host and port.")
    if parts.query or parts.fragment:
        raise InputError(f"{rule} Leave out what follows the ? or #; a key goes into {KEY_VARIABLE}.")
    if re.search(r"/(classify|v1)(/|$)", parts.path):
        raise InputError(f"{rule} Leave out the path: the server is asked at /v1/models and /classify below it.")
    return url.rstrip("/")
