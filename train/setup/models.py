"""The model of a run, with fresh parameters or with those of weights."""

from flax import nnx

import convert.fitting
import convert.loading
import jaxzoo
from convert.differences import listed
from convert.weights import Weights
from jaxzoo.errors import UsageError
from train.config.options import Config
from train.reporting.progress import say
from train.tasks import of_model
from train.transfer import freeze


def model_of(config: Config, arguments: dict, weights: Weights | None, backbone: str | None) -> tuple[nnx.Module, dict]:
    """The model with these weights, or with fresh parameters by --seed, but for those of a `backbone`; a head that does
    not fit is fresh and named.

    Also the arguments that it was built with, in which weights may have a say.
    """
    if not weights:
        try:
            model = jaxzoo.create_model(config.model, seed=config.seed, **arguments)
        except (TypeError, ValueError) as error:
            if isinstance(error, UsageError) or not config.model_args:
                raise
            raise UsageError(f"{config.model} cannot be built with {' '.join(config.model_args)}: {error}") from error
        if backbone:
            say(convert.loading.load_part(model, config.model, backbone))
        return model, arguments
    head = "strict" if config.eval_only else "skip"
    try:
        fit = convert.fitting.fit_weights(config.model, weights, head=head, **arguments)
    except UsageError as error:
        if config.eval_only and any(way.argument == "head" for way in error.remedies):
            raise UsageError(f"{error.args[0]}; without --eval-only a fresh head is trained") from None
        raise
    convert.load_state_dict(fit.model, fit.tensors, skip=fit.fresh)
    convert.loading.fill_fresh(fit.model, config.model, fit.arguments, config.seed)
    fresh = ""
    if fit.fresh:
        heads = freeze.head_paths(config.model, fit.arguments)
        freeze.start_at_zero(fit.model, [path for path in heads if f"{path}.weight" in fit.fresh])
        fresh = f"; {of_model(config.model).head_words(fit.arguments)}these start fresh: {listed(fit.fresh, 8)}"
    for note in fit.notes:
        say(note)
    say(f"weights of {weights.path}{fresh}")
    return fit.model, fit.arguments
