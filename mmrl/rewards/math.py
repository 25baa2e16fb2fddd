"""Whether two mathematical answers are equal.

Equality is math-verify's, called on one expression, never on a whole completion; trees that would
take sympy for ever are refused before anything evaluates them. There is no time limit here: the
scoring runtime kills the process from outside.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from mmrl.rewards.expressions import Expression
from mmrl.rewards.notation import evaluable
from mmrl.rewards.numbers import close
from mmrl.rewards.solution_sets import same_solutions, solutions
from mmrl.rewards.units import COUNTER, NAMELESS

LAZY_IMPORTS = ("math_verify",)
"""Modules that `same_value` imports when first called; seconds, so import them beforehand."""

_MAX_NODES = 120
_MAX_EXPONENT = 200
_MAX_SYMBOLIC_EXPONENT = 12
_MAX_BINOMIAL_EXPONENT = 6
_MAX_SUM_EXPONENT = 4
_MAX_FACTORIAL = 30


@dataclass(frozen=True, slots=True)
class MathPolicy:
    """What counts as the same answer.

    percent: `10%` is 0.1 ("value"), is 10 ("ignore"), or equals only `10%` ("match").
    units: units may be absent but not differ ("agree"), must be the same ("match"), or are
    dropped ("ignore"). What is counted (`5 boxes`) may be absent, and never differ.
    relative_tolerance: accepted share of the gold's size where both are real numbers; 0 asks for
    the exact value, where a decimal must still agree to `decimals` places.
    """

    percent: Literal["value", "ignore", "match"] = "value"
    units: Literal["agree", "match", "ignore"] = "agree"
    relative_tolerance: float = 0.0
    decimals: int = 6


def same_value(gold: Expression, answer: Expression, policy: MathPolicy = MathPolicy()) -> bool:
    """Whether the answer equals the gold; an answer too costly to evaluate does not.

    What is written twice must be the same value twice: for an answer it is no second guess. Raises
    ValueError if it is the gold that cannot be read as mathematics.
    """
    if answer.restated is not None and not _same(gold, answer.restated, policy):
        return False
    return _same(gold, answer, policy)


def check_gold(gold: Expression) -> None:
    """Raise ValueError if `same_value` could not read this gold as mathematics."""
    if gold.number is None:
        _tree_of(gold, MathPolicy(), "gold")
    if gold.restated is not None and not _same(gold, gold.restated, MathPolicy()):
        raise ValueError(f"gold is two values: '{gold.latex}' and '{gold.restated.latex}'")


def _same(gold: Expression, answer: Expression, policy: MathPolicy) -> bool:
    if not _units_agree(gold.unit, answer.unit, policy) or (
        policy.percent == "match" and gold.percent != answer.percent
    ):
        return False
    percents_differ = policy.percent == "value" and gold.percent != answer.percent
    if not percents_differ and gold.latex == answer.latex:
        return True
    if gold.number is not None and answer.number is not None:
        return _same_number(_valued(gold, policy), _valued(answer, policy), policy)
    return _same_tree(gold, answer, policy)


def _units_agree(gold: str, answer: str, policy: MathPolicy) -> bool:
    gold, answer = ("" if unit in NAMELESS else unit for unit in (gold, answer))
    if gold.startswith(COUNTER) or answer.startswith(COUNTER):
        return not (gold and answer) or gold == answer
    match policy.units:
        case "ignore":
            return True
        case "match":
            return gold == answer
        case "agree":
            return not (gold and answer) or gold == answer


def _valued(expression: Expression, policy: MathPolicy) -> Decimal:
    assert expression.number is not None
    hundredths = policy.percent == "value" and expression.percent
    return expression.number.scaleb(-2) if hundredths else expression.number


def _same_number(gold: Decimal, answer: Decimal, policy: MathPolicy) -> bool:
    if policy.relative_tolerance:
        return close(answer, gold, relative=policy.relative_tolerance)
    if gold == gold.to_integral_value() and answer == answer.to_integral_value():
        return gold == answer
    return round(gold, policy.decimals) == round(answer, policy.decimals)


def _same_tree(gold: Expression, answer: Expression, policy: MathPolicy) -> bool:
    gold_tree = _tree_of(gold, policy, "gold")
    try:
        answer_tree = _tree_of(answer, policy, "answer")
    except ValueError:
        return False
    meant, said = solutions(gold_tree, gold.latex), solutions(answer_tree, answer.latex)
    if meant and said and (meant.name or said.name):
        return same_solutions(meant, said)
    if _is_set(gold.latex, gold_tree) and _is_ordered(answer.latex, answer_tree):
        return False
    if _is_ordered(gold.latex, gold_tree) and _is_set(answer.latex, answer_tree):
        return False
    if policy.relative_tolerance:
        size, value = _real(gold_tree), _real(answer_tree)
        if size is not None and value is not None:
            return close(value, size, relative=policy.relative_tolerance)
    # math-verify unwraps `x = 2` on one side only where that is the gold's, so both are asked.
    return _verified(gold_tree, answer_tree, policy) or _verified(answer_tree, gold_tree, policy)


def _is_set(latex: str, tree: Any) -> bool:
    """Whether it is in braces or one thing or another, so that its members have no order."""
    import sympy

    return isinstance(tree, sympy.FiniteSet) and (latex.startswith(r"\{") or " or " in latex)


def _is_ordered(latex: str, tree: Any) -> bool:
    """Whether it is a pair or an interval: math-verify lets those be sets."""
    import sympy

    return isinstance(tree, sympy.Interval | sympy.Tuple) and latex.startswith(("(", "["))


def _verified(gold: Any, answer: Any, policy: MathPolicy) -> bool:
    from math_verify import verify

    try:
        return bool(
            verify(
                gold,
                answer,
                float_rounding=policy.decimals,
                timeout_seconds=None,
                raise_on_error=True,
            )
        )
    except (TypeError, ValueError, NotImplementedError):
        # Kinds that sympy cannot compare, such as an interval with a sum, are not equal. Anything
        # else, such as running out of memory, is no verdict and passes on.
        return False


def _tree_of(expression: Expression, policy: MathPolicy, whose: str) -> Any:
    """Parse LaTeX to an unevaluated sympy tree; ValueError if it is none or too costly."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    hundredths = policy.percent == "value" and expression.percent
    # It warns that its own timeout is off, which it should be: the runtime keeps the deadline.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    latex = evaluable(expression.latex)
    latex = rf"\frac{{{latex}}}{{100}}" if hundredths else latex
    # Units are off already; math-verify's own list would drop the variable of "2m".
    spelling = NormalizationConfig(malformed_operators=True, nits=True, boxed="none")
    config = LatexExtractionConfig(boxed_match_priority=-1, normalization_config=spelling)
    trees = parse(f"${latex}$", [config], fallback_mode="no_fallback", parsing_timeout=None)
    if len(trees) != 1:
        raise ValueError(f"{whose} is not a mathematical expression: '{expression.latex}'")
    complaint = _tree_complaint(trees[0])
    if complaint:
        raise ValueError(f"{whose} {complaint}: '{expression.latex}'")
    return trees[0]


