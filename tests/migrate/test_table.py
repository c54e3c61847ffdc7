"""Checkpoints with the names of PyTorch: what is proposed, edited, and taken back."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import hk_bridge
from hk_bridge import migrate
from hk_bridge.migrate._table import Row
from hk_bridge.migrate._table import Table
from hk_bridge.testing import assert_identical

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.normal(size=shape).astype(np.float32)


class Block(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(self.features, (3, 3), use_bias=False, name="conv1")(x)
        y = nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="bn1")(y)
        return x + nn.relu(y)


class Net(nn.Module):
    """As torchvision names a ResNet: `layer1.0.conv1`, `fc`."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), use_bias=False, name="conv1")(x)
        for layer in (1, 2):
            for block in (0, 1):
                x = Block(4, name=f"layer{layer}_{block}")(x)
        x = x.mean((1, 2))
        return nn.Dense(4, name="fc")(nn.LayerNorm(epsilon=1e-5, name="ln")(x))


def torchs():
    flat = {"conv1.weight": noise(4, 3, 3, 3)}
    for prefix in ("layer1.0", "layer1.1", "layer2.0", "layer2.1"):
        flat[f"{prefix}.conv1.weight"] = noise(4, 4, 3, 3)
        flat[f"{prefix}.bn1.weight"] = noise(4)
        flat[f"{prefix}.bn1.bias"] = noise(4)
        flat[f"{prefix}.bn1.running_mean"] = noise(4)
        flat[f"{prefix}.bn1.running_var"] = noise(4) ** 2 + 1
        flat[f"{prefix}.bn1.num_batches_tracked"] = np.array(7)
    flat["ln.weight"], flat["ln.bias"] = noise(4), noise(4)
    flat["fc.weight"], flat["fc.bias"] = noise(4, 4), noise(4)  # square
    return flat


def by_hand(flat, x):
    """The network as PyTorch runs it, channels first."""

    def conv(x, w):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME")

    def column(name):
        return flat[name][None, :, None, None]

    x = conv(jnp.transpose(x, (0, 3, 1, 2)), flat["conv1.weight"])
    for prefix in ("layer1.0", "layer1.1", "layer2.0", "layer2.1"):
        y = conv(x, flat[f"{prefix}.conv1.weight"])
        scale = column(f"{prefix}.bn1.weight")
        y = (y - column(f"{prefix}.bn1.running_mean")) * scale
        y = y / jnp.sqrt(column(f"{prefix}.bn1.running_var") + 1e-5)
        x = x + nn.relu(y + column(f"{prefix}.bn1.bias"))
    x = x.mean((2, 3))
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * flat["ln.weight"][None] + flat["ln.bias"][None]
    return x @ flat["fc.weight"].T + flat["fc.bias"][None]


X = jnp.asarray(noise(2, 8, 8, 3))


@pytest.fixture
def path(tmp_path):
    flat = torchs()
    place = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(flat, place, metadata={"format": "pt"})
    return place


def test_the_whole_mapping_is_proposed_and_taken(path, tmp_path):
    flat = safetensors.numpy.load_file(path)
    assert_identical(migrate.load(path), flat)
    found = migrate.diff(migrate.load(path), Net(), X)
    assert not found.ok
    assert not found.missing
    assert "for 25 of the 25 leaves" in repr(found)
    assert "fc.weight" in repr(found)
    assert "<table>" in found._repr_html_()
    found.table.save(tmp_path / "names.tsv")
    for table in (found.table, tmp_path / "names.tsv", str(tmp_path / "names.tsv")):
        variables = migrate.load(path, table=table)
        assert migrate.diff(variables, Net(), X).ok
        with jax.numpy_dtype_promotion("standard"):
            expected = by_hand(flat, X)
        np.testing.assert_allclose(Net().apply(variables, X), expected, atol=1e-4)


def test_a_row_is_edited(path, tmp_path):
    found = migrate.diff(migrate.load(path), Net(), X)
    found.table.save(tmp_path / "names.tsv")
    text = (tmp_path / "names.tsv").read_text()
    assert "fc.weight\tparams/fc/kernel\t.T\n" in text
    assert "layer1.0.bn1.num_batches_tracked\t-\n" in text
    text = text.replace("params/fc/kernel\t.T", "params/head/kernel\t")
    text = text.replace("params/fc/bias", "-")
    (tmp_path / "names.tsv").write_text(f"{text}\n\n")
    params = migrate.load(path, table=tmp_path / "names.tsv")["params"]
    assert "fc" not in params
    assert list(params["head"]) == ["kernel"]
    np.testing.assert_array_equal(
        params["head"]["kernel"], migrate.load(path)["fc.weight"]
    )


def test_what_has_no_place_is_told(path, tmp_path):
    flat = {**migrate.load(path), "extra.weight": noise(9, 9)}
    del flat["fc.bias"]
    found = migrate.diff(flat, Net(), X)
    missing = {entry.path for entry in found.missing}
    assert missing == {("fc", "kernel"), ("fc", "bias")}
    unknown = {row.given for row in found.table.rows if row.flax == "?"}
    assert unknown == {"extra.weight", "fc.weight"}
    with pytest.raises(migrate.CheckpointError, match="has no place for 'fc.weight'"):
        found.table.variables(flat)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [Row("b", "params/b")],
            "The table has no leaf 'a'|checkpoint has no leaf 'b'",
        ),
        ([Row("a", "params/a"), Row("b", "params/b")], "checkpoint has no leaf 'b'"),
        ([], "The table has no leaf 'a'"),
        ([Row("a", "params/a")] * 2, "a leaf of the checkpoint twice"),
        ([Row("a", "params")], "no leaf at 'params', or two"),
        ([Row("a", "params/a", ".sum()")], r"by '.sum\(\)', which is none of .T"),
        ([Row("a", "params/a", ".reshape((7,))")], r"'a'.reshape\(\(7,\)\) fails"),
        ([Row("a", "params/a", ".transpose((0, 0))")], "fails: "),
        ([Row("a", "params/%zz")], "not a name that hk_bridge writes"),
    ],
)
def test_a_table_that_does_not_fit(rows, told, tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones([2, 3]))
    with pytest.raises(migrate.CheckpointError, match=told):
        migrate.load(tmp_path / "a.npz", table=Table(tuple(rows)))


