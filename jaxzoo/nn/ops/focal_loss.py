"""The loss of dense detectors, in which most anchors are easy background."""

import jax

from jaxzoo.nn.ops.boxes import as_float
from jaxzoo.nn.ops.reduction import reduce


def sigmoid_focal_loss(
    inputs: jax.Array, targets: jax.Array, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> jax.Array:
    """`torchvision.ops.sigmoid_focal_loss` (Lin et al. 2017, https://arxiv.org/abs/1708.02002), in float32 at least.

    >>> print(sigmoid_focal_loss(jnp.array([0.0, 4.0]), jnp.array([1.0, 1.0])).round(4))
    [0.0433 0.    ]

    Args:
      inputs: logits of any shape.
      targets: of the same shape, 1 for the positive class and 0 for the negative one.
      alpha: weight of the positive class, that of the negative one being 1 - alpha; -1 for none.
      gamma: how much less what is predicted well counts.
      reduction: "none", "mean" (0 of nothing) or "sum".
    """
    if not 0 <= alpha <= 1 and alpha != -1:
        raise ValueError(f"alpha is {alpha}; it must be between 0 and 1, or -1 for no weighting")
    x, t = as_float(inputs), as_float(targets)
    cross_entropy = -(t * jax.nn.log_sigmoid(x) + (1 - t) * jax.nn.log_sigmoid(-x))
    p = jax.nn.sigmoid(x)
    loss = cross_entropy * (1 - (p * t + (1 - p) * (1 - t))) ** gamma
    return reduce(loss if alpha == -1 else (alpha * t + (1 - alpha) * (1 - t)) * loss, reduction)
