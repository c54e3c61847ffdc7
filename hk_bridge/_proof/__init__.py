"""Proof that a module is the same in Haiku as in Flax, of which `testing` is the face.

`sides` runs a module natively and bridged, `program` tells whether two traced programs
compute the same, by the `numbering` of their values and `plain` parameters, and `laws`
says what has to be the same.
"""
