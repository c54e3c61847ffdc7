"""Small rewrites of whole models, right and wrong, with scrambled names."""

import pytest
from rewrites import others
from rewrites.__main__ import is_planted
from rewrites.__main__ import matched

RIGHT = [others.VAE, others.LANGUAGE, others.EVOFORMER]
WRONG = [
    (others.VAE, "activation"),
    (others.VAE, "epsilon"),
    (others.LANGUAGE, "missing bias"),
    (others.EVOFORMER, "outer mean"),
]


@pytest.mark.parametrize("pair", RIGHT, ids=lambda p: p.name)
def test_is_found_and_proven(pair):
    found = matched(pair)
    assert found.ok, found
    assert not found.missing


@pytest.mark.parametrize(("pair", "wrong"), WRONG, ids=lambda x: getattr(x, "name", x))
def test_the_first_layer_that_differs_is_the_planted_one(pair, wrong):
    assert is_planted(pair, wrong, matched(pair, wrong))
