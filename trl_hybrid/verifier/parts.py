r"""Answers with a structure, compared part by part: equations, relations, lists, tuples, sets, intervals, matrices.

Each rule returns `None` where it has nothing to say. A rule is handed two judges: `part` for what it takes apart, with
every rule again, and `whole` for what only algebra can decide.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from trl_hybrid.verifier import intervals, shapes
from trl_hybrid.verifier.latex import EMPTY, key, split_top
from trl_hybrid.verifier.numeric import parse_number
from trl_hybrid.verifier.verdict import Reason, is_right


Judge = Callable[[str, str], Reason]
Rule = Callable[[str, str, Judge, Judge], Reason | None]

MAX_UNORDERED = 64


def compare_points(gold: str, answer: str, part: Judge, whole: Judge) -> Reason | None:
    """Points with named coordinates: by name; beside a bare tuple in the order of the names."""
    golds, answers = shapes.coordinates(gold), shapes.coordinates(answer)
    if golds and answers:
        if golds.keys() != answers.keys():
            return None
        return _match(list(golds.values()), [answers[name] for name in golds], part, ordered=True)
    gold_items, items = (
        list(named.values()) or _in_brackets(text) for named, text in ((golds, gold), (answers, answer))
    )
    if not (golds or answers) or len(gold_items) != len(items):
        return None
    return _match(gold_items, items, part, ordered=True)


def _in_brackets(text: str) -> Sequence[str]:
    container = shapes.container(text)
    return container.items if container.ordered else ()


def compare_lists(gold: str, answer: str, part: Judge, whole: Judge) -> Reason | None:
    """Several answers side by side, in any order: as many as the gold has, each matched by one."""
    gold, answer = shapes.named_values(gold), shapes.named_values(answer)
    golds, answers = shapes.container(gold), shapes.container(answer)
    if golds.opening or answers.opening or len(golds.items) == len(answers.items) == 1:
        return None
    gold_items, answer_items = (_once(_carry_names(own.items)) for own in (golds, answers))
    if len(gold_items) != len(answer_items):
        if _is_coordinates(gold, answer_items):
            return None
        return "mismatch"
    return _match(gold_items, answer_items, part, ordered=False)


def _is_coordinates(gold: str, answer_items: Sequence[str]) -> bool:
    """Whether a bare list may be the inside of the gold's brackets: (1,2) or [-5,1] or ... answered by 1,2."""
    _, values = shapes.equation(gold)
    return len(shapes.container(values[-1]).items) == len(answer_items) or intervals.UNION.search(gold) is not None


def _carry_names(items: tuple[str, ...]) -> list[str]:
    """Items without the name that only the first of them carries: a=4,-8,-10."""
    if len(items) < 2:
        return list(items)
    name, values = shapes.equation(items[0])
    if name is not None and len(values) == 1 and not any(shapes.EQUALS.search(item) for item in items[1:]):
        return [values[0], *items[1:]]
    return list(items)


def _once(items: list[str]) -> list[str]:
    """Points without their repetitions; a value that is there twice is meant twice."""
    return list({key(item) if item.startswith("(") else number: item for number, item in enumerate(items)}.values())


def _match(golds: Sequence[str], answers: Sequence[str], part: Judge, ordered: bool) -> Reason:
    if len(golds) != len(answers):
        return "mismatch"
    if ordered or len(golds) > MAX_UNORDERED:
        pairs = zip(golds, answers, strict=True)
        return _worst([part(gold, answer) for gold, answer in pairs])
    left = list(answers)
    for gold in sorted(golds, key=lambda item: key(item) not in {key(answer) for answer in answers}):
        candidates = sorted(left, key=lambda answer: key(answer) != key(gold))
        reasons: Iterator[tuple[str, Reason]] = ((answer, part(gold, answer)) for answer in candidates)
        found = next((pair for pair in reasons if is_right(pair[1]) is not False), None)
        if found is None:
            return "mismatch"
        if found[1] == "unjudgeable":
            return found[1]
        left.remove(found[0])
    return "symbolic"


def _worst(reasons: list[Reason]) -> Reason:
    for bad in (False, None):
        for reason in reasons:
            if is_right(reason) is bad:
                return reason
    return "symbolic"


