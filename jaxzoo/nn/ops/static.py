"""Objects that configure a computation, which models hold beside their parameters."""


class Static:
    """An object of plain values, equal to another of its class with the same: so `jax.jit` knows a model again."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"