def test_two_rows_of_one_place(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(2), b=np.ones(2))
    table = Table((Row("a", "params/w"), Row("b", "params/w")))
    with pytest.raises(migrate.CheckpointError, match="no leaf at 'params/w', or two"):
        migrate.load(tmp_path / "a.npz", table=table)


def test_a_file_that_is_no_table(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    (tmp_path / "names.tsv").write_text("given\tFlax\na\tparams/a\t.T\tmore\n")
    with pytest.raises(migrate.CheckpointError, match="Line 2 of .* is no row"):
        migrate.load(tmp_path / "a.npz", table=tmp_path / "names.tsv")
    migrate.save(tmp_path / "a.msgpack", {"params": {"w": np.ones(2)}})
    with pytest.raises(migrate.CheckpointError, match="it has no flat names"):
        migrate.load(tmp_path / "a.msgpack", table=Table(()))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Embed(7, 6, name="wte")(x)
        for i in range(3):
            x = x + nn.DenseGeneral((2, 3), name=f"h_{i}_q")(x).reshape(x.shape)
        return nn.ConvTranspose(5, (3,), name="up")(x)


def test_embeddings_heads_and_order():
    flat = {"transformer.wte.weight": noise(7, 6)}
    for i in (2, 0, 1):  # the order of a file is not that of the network
        flat[f"transformer.h.{i}.q.weight"] = noise(6, 6)
        flat[f"transformer.h.{i}.q.bias"] = noise(6)
    flat["up.weight"] = noise(5, 6, 3)
    flat["up.bias"] = noise(5)
    found = migrate.diff(flat, Attention(), jax.ShapeDtypeStruct((2, 4), np.int32))
    rows = {row.given: row for row in found.table.rows}
    assert rows["transformer.wte.weight"].flax == "params/wte/embedding"
    assert rows["transformer.wte.weight"].how == ""
    for i in range(3):
        bias = rows[f"transformer.h.{i}.q.bias"]
        assert (bias.flax, bias.how) == (f"params/h_{i}_q/bias", ".reshape((2, 3))")
    assert rows["up.weight"].how == ".transpose((2, 1, 0))"


def test_flax_names_with_dots_are_no_pytorch(tmp_path):
    tree = {"params": {"a.b": {"kernel": noise(2, 3)}}}
    with pytest.raises(hk_bridge.VariablesError):
        migrate.diff({"a.b": {"kernel": 1}}, nn.Dense(3), jnp.ones(2))
    assert migrate.diff(tree, nn.Dense(3), jnp.ones(2)).table is None


@pytest.mark.parametrize(
    "name",
    [*("a\tb", "a\nb", "a\r", " a ", "a\x0bb", "a\u2028b", "", "\u00e9", "given")]
    + [*("\\", "\\u0009", "a\\tb", "\x0ca", "\u3000", "-", "?")],
)
def test_any_name_stands_in_a_table(name, tmp_path):
    path = tmp_path / "t.tsv"
    table = Table((Row("w", "params/w", ".T"), Row(name, f"params/{name}/k")))
    table.save(path)
    assert Table.load(path) == table


def test_a_table_of_windows_is_read(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_bytes(b"given\tFlax\tturned by\r\nw\tparams/w\t.T\r\n")
    assert Table.load(path).rows == (Row("w", "params/w", ".T"),)


def test_a_table_that_cannot_be_read_is_told_as_such(tmp_path):
    migrate.save(tmp_path / "a.npz", {"params": {"w": noise(2)}})
    with pytest.raises(FileNotFoundError, match="none.tsv"):
        migrate.load(tmp_path / "a.npz", table=tmp_path / "none.tsv")
    with pytest.raises(TypeError, match="os.PathLike object, not int"):
        migrate.load(tmp_path / "a.npz", table=5)
    with pytest.raises(migrate.CheckpointError, match="a.npz is no table: it is no"):
        migrate.load(tmp_path / "a.npz", table=tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    "where", ["params/a/b", "params/a/%i0", "params/a/b/c", "params"]
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_row_below_a_leaf(suffix, where, turned, tmp_path):
    flat = {"x": np.zeros(3, np.float32), "y": np.ones((), np.float32)}
    path = tmp_path / f"a{suffix}"
    migrate.save(path, flat)
    rows = (Row("x", "params/a"), Row("y", where))
    table = Table(rows[::-1] if turned else rows)
    with pytest.raises(migrate.CheckpointError, match="The table has no leaf at"):
        migrate.load(path, table=table)


@pytest.mark.parametrize("where", ["params/", "/params", "", "params/a%b", "params/~a"])
def test_a_place_that_is_spelled_wrongly(where, tmp_path):
    migrate.save(tmp_path / "a.npz", {"x": noise(2)})
    with pytest.raises(migrate.CheckpointError, match="^The table has .*is not a name"):
        migrate.load(tmp_path / "a.npz", table=Table((Row("x", where),)))
