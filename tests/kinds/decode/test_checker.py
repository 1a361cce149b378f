"""What a right step is: its arithmetic, the worked solution, the answer."""

from __future__ import annotations

import pytest

from dynlora.kinds.decode.work.rewards import Reference, equations

SOLUTION = "8 * 7 = 56\n56 + 12 = 68\n#### 68"


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("12 + 7 = 19", True),
        ("12 + 7 = 20", False),
        ("30 - 41 = -11", True),
        ("2 + 3 * 4 = 14", True),
        ("2 * 3 + 4 = 10", True),
        ("10 / 4 = 2.5", True),
        ("7 / 0 = 7", False),
        ("1,200 - 200 = 1,000", True),
        ("$5 × 3 = $15", True),
        ("5 -3 = 2", True),
        ("-5 + 3 = -2", True),
        ("9 - 2 - 3 = 4", True),
    ],
)
def test_a_calculation_holds_where_its_result_is_right(text: str, holds: bool) -> None:
    (equation,) = equations(text)
    assert equation.holds is holds


@pytest.mark.parametrize(
    ("step", "right"),
    [
        ("8 * 7 = 56\n", True),
        ("7 * 8 = 56\n", True),
        ("8 * 7 = 54\n", False),
        ("8 + 7 = 15\n", False),
        ("12 + 56 = 68\n", True),
        ("#### 68", True),
        ("#### 67", False),
        ("####", False),
        ("We add.\n", True),
    ],
)
def test_a_step_is_right_where_the_worked_solution_has_it(step: str, right: bool) -> None:
    assert Reference("68", SOLUTION).is_right(step) is right


def test_without_a_worked_solution_the_arithmetic_and_the_answer_count() -> None:
    assert Reference("15").is_right("8 + 7 = 15\n#### 15")
    assert not Reference("15").is_right("8 + 7 = 16\n")
    assert Reference(None).is_right("#### 3")
    assert Reference("Paris", "").is_right("#### Paris")
