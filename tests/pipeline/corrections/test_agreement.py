"""Agreement is what the literature says it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.pipeline.corrections.agreement import (
    agreements,
    alpha_of_labels,
    alpha_of_values,
    cohens_kappa,
)

#: Four observers and twelve units: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C.
OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
UNITS = [[int(answer) for answer in unit if answer != "."] for unit in zip(*OBSERVERS, strict=True)]


def test_alpha_is_that_of_the_published_example() -> None:
    assert alpha_of_labels(UNITS) == pytest.approx(0.743, abs=5e-4)
    assert alpha_of_values(UNITS) == pytest.approx(0.849, abs=5e-4)


def test_kappa_is_that_of_the_published_example() -> None:
    """Fifty proposals, two readers: 20 and 15 agreed on, 5 and 10 not; 0.4."""
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert cohens_kappa(pairs) == pytest.approx(0.4)


def test_where_all_answers_are_the_same_agreement_is_not_defined() -> None:
    assert cohens_kappa([("a", "a"), ("a", "a")]) is None
    assert alpha_of_labels([["a", "a"], ["a", "a"]]) is None
    assert alpha_of_labels([]) is None


@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3])
def test_equal_values_whose_mean_is_rounded_have_no_alpha(value: float) -> None:
    assert alpha_of_values([[value] * 3, [value] * 2]) is None


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), max_size=8))
def test_alpha_is_at_most_one_and_does_not_depend_on_order(units: list[list[str]]) -> None:
    value = alpha_of_labels(units)
    turned = alpha_of_labels([list(reversed(unit)) for unit in reversed(units)])
    assert (value is None) == (turned is None)
    if value is not None and turned is not None:
        assert value <= 1 and value == pytest.approx(turned)
    agreed = alpha_of_labels([[unit[0]] * 2 for unit in units])
    assert agreed is None or agreed == pytest.approx(1)


def test_who_judged_what_is_compared() -> None:
    def row(model: str, **answers: str | bool) -> dict[str, object]:
        given = [
            {"by": who, **({"confirmed": True} if answer is True else {"label": answer})}
            for who, answer in answers.items()
        ]
        return {"label": model, "value": None, "corrections": given}

    found = agreements(
        [
            row("a", Ana="a", Ben="b"),
            row("b", Ana=True),
            row("a", Ana="b", Ben="b"),
            row("b", Ben=True),
            row("a", Cy="a"),
        ]
    )
    assert [(one.measure, one.who, one.utterances) for one in found] == [
        ("Cohen's kappa", ("Ana", "model"), 3),
        ("Cohen's kappa", ("Ben", "model"), 3),
        ("Cohen's kappa", ("Cy", "model"), 1),
        ("Krippendorff's alpha", ("Ana", "Ben"), 2),
    ]
