"""Damaged checkpoints of every format: refused by a clean error, or read exactly.

`python -m tests.fuzz` searches on."""

from fuzz.damage import KINDS
from fuzz.damage import damaged
from fuzz.samples import samples
from fuzz.search import search
from fuzz.worker import same
import numpy as np
import pytest

from hk_bridge.migrate.formats import FORMATS

FILES = 1350


def test_damaged_files():
    report = search(seed=1, count=FILES)
    assert not report.faults
    assert report.files == FILES
    assert report.seconds < 60
    outcomes = {key for counter in report.counts.values() for key in counter}
    assert outcomes == {"refused", "exact", "changed"}


def test_there_is_a_sample_of_each_format(tmp_path):
    made = samples(tmp_path)
    for sample in made:
        assert same(sample.read(sample.path), sample.read(sample.path))
    paths = [sample.path for sample in made] + [f for s in made for f in s.files]
    for kind in FORMATS:
        assert any(kind.knows(path) for path in paths), kind.name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("data", [b"", b"1", bytes(range(200))])
def test_damage(kind, data):
    for seed in range(50):
        one, two = (kind(np.random.default_rng(seed), data, b"other") for _ in "ab")
        assert one == two
    made = {damaged(np.random.default_rng(s), data, b"other") for s in range(50)}
    assert len(made) > 5