def compare_equations(gold: str, answer: str, part: Judge, whole: Judge) -> Reason | None:
    """Take x = 2 for 2, and the last member of an equation; but never one of several different values."""
    if _is_bare_list(gold) or _is_bare_list(answer):
        return None
    if (reason := _compare_identities(gold, answer, part)) is not None:
        return reason
    gold, answer = shapes.with_one_argument(gold, answer)
    gold_name, gold_values = shapes.equation(gold)
    answer_name, answer_values = shapes.equation(answer)
    if (gold_name, answer_name) == (None, None) and len(gold_values) == len(answer_values) == 1:
        same = gold_values[0] == gold and answer_values[0] == answer
        return None if same else part(gold_values[0], answer_values[0])
    if shapes.literals_disagree(answer_values):
        return "not_an_answer"
    if gold_name is None and len(gold_values) > 1:  # a true equation, such as 2x + z = 1
        if answer_name is None and len(answer_values) == 1:
            return part(gold_values[-1], answer) if shapes.is_operation(gold_values[0]) else "mismatch"
        return whole(gold, answer)
    if gold_name is not None and answer_name is None and len(answer_values) > 1:
        reason = whole(gold, answer)
        if is_right(reason) or any(shapes.letters(value) for value in answer_values[:-1]):
            return reason
    if gold_name is not None and answer_name is not None and not _same_name(gold_name, answer_name):
        return "mismatch"
    return part(gold_values[-1], answer_values[-1])


def _compare_identities(gold: str, answer: str, part: Judge) -> Reason | None:
    r"""Equations between constants, such as \log_8 4 = \frac23: the same statement, member by member in any order.

    All true equations are equal to algebra, so that it is not asked: 1 = 1 states something else.
    """
    members = [split_top(text, shapes.EQUALS) for text in (gold, answer)]
    if len(members[0]) > 1 and sorted(map(key, members[0])) == sorted(map(key, members[1])):
        return "exact"
    gold_states, answer_states = (len(own) > 1 and all(own) and not any(map(shapes.letters, own)) for own in members)
    if gold_states and len(members[1]) == 1:
        return _compare_with_result(members[0], answer, part)
    if not answer_states:
        return None
    if not gold_states:
        return "mismatch" if shapes.letters(gold) and len(members[0]) > 1 else None
    literals = [[parse_number(member) is not None for member in own] for own in members]
    if sorted(literals[0]) != sorted(literals[1]):
        return "mismatch"
    stated = [
        [[m for m, is_literal in zip(own, kinds, strict=True) if is_literal is kind] for kind in (True, False)]
        for own, kinds in zip(members, literals, strict=True)
    ]
    if sorted(map(shapes.as_written, stated[0][1])) != sorted(map(shapes.as_written, stated[1][1])):
        return "mismatch"
    return _match(stated[0][0], stated[1][0], part, ordered=False)


def _compare_with_result(gold: list[str], answer: str, part: Judge) -> Reason | None:
    """A single value against an identity: its result, a number by value, an expression such as 2^3 * 5 as such."""
    if parse_number(gold[-1]) is not None:
        return part(gold[-1], answer)
    return "exact" if shapes.as_written(gold[-1]) == shapes.as_written(answer) else None


def _is_bare_list(text: str) -> bool:
    items = shapes.container(text)
    return not items.opening and len(items.items) > 1


def _same_name(gold: str, answer: str) -> bool:
    heads = [key(shapes.ARGUMENTS.sub("()", name)) for name in (gold, answer)]
    bare = [key(shapes.SUBSCRIPT.sub("", name)) for name in (gold, answer)]
    return heads[0] == heads[1] or (bare[0] == bare[1] and bare[0] in heads)  # x_1 for one of the roots x


def compare_relations(gold: str, answer: str, part: Judge, whole: Judge) -> Reason | None:
    r"""Inequalities and unions of intervals: x < 3 or x > 5 is (-\infty,3)\cup(5,\infty)."""
    conditions = intervals.condition(gold), intervals.condition(answer)
    if conditions != (gold, answer):
        return part(*conditions)
    variable, answer_variable = intervals.variable_of(gold), intervals.variable_of(answer)
    if variable is not None and answer_variable is not None and key(variable) != key(answer_variable):
        return "mismatch"
    gold_parts, answer_parts = _interval_parts(gold), _interval_parts(answer)
    if gold_parts == [shapes.MEMBER.sub("", gold)] and answer_parts == [shapes.MEMBER.sub("", answer)]:
        if intervals.INEQUALITY.search(answer) and not intervals.INEQUALITY.search(gold):
            is_set = shapes.container(gold).opening != "" or r"\in" in gold
            return None if is_set else "not_an_answer"
        return whole(gold, answer) if intervals.INEQUALITY.search(gold) and _is_interval_like(answer_parts) else None
    if (
        intervals.INEQUALITY.search(answer)
        and not intervals.INEQUALITY.search(gold)
        and not _is_interval_like(gold_parts)
    ):
        return "not_an_answer"
    bounded = all("," in part or part.startswith(r"\{") for part in gold_parts + answer_parts)
    if len(gold_parts) == len(answer_parts) and bounded:
        return _match(gold_parts, answer_parts, part, ordered=False)
    if _is_interval_like(answer_parts) and intervals.INEQUALITY.search(gold):
        answer = r"\cup ".join(answer_parts)  # math-verify solves the gold's inequality for the answer's set
    return whole(gold, answer)


