r"""Problems that reasoning-gym's generators make: `gym:` and a generator's name in the place of a data set's.

A data set of a generator is what its options say, `size` questions drawn from `seed` on, each of them once. Which
split a question belongs to is decided by its own text, so that no seed and no size puts it into both: the library
draws row i from seed + i, and seeds 1 and 2 share all questions but two.
"""

import difflib
import hashlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

import yaml
from datasets import Dataset, Features, Value

from trl_hybrid.errors import InputError


PREFIX = "gym:"

SPLITS = ("train", "test")

TEST_ONE_IN = 5
"""Of so many questions one is held out."""

DEFAULTS = {"size": 2000, "seed": 0}
"""In place of the library's 500 questions, and of a seed that changes from run to run."""

LEAST = {"size": 1, "seed": 0}

FEATURES = Features({"question": Value("string"), "answer": Value("string")})


def is_generated(name: str) -> bool:
    """Say whether a data set's name is a generator's.

    Example:
        >>> is_generated("gym:chain_sum"), is_generated("openai/gsm8k")
        (True, False)
    """
    return name.startswith(PREFIX)


def generated_splits(name: str, config: str | None = None) -> dict[str, Dataset]:
    """Draw a generator's problems.

    Args:
        name: `gym:` and the generator's name.
        config: The generator's options, see [`read_options`].

    Returns:
        Rows of `question` and `answer` by split, `train` and `test`; equal questions are there once.

    Raises:
        InputError: The library is not installed, it has no such generator, or the generator no such options.
    """
    generator, options = name.removeprefix(PREFIX), {**DEFAULTS, **read_options(config)}
    _check_options(generator, options)
    _open(generator, options)
    # The cache knows the rows by these; all processes of a run read what one of them has drawn.
    drawn = {"version": importlib.metadata.version("reasoning-gym"), "options": yaml.safe_dump(options)}
    rows = Dataset.from_generator(_draw, features=FEATURES, gen_kwargs={"generator": generator, **drawn})
    parts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    for index, question in enumerate(rows["question"]):
        parts[split_of(question)].setdefault(question, index)
    return {split: rows.select(own.values()) for split, own in parts.items()}


def split_of(question: str) -> str:
    """Return the split that a question belongs to, whatever it was drawn from.

    Example:
        >>> split_of("What is 2 + 3?"), split_of("What is 2 + 5?")
        ('test', 'train')
    """
    digest = hashlib.sha256(question.encode()).digest()
    return "train" if int.from_bytes(digest[:8], "big") % TEST_ONE_IN else "test"


def read_options(config: str | None) -> dict[str, Any]:
    """Read a generator's options, which stand where a data set has its configuration's name.

    Args:
        config: A mapping as YAML or JSON; `None` for none.

    Raises:
        InputError: It is something else.

    Example:
        >>> read_options("{min_terms: 2, max_terms: 3}") == read_options('{"min_terms": 2, "max_terms": 3}')
        True
    """
    try:
        options = yaml.safe_load(config or "") or {}
    except yaml.YAMLError:
        options = config
    if not isinstance(options, dict):
        raise InputError(
            f"A generator's options must be a mapping such as '{{min_terms: 2, size: 1000}}', got {config!r}. Check "
            "dataset_config, or `name` in a mixture."
        )
    return options


def _check_options(generator: str, options: dict[str, Any]) -> None:
    known = _library().DATASETS
    if generator not in known:
        near = ", ".join(difflib.get_close_matches(generator, known, n=5, cutoff=0.4))
        raise InputError(
            f"reasoning-gym has no generator {generator!r}. {near and f'Near it: {near}. '}All are listed by"
            '  python -c "from reasoning_gym.factory import DATASETS; print(*sorted(DATASETS))"'
        )
    own = fields(known[generator][1])
    unknown = [name for name in options if name not in [option.name for option in own]]
    if unknown:
        raise InputError(
            f"The generator {generator!r} has no option {unknown[0]!r}. Its options: "
            f"{', '.join(map(_with_default, own))}."
        )
    for name, least in LEAST.items():
        if type(options[name]) is not int or options[name] < least:
            raise InputError(
                f"{name} of {PREFIX}{generator} must be a whole number, {least} or more; got {options[name]!r}."
            )


def _with_default(option: Field[Any]) -> str:
    if option.name in DEFAULTS:
        return f"{option.name} ({DEFAULTS[option.name]})"
    default = option.default_factory() if option.default_factory is not MISSING else option.default
    return option.name if default is MISSING else f"{option.name} ({default})"


def _open(generator: str, options: dict[str, Any]) -> Any:
    """Let the library check the options' values."""
    try:
        return _library().create_dataset(generator, **options)
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(
            f"The generator {generator!r} refuses its options: {str(error) or 'it does not say why'}. Got "
            f"{options}; check dataset_config."
        ) from error


def _draw(generator: str, options: str, version: str) -> Iterator[dict[str, str | None]]:
    """Yield the rows as they are drawn."""
    problems = _open(generator, yaml.safe_load(options))
    for index in range(len(problems)):
        problem = problems[index]
        answer = problem["answer"]
        yield {"question": problem["question"], "answer": None if answer is None else str(answer)}


def _library() -> Any:
    """Import the library, which takes a second or two, where it is asked for only."""
    try:
        from reasoning_gym import factory  # pyright: ignore[reportMissingImports]  # the extra `gym`
    except ImportError as error:
        raise InputError(
            f"A data set's name that begins with {PREFIX} needs the package reasoning-gym, which is not installed. "
            "Install it: pip install reasoning-gym"
        ) from error
    return factory