def _real(tree: Any) -> Decimal | None:
    import sympy

    value = tree.evalf(20) if isinstance(tree, sympy.Expr) else None
    return Decimal(str(value)) if isinstance(value, sympy.Number) and value.is_finite else None


def _tree_complaint(tree: Any) -> str:
    """Say why evaluating the tree could take for ever; "" if it cannot."""
    import sympy
    from sympy.functions.elementary import trigonometric as trig

    plain = (
        sympy.Number, sympy.NumberSymbol, sympy.Symbol, sympy.Add, sympy.Mul, sympy.Abs,
        sympy.log, trig.TrigonometricFunction, trig.InverseTrigonometricFunction,
        sympy.UnevaluatedExpr, sympy.Set, sympy.Tuple, sympy.core.relational.Relational,
        sympy.logic.boolalg.Boolean,
    )  # fmt: skip
    for count, node in enumerate(sympy.preorder_traversal(tree)):
        if count >= _MAX_NODES:
            return f"has more than {_MAX_NODES} terms"
        match node:
            case sympy.Pow() | sympy.exp():
                if complaint := _power_complaint(*node.as_base_exp()):
                    return complaint
            case sympy.factorial(args=(argument,)):
                if not (argument.is_Integer and argument <= _MAX_FACTORIAL):
                    return f"has a factorial beyond {_MAX_FACTORIAL}"
            case _ if not isinstance(node, plain):
                return f"has an operation outside the vocabulary ({type(node).__name__})"
            case _ if node in (sympy.nan, sympy.zoo):
                return "is not a number"
    return ""


def _power_complaint(base: Any, exponent: Any) -> str:
    """Bound what one power can grow to: towers are refused, sums and symbols kept low."""
    import sympy

    if exponent.atoms(sympy.Pow, sympy.exp):
        return "has a power in an exponent"
    size = exponent if exponent.is_Number else exponent.evalf(4)
    if not size.is_Number:
        return ""
    limit = _MAX_EXPONENT
    if base.free_symbols or base.atoms(sympy.Pow, sympy.exp):
        limit = _MAX_SYMBOLIC_EXPONENT
    if isinstance(base, sympy.Add):
        limit = _MAX_BINOMIAL_EXPONENT if len(base.args) == 2 else _MAX_SUM_EXPONENT
    return "" if abs(size) <= limit else f"has an exponent beyond {limit}"