def _interval_parts(text: str) -> list[str]:
    """The intervals of a union, or of inequalities about one variable; the text itself when it is neither."""
    if excluded := intervals.NOT_EQUAL.fullmatch(text):
        return [rf"(-\infty,{excluded[1]})", rf"({excluded[1]},\infty)"]
    parts = split_top(shapes.MEMBER.sub("", text), intervals.UNION)
    if len(parts) == 1 and intervals.INEQUALITY.search(text):
        parts = [intervals.as_point(part) for part in split_top(text, shapes.LIST)]
        if len({intervals.variable_of(part) for part in parts if not part.startswith(r"\{")}) > 1:
            return [text]
    return [intervals.as_interval(part) for part in parts]


def _is_interval_like(parts: list[str]) -> bool:
    return all(shapes.container(part).opening != "" for part in parts)


def compare_residues(gold: str, answer: str, part: Judge, whole: Judge) -> Reason | None:
    """A remainder with its modulus or without: 3 (mod 7) is 3, but not 3 (mod 8)."""
    (gold_value, modulus), (value, answer_modulus) = shapes.residue(gold), shapes.residue(answer)
    if modulus is None and answer_modulus is None:
        return None
    if None not in (modulus, answer_modulus) and modulus != answer_modulus:
        return "mismatch"
    return part(gold_value, value)


def compare_ratios(gold: str, answer: str, part: Judge, whole: Judge) -> Reason | None:
    """Ratios of three and more, term by term; a ratio of two is a quotient, but no whole number."""
    gold_terms, terms = split_top(gold, shapes.COLON), split_top(answer, shapes.COLON)
    if {len(gold_terms), len(terms)} == {1, 2}:
        single = gold_terms[0] if len(gold_terms) == 1 else terms[0]
        return "mismatch" if single.isdecimal() and single != "1" else None
    if max(len(gold_terms), len(terms)) < 3:
        return None
    return _match(gold_terms, terms, part, ordered=True)


def compare_containers(gold: str, answer: str, part: Judge, whole: Judge) -> Reason | None:
    """Tuples, intervals and sets, item by item."""
    golds, answers = shapes.container(gold), shapes.container(answer)
    if EMPTY in (gold, answer):  # a set that holds the empty set is another one
        return "mismatch"
    if not golds.opening and not answers.opening:
        inner_gold, inner_answer = golds.items[0], answers.items[0]
        if len(golds.items) == len(answers.items) == 1 and (inner_gold, inner_answer) != (gold, answer):
            return part(inner_gold, inner_answer)
        return None
    for single, other in ((golds, answers), (answers, golds)):
        if single.opening == r"\{" and len(single.items) == 1 and other.ordered and single.items[0].startswith("("):
            return part(*((single.items[0], answer) if single is golds else (gold, single.items[0])))
    gold_cells, cells = _column(gold), _column(answer)
    if gold_cells and answers.ordered:
        return _match(gold_cells, answers.items, part, ordered=True)
    if cells and golds.opening == "(" and golds.closing == ")":
        return _match(golds.items, cells, part, ordered=True)
    if len(golds.items) != len(answers.items) or not _brackets_agree(golds, answers):
        is_value = len(golds.items) == 1 and not golds.opening and shapes.RESTATED.search(gold) is None
        return "mismatch" if is_value or (golds.opening and answers.opening) else None
    return _match(golds.items, answers.items, part, ordered=golds.ordered or answers.ordered)


def _column(text: str) -> list[str]:
    return [row[0] for row in shapes.matrix_rows(text) or [] if len(row) == 1]


def _brackets_agree(gold: shapes.Container, answer: shapes.Container) -> bool:
    """Brackets must be the same around two items, where they tell intervals apart; elsewhere they are a style.

    A set of several values is no point and no interval.
    """
    if not (gold.ordered and answer.ordered) or len(gold.items) != 2:
        return not (gold.ordered and answer.opening == r"\{" and len(gold.items) > 1)
    return (gold.opening, gold.closing) == (answer.opening, answer.closing)


def compare_matrices(gold: str, answer: str, part: Judge, whole: Judge) -> Reason | None:
    """Matrices of the same shape, cell by cell."""
    gold_rows, answer_rows = shapes.matrix_rows(gold), shapes.matrix_rows(answer)
    if gold_rows is None or answer_rows is None:
        return None
    if [len(row) for row in gold_rows] != [len(row) for row in answer_rows]:
        return "mismatch"
    return _match(list(chain(*gold_rows)), list(chain(*answer_rows)), part, ordered=True)


# In this order: a relation may hold lists, and a list may hold equations.
RULES: tuple[Rule, ...] = (
    compare_residues,
    compare_relations,
    compare_points,
    compare_lists,
    compare_equations,
    compare_ratios,
    compare_containers,
    compare_matrices,
)
