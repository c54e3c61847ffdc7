"""Flax models and the same models rewritten in native Haiku, right and wrong.

`python -m tests.rewrites` prints how many leaves `migrate.match` finds of each, with
all names scrambled, and for how many of the planted mistakes the first layer that it
says differs is the planted one."""
