"""Numbers and order of channels, as mobile networks have them."""

import jax


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least `divisor` and at least nine tenths of `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """`torch.nn.functional.channel_shuffle`: interleaves the groups of channels, (..., groups·C) to the same."""
    return x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2).reshape(x.shape)
