"""The parts of `jaxzoo inspect`: each the function of its file's name."""

SUMMARIES = {
    "cam": "Draw the places in images that speak for a class.",
    "receptive-field": "Measure and draw which pixels reach an output.",
}
