"""Models that reconstruct and generate images: restricted Boltzmann machines and autoencoders.

Images are (N, H, W, C) from 0 to 1, and a model returns `{"images": reconstructions, "code": (N, K)}`. In evaluation
nothing is random; training draws noise from the model's stream "sampling", unless it is given. Beside `__call__`,
`train.tasks.reconstruction` uses these members:
- `losses(images, noise=None)`, named parts of the loss of a batch, which it minimises; or instead
  `contrastive_divergence(images, noise=None)`, the gradients themselves, with parts that are worth a curve,
- `scores(images, keys)`, named figures (N,) of an evaluation, the lower the better; `measures` gives their units, and
  `offsets(key)`, where a model has it, what is to be added to the mean of some,
- `sample(key, count)`, new images, where the model can draw any, and `filters()`, what its first layer looks for.
"""
