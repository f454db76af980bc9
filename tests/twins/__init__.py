"""PyTorch references that no package has."""
