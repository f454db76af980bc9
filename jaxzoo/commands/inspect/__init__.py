"""The parts of `jaxzoo inspect`: each the function of its file's name."""

SUMMARIES = {
    "cam": "Draw the places in images that speak for a class.",
    "features": "Draw the maps inside a network.",
    "kernels": "Draw a layer's kernels, and count the numbers of all parameters.",
    "weights": "Measure and draw what changed between two checkpoints.",
    "embed": "Compute feature vectors of images, draw them as a plane, and find the nearest.",
    "receptive-field": "Measure and draw which pixels reach an output.",
}
