import pytest

from trl_hybrid.verifier.plaintext import to_latex


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("3*cos(sqrt(7)*t)", r"3*\cos(\sqrt{7}*t)"),
        ("exp(4*x^2)", "e^{4*x^2}"),
        ("E^x", "e^x"),
        ("cbrt(x)", r"\sqrt[3]{x}"),
        ("factorial(5)", "(5)!"),
        ("binomial(5, 2)", r"\binom{5}{2}"),
        ("x^(1/3)", "x^{1/3}"),
        ("Integral(x, (x, 0, 1))", r"\int_{0}^{1} x dx"),
        (r"\text{asin}{(x)}", r"\arcsin  {(x)}".replace("  ", " ")),
        ("(-oo, 3)", r"(-\infty , 3)"),
        ("cos(", "cos("),
        ("integral sign", "integral sign"),
    ],
)
def test_program_notation_becomes_latex(text, latex):
    assert to_latex(text) == latex
