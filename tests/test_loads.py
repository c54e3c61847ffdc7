"""What code is read to load."""

import math

from hk_bridge._flax.known.loads import loads

THIS, THAT = math, math


def names(function):
    return set(loads(function.__code__).names)


def held(function):
    return {k: set(v) for k, v in loads(function.__code__).held.items()}


def writes(function):
    return loads(function.__code__).writes


def test_names_come_with_the_attributes_that_follow():
    assert names(lambda: THIS.a.b(THAT.c) + THIS) == {
        ("THIS", "a", "b"),
        ("THAT", "c"),
        ("THIS",),
    }


def test_of_a_choice_only_the_last_is_followed():
    found = names(lambda x: (THIS if x else THAT).a)
    assert found in ({("THIS",), ("THAT", "a")}, {("THIS", "a"), ("THAT", "a")})


def test_code_inside_counts():
    def outer():
        class Local:
            THAT = THAT.b

            def method(self):
                return [THIS.a for _ in range(3)]

        return Local, lambda: THIS.c

    assert {("THIS", "a"), ("THIS", "c"), ("THAT", "b"), ("range",)} <= names(outer)
    assert "THAT" in loads(outer.__code__).own


def test_what_a_closure_holds():
    this, that, passed = math, math, math

    def function():
        def inside(that):  # another variable
            return that.no, lambda: this.b, lambda: that.no

        return this.a, inside, lambda: that.c.d, passed

    assert held(function) == {
        "this": {("a",), ("b",)},
        "that": {("c", "d")},
        "passed": {()},
    }


def test_writing_is_seen():
    count = 0
    this = math

    def of_a_closure():
        nonlocal count
        count += 1

    def of_a_closure_inside():
        def inside():
            nonlocal count
            count = 1

        return inside

    def of_a_global():
        global THIS
        THIS = 1

    def of_an_attribute():
        THIS.a = 1

    def of_an_attribute_added_to():
        THIS.a.b += 1

    def of_an_attribute_of_what_is_held():
        this.a = 1

    def of_imports():
        import math

        return math.pi

    functions = [f for f in locals().values() if callable(f)]
    assert len(functions) == 7
    assert all(map(writes, functions))


def test_own_variables_may_be_written():
    def function(x):
        count = 0

        def inside():
            nonlocal count
            count += 1
            x.value += THIS.a
            return count

        x.value = inside()
        return x

    assert not writes(function)


def test_imports_of_names_are_told():
    def function():
        from math import e as number
        from math import pi

        return number, pi

    assert loads(function.__code__).imported == (("math", "e"), ("math", "pi"))
    assert not writes(function)


def test_code_is_read_once_and_not_kept():
    function = eval("lambda: THIS")
    assert loads(function.__code__) is loads(function.__code__)
