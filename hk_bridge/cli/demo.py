"""`hk_bridge demo`: Flax blocks in a Haiku network, on handwritten digits."""

import argparse
import importlib
from pathlib import Path
from typing import Any
from typing import NamedTuple

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

import hk_bridge
from hk_bridge.cli.options import EXTRAS

ENOUGH = 0.97
BATCH = 64


class Block(nn.Module):
    """A linen block with params, state and keys: `[B, H, W, C] -> [B, H/2, W/2, F]`."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(self.features, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        x = nn.max_pool(x, (2, 2), (2, 2))
        return x


def network(x: jax.Array, train: bool) -> jax.Array:
    """The Haiku network: logits `[B, 10]` of images `[B, 8, 8, 1]`."""
    x = hk_bridge.FlaxModule(Block(32), name="stem")(x, train)
    x = hk_bridge.nn.GroupNorm(num_groups=8, name="norm")(x)
    x = hk_bridge.FlaxModule(Block(64), name="body")(x, train)
    return hk.Linear(10, name="head")(hk.Flatten()(x))


class PureFlax(nn.Module):
    """The same network without Haiku and without hk_bridge, in evaluation mode."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Block(32, name="stem")(x, False)
        x = nn.GroupNorm(num_groups=8, epsilon=1e-5, dtype=jnp.float32, name="norm")(x)
        x = Block(64, name="body")(x, False)
        return nn.Dense(10, name="head")(x.reshape(len(x), -1))


def pure_flax_variables(params: Any, state: Any) -> dict[str, Any]:
    """The variables of `PureFlax` that hold what `network` was trained to."""
    variables: dict[str, Any] = {}
    for name in ("stem", "norm", "body"):
        converted = hk_bridge.to_flax(params, state, name=name)
        for collection, tree in converted.items():
            variables.setdefault(collection, {})[name] = tree
    # The last layer is Haiku's own: what it calls w and b, linen calls kernel and bias.
    head = params["head"]
    variables["params"]["head"] = {"kernel": head["w"], "bias": head["b"]}
    return variables


class Trained(NamedTuple):
    """What training gives; `history` has loss, train and test accuracy by epoch."""

    params: Any
    state: Any
    logits: Any
    history: list[tuple[float, float, float]]
    compilations: int


def load(seed: int) -> Any:
    """The digits that ship with scikit-learn: `x_train, x_test, y_train, y_test`.

    Of the 1,797 images `[N, 8, 8, 1]` in 0..1, a fifth of each digit is held out.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    return train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=seed
    )


def make_step(f: hk.TransformedWithState, optimizer: Any) -> Any:
    """One jitted step of training: the new carry, the loss and the accuracy."""
    import optax

    def loss_fn(params: Any, state: Any, key: Any, x: Any, y: Any) -> Any:
        logits, state = f.apply(params, state, key, x, train=True)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return loss, (state, (logits.argmax(-1) == y).mean())

    @jax.jit
    def step(carry: Any, key: Any, x: Any, y: Any) -> Any:
        params, state, opt_state = carry
        (loss, (state, accuracy)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params, state, key, x, y
        )
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), loss, accuracy

    return step


def train(data: Any, epochs: int, seed: int) -> Trained:
    """The trained network, and its logits of the test images."""
    import optax
    from tqdm import tqdm

    x_train, x_test, y_train, y_test = data
    steps = len(x_train) // BATCH
    keys, order = hk.PRNGSequence(seed), np.random.default_rng(seed)
    f = hk.transform_with_state(network)
    params, state = f.init(next(keys), x_train[:BATCH], train=True)
    # Plain SGD and a schedule of our own: Optax's Adam and its schedules mix int32 and
    # float32, which JAX refuses where it is set to strict promotion.
    optimizer = optax.sgd(
        lambda i: 0.03 * (1 - i / (epochs * steps)), momentum=0.9, nesterov=True
    )
    step = make_step(f, optimizer)
    # No key: in evaluation no module asks for one.
    predict = jax.jit(lambda p, s, x: f.apply(p, s, None, x, train=False)[0])

    carry, history = (params, state, optimizer.init(params)), []
    for _ in (bar := tqdm(range(epochs), unit="epoch", ncols=80)):
        shuffled, metrics = order.permutation(len(x_train)), []
        for batch in shuffled[: steps * BATCH].reshape(steps, BATCH):
            carry, *seen = step(carry, next(keys), x_train[batch], y_train[batch])
            metrics.append(seen)
        loss, accuracy = np.mean(metrics, axis=0)
        logits = predict(*carry[:2], x_test)
        test = np.mean(logits.argmax(-1) == y_test)
        history.append((float(loss), float(accuracy), float(test)))
        bar.set_postfix_str(f"loss {loss:.3f}, test {test:.1%}")
    return Trained(*carry[:2], logits, history, step._cache_size())


def save_plot(history: list[tuple[float, float, float]], path: Path) -> None:
    """Saves the curves of loss and accuracy as a PNG file."""
    from matplotlib.figure import Figure

    # A figure without pyplot draws by Agg, and leaves the caller's backend alone.
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    loss, train_accuracy, test_accuracy = np.transpose(history)
    epochs = np.arange(1, len(history) + 1)
    losses.semilogy(epochs, loss, marker=".", label="train, with dropout")
    losses.set(ylabel="cross-entropy", title="Loss")
    accuracies.plot(
        epochs, 100 * train_accuracy, marker=".", label="train, with dropout"
    )
    accuracies.plot(epochs, 100 * test_accuracy, marker=".", label="test")
    accuracies.axhline(100 * ENOUGH, color="grey", linestyle=":", label="required")
    accuracies.set(ylabel="accuracy [%]", title="Accuracy")
    for axes in (losses, accuracies):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle("Flax blocks in a Haiku network, on handwritten digits")
    figure.savefig(path)


def run(args: argparse.Namespace) -> int:
    """Runs the demo; 0 if all that it claims held, else 1.

    Args:
      args: `epochs`, `seed`, and `plot`, a path or None.

    Raises:
      ModuleNotFoundError: a package of the extra `demo` is missing.
    """
    for package in EXTRAS[
        "demo"
    ]:  # at once: a missing one is to be told before the work
        if package != "matplotlib" or args.plot:
            importlib.import_module(package)
    data = x_train, x_test, _, y_test = load(args.seed)
    table = hk.experimental.tabulate(
        lambda x: network(x, train=True),
        columns=("module", "input", "output", "params_size"),
        tabulate_kwargs={"tablefmt": "simple"},
    )
    print(table(x_train[:BATCH]).strip(), end="\n\n", flush=True)

    trained = train(data, args.epochs, args.seed)
    variables = pure_flax_variables(trained.params, trained.state)
    logits = np.asarray(jax.jit(PureFlax().apply)(variables, x_test))
    same = logits.tobytes() == np.asarray(trained.logits).tobytes()
    accuracy = trained.history[-1][-1]
    bits = "bit-identical" if same else "NOT bit-identical"
    print(f"Compilations of the training step: {trained.compilations}")
    print(f"Test accuracy: {accuracy:.1%} of {len(y_test)} held-out images")
    print(f"Pure Flax, given the weights by to_flax: {logits.size} logits, {bits}")
    if args.plot:
        save_plot(trained.history, args.plot)
        print(f"Curves: {args.plot}")
    return 0 if accuracy >= ENOUGH and same and trained.compilations == 1 else 1
