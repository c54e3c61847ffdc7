"""The order in which the weights of a site are told: inputs by outputs."""

import numpy as np

from hk_bridge.migrate._matching.flat import Step


def batched(step: Step) -> int:
    return len(step.params["dimension_numbers"][1][0])


def free(step: Step, place: int, shape: tuple[int, ...]) -> list[int]:
    """The axes of an operand of a product that are not summed, nor shared."""
    contracted, batch = step.params["dimension_numbers"]
    used = {*contracted[place], *batch[place]}
    return [axis for axis in range(len(shape)) if axis not in used]


def canonical(step: Step, role: str, place: int, ids: np.ndarray) -> np.ndarray:
    """Numbers `[K, N]`: what is summed in the order of the data, by what it makes."""
    if step.name == "dot_general":
        contracted, batch = step.params["dimension_numbers"]
        pairs = sorted(
            zip(contracted[1 - place], contracted[place], strict=True),
            key=lambda p: p[0],
        )
        summed = [axis for _, axis in pairs]
        rest = [*batch[place], *free(step, place, ids.shape)]
        turned = ids.transpose([*summed, *rest])
        rows = int(np.prod([ids.shape[axis] for axis in summed], dtype=int))
        return np.ascontiguousarray(turned).reshape(rows, -1)
    if step.name == "conv_general_dilated" and place == 1:
        out, features, *spatial = step.params["dimension_numbers"].rhs_spec
        turned = ids.transpose([*spatial, features, out])
        return np.ascontiguousarray(turned).reshape(-1, ids.shape[out])
    if role in ("linear", "gather"):
        return np.ascontiguousarray(ids).reshape(1, -1)
    return np.ascontiguousarray(_once(ids)).reshape(1, -1)


def _once(ids: np.ndarray) -> np.ndarray:
    """Numbers without what is repeated along an axis."""
    for axis, size in enumerate(ids.shape):
        first = ids.take([0], axis) if size > 1 else ids
        if size > 1 and (ids.strides[axis] == 0 or bool((ids == first).all())):
            ids = first
    return ids


def sizes(step: Step, role: str, place: int, ids: np.ndarray) -> list[int]:
    """The sizes of the axes that outputs in canonical order have in the program."""
    if step.name == "dot_general":
        batch = step.params["dimension_numbers"][1][place]
        return [ids.shape[axis] for axis in (*batch, *free(step, place, ids.shape))]
    return [] if role in ("linear", "gather") else [*_once(ids).shape]
