"""Training a part of a network: frozen parts, and features computed once."""
