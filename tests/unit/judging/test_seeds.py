from hypothesis import given
from hypothesis import strategies as st

from selftaught.judging.seeds import request_seed

names = st.tuples(
    st.integers(0, 9), st.integers(0, 9), st.text("ab/1", max_size=3), st.text("ab/1", max_size=3), st.integers(0, 99)
)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert request_seed(0, 1, "p1", "ChosenFirst", 0) == 5625204013882571419


@given(names, names)
def test_different_samples_have_different_seeds(
    one: tuple[int, int, str, str, int], other: tuple[int, int, str, str, int]
) -> None:
    assert (request_seed(*one) == request_seed(*other)) == (one == other)
    assert 0 <= request_seed(*one) < 2**63
