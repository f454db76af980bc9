"""One file per kind of data set, each with `load(place, *, val_fraction, seed) -> Data`."""
