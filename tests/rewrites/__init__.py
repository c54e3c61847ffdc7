"""Flax models and the same models rewritten in native Haiku, right and wrong.

`python -m tests.rewrites` prints how many leaves `migrate.match` finds of each, with
all names scrambled; for how many of the planted mistakes the first layer that it says
differs is the very one with the mistake (not the block around it, unless it is in no
layer of that), on one of both sides; and for how many the cause is that."""
