"""Operations of JAX that have a plain definition, a faster equal one for the CPU, and transposes that are such, too.

`jax.custom_vjp` would rule out forward mode, and `jax.lax.platform_dependent` traces all platforms' branches. So an
operation that is linear in each of its arrays is a primitive here: its derivative is itself, which serves forward mode,
its transposes are named, which serves reverse mode, and its computation is chosen when a program is made for a
platform. A program shows the operation's name, and `definition` its meaning.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive
from jax.interpreters import ad, batching, mlir

Function = Callable[..., jax.Array]

_definitions: dict[Primitive, Function] = {}


def multilinear(
    name: str, plain: Function, transposes: Sequence[Callable[..., jax.Array] | None], on_cpu: Function | None = None
) -> Function:
    """An operation `(*arrays, **options) -> array`, linear in every array that has a transpose.

    Args:
      plain: its definition.
      transposes: for every array, `(cotangent, *arrays, **options)` to the array's own cotangent; in place of that
        array there is something of its shape and dtype only. None for whole numbers.
      on_cpu: the same, as the CPU computes it fast.
    """
    primitive = Primitive(f"jaxzoo_{name}")
    _definitions[primitive] = plain
    on_cpu = on_cpu or plain

    @functools.cache
    def compiled(**options: Hashable) -> Function:
        return jax.jit(functools.partial(primitive.bind, **options))

    def batched(arrays: Sequence[jax.Array], axes: Sequence[int | None], **options) -> tuple[jax.Array, int]:
        over = [jax.vmap(functools.partial(function, **options), tuple(axes)) for function in (on_cpu, plain)]
        return jax.lax.platform_dependent(*arrays, cpu=over[0], default=over[1]), 0

    def derivative(arrays: Sequence[jax.Array], tangents: Sequence[Any], **options) -> tuple[jax.Array, Any]:
        y = primitive.bind(*arrays, **options)
        terms = [
            primitive.bind(*arrays[:i], tangent, *arrays[i + 1 :], **options)
            for i, (tangent, transpose) in enumerate(zip(tangents, transposes, strict=True))
            if transpose and type(tangent) is not ad.Zero
        ]
        return y, functools.reduce(jax.numpy.add, terms) if terms else ad.Zero.from_primal_value(y)

    def transposed(cotangent: Any, *arrays: Any, **options) -> list[Any]:
        wanted = [ad.is_undefined_primal(array) for array in arrays]
        if type(cotangent) is ad.Zero:
            return [ad.Zero(array.aval) if want else None for array, want in zip(arrays, wanted, strict=True)]
        shapes = [array.aval if want else array for array, want in zip(arrays, wanted, strict=True)]
        return [
            transpose(cotangent, *shapes, **options) if want else None
            for transpose, want in zip(transposes, wanted, strict=True)
        ]

    primitive.def_impl(lambda *arrays, **options: compiled(**options)(*arrays))
    primitive.def_abstract_eval(lambda *shapes, **options: _trace(plain, shapes, options).out_avals[0])
    ad.primitive_jvps[primitive] = derivative
    ad.primitive_transposes[primitive] = transposed
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu")
    return primitive.bind


def definition(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The definition of an equation in a program, if it is one of these operations."""
    plain = _definitions.get(equation.primitive)
    return plain and _trace(plain, [v.aval for v in equation.invars], equation.params)


def _trace(plain: Function, shapes: Sequence[Any], options: dict[str, Hashable]) -> ClosedJaxpr:
    return jax.make_jaxpr(functools.partial(plain, **options))(*shapes)


def bilinear(
    name: str,
    plain: Function,
    on_cpu: Function,
    left_on_cpu: Function | None = None,
    right_on_cpu: Function | None = None,
) -> Function:
    """An operation `(left, right, **options) -> array` that is linear in both of its arrays, all of one dtype.

    So are its transposes `(cotangent, right, shape=, **options) -> left` and `(left, cotangent, shape=, **options) ->
    right`, with the shape of what they return, and of these three each has the other two as transposes.

    Args:
      plain, on_cpu: as of `multilinear`.
      left_on_cpu, right_on_cpu: the transposes, as the CPU computes them fast; unless given, `on_cpu` transposed.
    """

    def to_left(function: Function, cotangent: jax.Array, right: jax.Array, *, shape, **options) -> jax.Array:
        left = jax.ShapeDtypeStruct(shape, cotangent.dtype)
        return jax.linear_transpose(lambda left: function(left, right, **options), left)(cotangent)[0]

    def to_right(function: Function, left: jax.Array, cotangent: jax.Array, *, shape, **options) -> jax.Array:
        right = jax.ShapeDtypeStruct(shape, cotangent.dtype)
        return jax.linear_transpose(lambda right: function(left, right, **options), right)(cotangent)[0]

    product = multilinear(
        name,
        plain,
        [
            lambda cotangent, left, right, **options: for_left(cotangent, right, shape=left.shape, **options),
            lambda cotangent, left, right, **options: for_right(left, cotangent, shape=right.shape, **options),
        ],
        on_cpu,
    )
    for_left = multilinear(
        f"{name}_left",
        functools.partial(to_left, plain),
        [
            lambda left, cotangent, right, *, shape, **options: product(left, right, **options),
            lambda left, cotangent, right, *, shape, **options: for_right(
                left, cotangent, shape=right.shape, **options
            ),
        ],
        left_on_cpu or functools.partial(to_left, on_cpu),
    )
    for_right = multilinear(
        f"{name}_right",
        functools.partial(to_right, plain),
        [
            lambda right, left, cotangent, *, shape, **options: for_left(cotangent, right, shape=left.shape, **options),
            lambda right, left, cotangent, *, shape, **options: product(left, right, **options),
        ],
        right_on_cpu or functools.partial(to_right, on_cpu),
    )
    return product
