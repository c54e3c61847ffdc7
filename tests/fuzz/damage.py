"""Ways in which files are damaged: on disks, by wires, by hand, and on purpose."""

from typing import Any

NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63 - 1]


def damaged(rng: Any, data: bytes, other: bytes) -> bytes:
    """`data` with one kind of damage, or sometimes two; `other` is of another file."""
    for _ in range(1 + (rng.random() < 0.2)):
        kind = KINDS[rng.integers(len(KINDS))]
        data = kind(rng, data, other)
    return data


def _place(rng: Any, data: bytes) -> int:
    """Anywhere; the start and the end are of interest more often."""
    where = rng.random()
    size = max(len(data), 1)
    if where < 0.2:
        return int(rng.integers(min(size, 64)))
    if where < 0.4:
        return int(size - 1 - rng.integers(min(size, 128)))
    return int(rng.integers(size))


def _flip(rng: Any, data: bytes, other: bytes) -> bytes:
    content = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
        if content:
            content[_place(rng, data)] ^= 1 << int(rng.integers(8))
    return bytes(content)


def _set(rng: Any, data: bytes, other: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :]


def _number(rng: Any, data: bytes, other: bytes) -> bytes:
    number, size = int(rng.choice(NUMBERS)), int(rng.choice([1, 2, 4, 8]))
    order = "little" if rng.random() < 0.5 else "big"
    at = _place(rng, data)
    number &= 256**size - 1
    return data[:at] + number.to_bytes(size, order) + data[at + size :]  # type: ignore


def _cut(rng: Any, data: bytes, other: bytes) -> bytes:
    return data[: _place(rng, data)]


def _drop(rng: Any, data: bytes, other: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + int(rng.integers(1, 40)) :]


def _insert(rng: Any, data: bytes, other: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.bytes(int(rng.integers(1, 40))) + data[at:]


def _double(rng: Any, data: bytes, other: bytes) -> bytes:
    start, end = sorted((_place(rng, data), _place(rng, data)))
    return data[:end] + data[start:end] + data[end:]


def _swap(rng: Any, data: bytes, other: bytes) -> bytes:
    a, b, c = sorted(_place(rng, data) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _zeros(rng: Any, data: bytes, other: bytes) -> bytes:
    """A block that was never written."""
    at, size = _place(rng, data), int(rng.choice([4, 16, 64, 512]))
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def _append(rng: Any, data: bytes, other: bytes) -> bytes:
    return data + rng.bytes(int(rng.choice([1, 8, 100])))


def _splice(rng: Any, data: bytes, other: bytes) -> bytes:
    return data[: _place(rng, data)] + other[_place(rng, other) :]


KINDS = [_flip, _flip, _flip, _set, _number, _cut, _drop, _insert, _double, _swap]
KINDS += [_zeros, _append, _splice]
