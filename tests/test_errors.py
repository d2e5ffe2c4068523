"""Long lists in messages."""

import pytest

from dora_diffusion.errors import some_of


@pytest.mark.parametrize(
    ("names", "most", "said"),
    [
        (["a"], 5, "a"),
        (["a", "b"], 2, "a, b"),
        (["a", "b", "c"], 2, "a, b and 1 more"),
        (["a", "b", "c"], 1, "a and 2 more"),
    ],
)
def test_a_list_says_how_many_it_leaves_out(names: list[str], most: int, said: str) -> None:
    assert some_of(names, most) == said
