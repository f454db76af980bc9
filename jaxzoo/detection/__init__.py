"""Networks that find objects: a file for each family, registered as they are imported."""
