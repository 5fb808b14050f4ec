"""Train any JAX model by local learning."""

__version__ = "0.1.0"
