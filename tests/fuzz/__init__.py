"""Damaged checkpoints, made up: each is refused by a clean error, or read exactly.

`python -m tests.fuzz --seconds N` searches on."""
