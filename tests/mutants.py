"""Small faults, and the tests without --full that see them: `python -m tests.mutants [NAME...] [--jobs 2] [--all]`.

Each is one replacement in a copy of the tree, which runs the tests that it names, and with --all every other one where
those do not see it. Prints the table of docs/testing.md, and ends with 1 if a fault was not seen.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
OURS = ("jaxzoo", "convert", "train", "tests")
# Imported once, before the copies part ways: most of the time of a short test.
FOREIGN = [
    "pytest",
    "torchvision",
    "timm",
    "pytorchcv.model_provider",
    "flax.nnx",
    "optax",
    "orbax.checkpoint",
    "grain",
]


class Mutant(NamedTuple):
    """What is wrong, in words; the file, the text and what takes its place; the tests that see it."""

    fault: str
    path: str
    text: str
    instead: str
    caught_by: tuple[str, ...]


def ladder(*models: str, level: str = "l0") -> tuple[str, ...]:
    tests = {"l0": "l0_attributes", "l1": "l1_forward_eval", "l2": "l2_forward_train", "l3": "l3_gradients"}
    return tuple(f"tests/parity/test_ladder.py::test_{tests.get(level, level)}[{model}]" for model in models)


NN, TRAIN, CONVERT = "tests/nn/test_", "tests/train/test_", "tests/convert/test_"

MUTANTS = {
    # layers
    "gelu-tanh": Mutant(
        "GELU by its tanh approximation",
        "jaxzoo/nn/activation.py",
        "share = 0.5 * (1 + jax.lax.erf(y * math.sqrt(0.5)))",
        "share = 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))",
        (f"{NN}activation.py",),
    ),
    "relu6-at-5": Mutant(
        "ReLU6 cuts its values at 5",
        "jaxzoo/nn/activation.py",
        "return jnp.where((x > 0) & (x < 6), x, jnp.clip(jax.lax.stop_gradient(x), 0, 6))",
        "return jnp.where((x > 0) & (x < 5), x, jnp.clip(jax.lax.stop_gradient(x), 0, 5))",
        (f"{NN}activation.py",),
    ),
    "biased-running-variance": Mutant(
        "BatchNorm keeps the biased variance",
        "jaxzoo/nn/norm.py",
        "return var * (n / (n - 1))",
        "return var",
        (f"{NN}norm.py::test_batch_norm_keeps_torchs_statistics_over_many_batches",),
    ),
    "batch-norm-momentum": Mutant(
        "BatchNorm's momentum the other way round",
        "jaxzoo/nn/norm.py",
        "((1 - share) * running + share * lax.stop_gradient(batch))",
        "(share * running + (1 - share) * lax.stop_gradient(batch))",
        (f"{NN}norm.py::test_batch_norm_keeps_torchs_statistics_over_many_batches",),
    ),
    "layer-norm-epsilon-outside": Mutant(
        "LayerNorm adds epsilon outside the root",
        "jaxzoo/nn/norm.py",
        "root = lax.rsqrt(y.var(-1, keepdims=True) + epsilon)",
        "root = 1 / (jnp.sqrt(y.var(-1, keepdims=True)) + epsilon)",
        (f"{NN}norm.py::test_layer_norm_equals_torch",),
    ),
    "layer-norm-default-epsilon": Mutant(
        "LayerNorm's default epsilon is Flax's",
        "jaxzoo/nn/norm.py",
        "        num_features: int,\n        eps: float = 1e-5,\n        elementwise_affine",
        "        num_features: int,\n        eps: float = 1e-6,\n        elementwise_affine",
        ladder("swin_t"),
    ),
    "count-include-pad": Mutant(
        "average pooling never counts padding",
        "jaxzoo/nn/pool.py",
        "cells = end - start if count_include_pad else",
        "cells = end - start if not count_include_pad else",
        (f"{NN}pool.py::test_avg_pool_equals_torch",),
    ),
    "ceil-mode-window": Mutant(
        "ceil_mode lets a window start in the padding at the end",
        "jaxzoo/nn/pool.py",
        "if ceil_mode and (count - 1) * stride >= length + padding:",
        "if ceil_mode and (count - 1) * stride > length + padding:",
        (f"{NN}pool.py::test_max_pool_equals_torch",),
    ),
    "adaptive-windows": Mutant(
        "adaptive pooling's windows do not overlap",
        "jaxzoo/nn/pool.py",
        "-(-(i + 1) * length // count)) for i in range(count)]",
        "(i + 1) * length // count) for i in range(count)]",
        (f"{NN}pool.py::test_adaptive_pools_equal_torch",),
    ),
    "max-pool-ties": Mutant(
        "the gradient of equal maxima goes to the last",
        "jaxzoo/nn/cpu/max_pooling.py",
        "higher = (value > best) | (value != value)",
        "higher = (value >= best) | (value != value)",
        (f"{NN}pool.py::test_max_pool_sends_the_gradient_of_ties_to_the_first",),
    ),
    "dropout-not-scaled": Mutant(
        "dropout does not scale what stays",
        "jaxzoo/nn/dropout.py",
        "return jnp.where(keep, x / (1 - self.p), jnp.zeros((), x.dtype))",
        "return jnp.where(keep, x, jnp.zeros((), x.dtype))",
        (f"{NN}dropout.py::test_the_share_that_is_dropped_is_p_and_the_rest_is_scaled",),
    ),
    "stochastic-depth-by-batch": Mutant(
        "stochastic depth drops a branch for the whole batch",
        "jaxzoo/nn/dropout.py",
        "return (shape[0], *[1] * (len(shape) - 1))",
        "return (1, *[1] * (len(shape) - 1))",
        (f"{NN}dropout.py::test_stochastic_depth_drops_whole_samples",),
    ),
    "softmax-axis": Mutant(
        "attention's softmax over the queries",
        "jaxzoo/nn/attention.py",
        "weights = jax.nn.softmax(scores)",
        "weights = jax.nn.softmax(scores, axis=-2)",
        (f"{NN}linear.py::test_self_attention_equals_torch",),
    ),
    "attention-scale": Mutant(
        "attention's scores are not divided by the root of the heads' width",
        "jaxzoo/nn/attention.py",
        "scale = q.shape[-1] ** -0.5 if scale is None else scale",
        "scale = 1.0 if scale is None else scale",
        (f"{NN}linear.py::test_self_attention_equals_torch",),
    ),
    "resize-corners": Mutant(
        "enlarging maps aligns corners",
        "jaxzoo/nn/resize.py",
        "- 0.5, 0)\n",
        ", 0)\n",
        (f"{NN}resize.py::test_resize_equals_torch",),
    ),
    "flatten-order": Mutant(
        "maps are flattened channels last",
        "jaxzoo/nn/container.py",
        "return x.transpose(0, -1, *range(1, x.ndim - 1)).reshape(",
        "return x.reshape(",
        (f"{NN}block.py::test_flatten_keeps_torchs_order",),
    ),
    "squeeze-gate": Mutant(
        "squeeze-and-excitation adds its gate",
        "jaxzoo/nn/block.py",
        "return x * self.scale_activation(self.fc2(gate))",
        "return x + self.scale_activation(self.fc2(gate))",
        (f"{NN}block.py::test_squeeze_excitation_equals_torchvision",),
    ),
    "kaiming-fan-in": Mutant(
        "ResNet starts by its fan-in",
        "jaxzoo/classification/resnet.py",
        'kernel_init=init.kaiming_normal("fan_out"))',
        'kernel_init=init.kaiming_normal("fan_in"))',
        ("tests/jaxzoo/test_initialisation.py::test_a_model_starts_as_its_twin[resnet18]",),
    ),
    "head-init": Mutant(
        "EfficientNet's classifier starts as any linear layer",
        "jaxzoo/classification/efficientnet.py",
        "return Linear(in_features, num_classes, kernel_init=bound, bias_init=init.zeros, rngs=rngs)",
        "return Linear(in_features, num_classes, rngs=rngs)",
        ("tests/jaxzoo/test_initialisation.py::test_a_model_starts_as_its_twin[efficientnet_b0]",),
    ),
    # models
    "swin-without-shift": Mutant(
        "no window of Swin is shifted",
        "jaxzoo/classification/swin_transformer.py",
        "[w // 2 if i % 2 else 0 for w in window_size]",
        "[0 for w in window_size]",
        ladder("swin_t"),
    ),
    "swin-shift-unmasked": Mutant(
        "Swin's shifted windows see across the border",
        "jaxzoo/classification/swin_transformer.py",
        "return np.where(region[:, :, None] == region[:, None], 0.0, -100.0)",
        "return np.where(region[:, :, None] == region[:, None], 0.0, 0.0)",
        ladder("swin_t", level="l1"),
    ),
    "swin-v2-key-bias": Mutant(
        "Swin V2's keys have a bias",
        "jaxzoo/classification/swin_transformer.py",
        "self.qkv.bias[...].at[third:-third].set(0)",
        "self.qkv.bias[...]",
        ladder("swin_v2_t", level="l1"),
    ),
    "one-epsilon": Mutant(
        "EfficientNet-B5's batch norm has torch's default epsilon; B0's is right",
        "jaxzoo/classification/efficientnet.py",
        "LargeBatchNorm = partial(BatchNorm, eps=1e-3, momentum=0.01)",
        "LargeBatchNorm = partial(BatchNorm, momentum=0.01)",
        ladder("efficientnet_b5"),
    ),
    "one-momentum": Mutant(
        "MNASNet's statistics move at torch's default",
        "jaxzoo/classification/mnasnet.py",
        "PaperBatchNorm = partial(BatchNorm, momentum=1 - 0.9997)",
        "PaperBatchNorm = partial(BatchNorm)",
        ladder("mnasnet1_3"),
    ),
    "one-stride": Mutant(
        "the sixth stage of EfficientNetV2-L strides; those of S and M are right",
        "jaxzoo/classification/efficientnet.py",
        "MBConvConfig(4, 3, 2, 96, 192, 10),\n    MBConvConfig(6, 3, 1, 192, 224, 19),",
        "MBConvConfig(4, 3, 1, 96, 192, 10),\n    MBConvConfig(6, 3, 2, 192, 224, 19),",
        ladder("efficientnet_v2_l"),
    ),
    "one-kernel": Mutant(
        "EfficientNetV2-M's last stage has kernels of 5",
        "jaxzoo/classification/efficientnet.py",
        "MBConvConfig(6, 3, 1, 304, 512, 5),",
        "MBConvConfig(6, 5, 1, 304, 512, 5),",
        ladder("efficientnet_v2_m", level="l0_structure"),
    ),
    "one-dilation": Mutant(
        "dilated ResNets dilate one block too early",
        "jaxzoo/classification/resnet.py",
        "[before] + [dilation] * (depth - 1)",
        "[dilation] * depth",
        ladder("fcn_resnet101"),
    ),
    "resnet-v1": Mutant(
        "the bottleneck strides in its first convolution",
        "jaxzoo/classification/resnet.py",
        "self.conv1 = conv(inplanes, width, 1, rngs=rngs)\n        self.bn1 = norm_layer(width, rngs=rngs)\n"
        "        self.conv2 = conv(width, width, 3, stride, dilation, dilation, groups, rngs=rngs)",
        "self.conv1 = conv(inplanes, width, 1, stride, rngs=rngs)\n        self.bn1 = norm_layer(width, rngs=rngs)\n"
        "        self.conv2 = conv(width, width, 3, 1, dilation, dilation, groups, rngs=rngs)",
        ladder("wide_resnet50_2"),
    ),
    "regnet-group-width": Mutant(
        "RegNetY-8GF has half as many channels in a group",
        "jaxzoo/classification/regnet.py",
        "params(17, 192, 76.82, 2.19, 56, se_ratio=0.25)",
        "params(17, 192, 76.82, 2.19, 28, se_ratio=0.25)",
        ladder("regnet_y_8gf", level="l0_structure"),
    ),
    "squeeze-rounding": Mutant(
        "MobileNetV3's squeezed channels are not rounded to eight",
        "jaxzoo/classification/mobilenetv3.py",
        "squeezed = make_divisible(expanded // 4)",
        "squeezed = expanded // 4",
        ladder("mobilenet_v3_small", level="l0_structure"),
    ),
    "shortcut-missing": Mutant(
        "MobileNetV2's blocks have no shortcut",
        "jaxzoo/classification/mobilenetv2.py",
        "return x + self.conv(x) if self.use_residual else self.conv(x)",
        "return self.conv(x)",
        ladder("mobilenet_v2", level="l1"),
    ),
    "ceil-mode-model": Mutant(
        "GoogLeNet's second pooling rounds down",
        "jaxzoo/classification/googlenet.py",
        "self.maxpool2 = MaxPool(3, 2, ceil_mode=True)",
        "self.maxpool2 = MaxPool(3, 2)",
        ladder("googlenet"),
    ),
    "convnext-epsilon": Mutant(
        "ConvNeXt's norms have torch's default epsilon",
        "jaxzoo/classification/convnext.py",
        "PaperLayerNorm = partial(LayerNorm, eps=1e-6)",
        "PaperLayerNorm = partial(LayerNorm)",
        ladder("convnext_large"),
    ),
    "atrous-rate": Mutant(
        "DeepLab V2's pyramid has 16 for 18",
        "jaxzoo/segmentation/deeplabv2.py",
        "(6, 12, 18, 24)",
        "(6, 12, 16, 24)",
        ladder("deeplabv2_resnet101"),
    ),
    # weights
    "kernel-not-transposed": Mutant(
        "convolutions' input and output channels change places",
        "convert/rules.py",
        '_CONV = _permuted("weight", lambda rank: (*range(2, rank), 1, 0))',
        '_CONV = _permuted("weight", lambda rank: (*range(2, rank), 0, 1))',
        (f"{CONVERT}rules.py::test_a_users_own_module_of_flaxs_layers_computes_its_twins_function",),
    ),
    "statistics-swapped": Mutant(
        "running mean and variance change places",
        "convert/rules.py",
        '"mean": Rule("running_mean"), "var": Rule("running_var")',
        '"mean": Rule("running_var"), "var": Rule("running_mean")',
        (f"{CONVERT}rules.py::test_a_users_own_module_of_flaxs_layers_computes_its_twins_function",),
    ),
    "digest-unchecked": Mutant(
        "a checkpoint's files are not compared with their digests",
        "convert/store.py",
        "    if verify:\n        _verify(directory, files)\n",
        "",
        (f"{CONVERT}store.py::test_a_flipped_bit_is_found_and_the_file_named",),
    ),
    # training
    "checkpoint-without-optimizer": Mutant(
        "a checkpoint lacks the optimizer's state",
        "train/engine/checkpoint.py",
        'KEPT = ("params", "stats", "ema", "optimizer", "step", "metrics")',
        'KEPT = ("params", "stats", "ema", "step", "metrics")',
        (f"{TRAIN}checkpoint.py::test_what_is_read_is_what_was_written",),
    ),
    "seed-without-step": Mutant(
        "every step draws the same",
        "train/engine/step.py",
        "return jax.random.split(jax.random.fold_in(jax.random.key(seed), step))",
        "return jax.random.split(jax.random.key(seed))",
        (f"{TRAIN}step.py::test_dropout_differs_from_step_to_step_and_from_seed_to_seed",),
    ),
    "auxiliary-loss": Mutant(
        "auxiliary heads have no loss",
        "train/tasks/classification.py",
        "return main + other, ({",
        "return main, ({",
        (f"{TRAIN}task.py::test_the_loss_of_auxiliary_heads_counts_as_the_model_says",),
    ),
    "label-smoothing": Mutant(
        "labels are not smoothed",
        "train/tasks/classification.py",
        "targets = optax.smooth_labels(targets, self.label_smoothing)",
        "targets = targets",
        (f"{TRAIN}task.py::test_the_loss_is_torchs_cross_entropy_with_label_smoothing",),
    ),
    "mask-ignored-in-accuracy": Mutant(
        "the filling of the last batch counts as right or wrong",
        "train/metrics/top_k.py",
        "{self.counted: (mask & found).sum(),",
        "{self.counted: found.sum(),",
        (f"{TRAIN}task.py::test_metrics_leave_out_what_the_mask_leaves_out",),
    ),
    "border-counts": Mutant(
        "pixels at 255 count in the loss",
        "train/tasks/segmentation.py",
        "return jnp.where(targets == IGNORED, 0, found)",
        "return found",
        (
            f"{TRAIN}segmentation.py::test_the_loss_is_torchs_over_labelled_pixels_with_auxiliary_heads_as_the_model_says",
        ),
    ),
    "union": Mutant(
        "IoU divides by truth and prediction without taking off what both have",
        "train/metrics/mean_iou.py",
        "columns = (right / (true + predicted - right),",
        "columns = (right / (true + predicted),",
        (f"{TRAIN}segmentation.py::test_metrics_are_those_of_scikit_learns_confusion_matrix",),
    ),
    "crowd-once": Mutant(
        "COCO's crowds are found once only",
        "train/metrics/coco_matching.py",
        'used = np.nonzero(hit & (true["crowd"][taken] == 0))',
        "used = np.nonzero(hit)",
        (f"{TRAIN}average_precision.py",),
    ),
    "ignored-first": Mutant(
        "a detection takes an object that does not count before one that does",
        "train/metrics/coco_matching.py",
        "able = np.where(counting.any(-1, keepdims=True), counting, able)",
        "",
        (f"{TRAIN}average_precision.py",),
    ),
    "voc-duplicates": Mutant(
        "VOC's objects are found as often as there are detections",
        "train/metrics/voc_ap.py",
        "right[candidates[np.unique(pairs, axis=1, return_index=True)[1]]] = True",
        "right[candidates] = True",
        (f"{TRAIN}voc_ap.py",),
    ),
    "mixup-share": Mutant(
        "mixup's share goes to the other image",
        "train/augment/device.py",
        "return (jnp.roll(values, 1, 0) * (1 - share) + values * share).astype(values.dtype)",
        "return (jnp.roll(values, 1, 0) * share + values * (1 - share)).astype(values.dtype)",
        (f"{TRAIN}device_augment.py::test_mixup_is_torchvisions",),
    ),
    "mixup-targets": Mutant(
        "mixup leaves the targets alone",
        "train/augment/device.py",
        "return _blended(images, share), _blended(targets, share)",
        "return _blended(images, share), targets",
        (f"{TRAIN}device_augment.py::test_mixup_is_torchvisions",),
    ),
    "warm-up": Mutant(
        "the warm-up is one update longer",
        "train/optim/optimizers.py",
        "by_update = optax.join_schedules([before, after], [warmup])",
        "by_update = optax.join_schedules([before, after], [warmup + 1])",
        (f"{TRAIN}optimizer.py::test_a_schedule_goes_as_torchs_does",),
    ),
    "clip-after-accumulating": Mutant(
        "gradients are clipped before they are accumulated",
        "train/optim/optimizers.py",
        "return optax.MultiSteps(transform, config.accumulate, accumulator_dtype=wide).gradient_transformation()",
        "many = optax.MultiSteps(transform, config.accumulate, accumulator_dtype=wide).gradient_transformation()\n"
        "        return optax.chain(clip(config.clip_norm), many) if config.clip_norm else many",
        (f"{TRAIN}optimizer.py::test_accumulating_equals_a_batch_of_that_many_times_the_size",),
    ),
    "decay-everywhere": Mutant(
        "weights decay where they are spared",
        "train/optim/optimizers.py",
        "decay = optax.add_decayed_weights(config.weight_decay, decays)",
        "decay = optax.add_decayed_weights(config.weight_decay)",
        (f"{TRAIN}optimizer.py::test_weight_decay_spares_what_it_is_told_to",),
    ),
    "adam-decay": Mutant(
        "AdamW's second moment decays at 0.99",
        "train/optim/optimizers.py",
        "return [optax.scale_by_adam(), decay, scale]",
        "return [optax.scale_by_adam(b2=0.99), decay, scale]",
        (f"{TRAIN}optimizer.py::test_an_optimizer_takes_torchs_steps",),
    ),
    "one-cycle-floor": Mutant(
        "one cycle ends at zero instead of the least rate",
        "train/optim/optimizers.py",
        "down = between(config.lr, config.lr_min, (update - peak)",
        "down = between(config.lr, 0.0, (update - peak)",
        (
            f"{TRAIN}optimizer.py::test_schedules_end_at_the_least_rate",
            f"{TRAIN}optimizer.py::test_one_cycle_is_torchs",
        ),
    ),
    "average": Mutant(
        "the average of weights forgets what it should keep",
        "train/engine/step.py",
        "jnp.where(step < self.average.start, 0.0, self.average.decay)",
        "jnp.where(step < self.average.start, 0.0, 1 - self.average.decay)",
        (f"{TRAIN}step.py::test_an_average_is_torchs_at_every_step",),
    ),
    "order-of-epochs": Mutant(
        "every epoch has the same order",
        "train/data/batches.py",
        "np.random.SeedSequence((self.seed, epoch), spawn_key=key)",
        "np.random.SeedSequence((self.seed, 0), spawn_key=key)",
        (f"{TRAIN}batches.py::test_an_epoch_shows_no_image_twice_and_the_next_one_has_another_order_and_other_noise",),
    ),
    "resize-without-antialiasing": Mutant(
        "images for evaluation are resized by nearest neighbours",
        "jaxzoo/preprocess.py",
        "getattr(Image.Resampling, preprocess.interpolation.upper())",
        "Image.Resampling.NEAREST",
        ("tests/jaxzoo/test_preprocess.py::test_the_eval_transform_equals_torchvisions_bit_for_bit",),
    ),
    "crop-rounding": Mutant(
        "the central crop rounds down",
        "jaxzoo/preprocess.py",
        "return round((length - crop) / 2) if length >= crop",
        "return (length - crop) // 2 if length >= crop",
        ("tests/jaxzoo/test_preprocess.py::test_the_eval_transform_equals_torchvisions_bit_for_bit",),
    ),
}


def occurrences(mutant: Mutant) -> int:
    return (ROOT / mutant.path).read_text().count(mutant.text)


class Watch:
    """Notes the first test that fails, or the first file that cannot be read."""

    failed = ""

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.failed = self.failed or f"{report.nodeid} is imported"


def tried(name: str, everything: bool) -> tuple[str, float]:
    """The test that saw the fault, or "", and how many seconds it took; in a process of its own."""
    mutant, begin = MUTANTS[name], time.monotonic()
    if occurrences(mutant) != 1:
        raise SystemExit(f"{name}: its text is {occurrences(mutant)} times in {mutant.path}, and has to be there once")
    with tempfile.TemporaryDirectory() as folder:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        for path in filter(None, listed.stdout.split("\0")):
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes((ROOT / path).read_bytes())
        place = Path(folder) / mutant.path
        place.write_text(place.read_text().replace(mutant.text, mutant.instead))
        for module in [module for module in sys.modules if module.partition(".")[0] in OURS]:
            del sys.modules[module]
        os.chdir(folder)
        sys.path[:] = [folder, *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
        os.environ["PYTHONPATH"] = folder
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
        import pytest

        watch = Watch()
        for tests in [mutant.caught_by, ("tests",)][: 1 + everything]:
            code = pytest.main(["-x", "-n", "0", "-p", "no:cacheprovider", *tests], plugins=[watch])
            if watch.failed or code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                break
        os.chdir("/")
    if not watch.failed and code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"{name}: pytest ended with {code}; are {', '.join(mutant.caught_by)} there?")
    return watch.failed, time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all unless given")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="the whole short command where the named tests see nothing")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MUTANTS):
        parser.error(f"there are no {', '.join(sorted(unknown))}; there are: {', '.join(MUTANTS)}")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(FOREIGN)
    survivors = []
    print("| fault | where | seen by | s |\n|---|---|---|---|", flush=True)
    with ProcessPoolExecutor(options.jobs, mp_context=context, max_tasks_per_child=1) as pool:
        names = options.names or list(MUTANTS)
        for name, (test, seconds) in zip(names, pool.map(tried, names, [options.all] * len(names)), strict=True):
            seen = f"`{test.removeprefix('tests/')}`" if test else "**nothing**"
            print(f"| {MUTANTS[name].fault} | {MUTANTS[name].path} | {seen} | {seconds:.0f} |", flush=True)
            survivors += [] if test else [name]
    if survivors:
        sys.exit(f"not seen: {', '.join(survivors)}")


if __name__ == "__main__":
    main()
