"""The smallest program that fails as a larger one does."""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses

from .laws import LAWS
from .spec import ALL
from .spec import Block
from .spec import Choices
from .spec import Part
from .spec import Program


def smallest(
    program: Program, fails: Callable[[Program], bool], tries: int = 200
) -> Program:
    """A program from which nothing can be taken such that it still fails."""
    reduced = True
    while reduced and tries > 0:
        reduced = False
        for candidate in _smaller(program):
            tries -= 1
            if tries >= 0 and fails(candidate):
                program, reduced = candidate, True
                break
    return program


def _smaller(program: Program) -> Iterator[Program]:
    for block in _blocks(program.block):
        yield dataclasses.replace(program, block=block)
    if program.method != "None":
        yield dataclasses.replace(program, method="None")
    if program.around:
        yield dataclasses.replace(program, around="")
    for options in _simpler(program.options, LAWS[program.law].options):
        yield dataclasses.replace(program, options=options)


def _blocks(block: Block) -> Iterator[Block]:
    """`block` with less in it."""
    parts = block.parts
    for i, part in enumerate(parts):
        before, after = parts[:i], parts[i + 1 :]
        if len(parts) > 1:
            yield dataclasses.replace(block, parts=(*before, *after))
        alone = part.inside is not None and part.inside.nnx == block.nnx
        if part.inside is not None and (alone or len(parts) == 1):
            yield dataclasses.replace(
                block, parts=(*before, *part.inside.parts, *after)
            )
    if block.setup:
        yield dataclasses.replace(block, setup=False)
    for i, part in enumerate(parts):
        for other in _parts(part):
            yield dataclasses.replace(block, parts=(*parts[:i], other, *parts[i + 1 :]))


def _parts(part: Part) -> Iterator[Part]:
    if part.inside is not None:
        for inside in _blocks(part.inside):
            yield dataclasses.replace(part, inside=inside)
    for choices in _simpler(part.choices, ALL[part.kind].choices):
        yield dataclasses.replace(part, choices=choices)


def _simpler(chosen: Choices, options: object) -> Iterator[Choices]:
    """One choice at a time made the first."""
    for i, (name, value) in enumerate(chosen):
        first = options[name][0]  # type: ignore[index]
        if value != first:
            yield (*chosen[:i], (name, first), *chosen[i + 1 :])
