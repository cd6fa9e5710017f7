"""The training tests' tiny configuration, for experiments."""

from tests.training.conftest import tiny_config, tiny_options

__all__ = ["tiny_config", "tiny_options"]
