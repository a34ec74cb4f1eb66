"""convjax: the claims of a well-known convnet chapter as runnable, measured experiments in JAX."""

__version__ = "0.1.0"
