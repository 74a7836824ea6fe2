"""The teacher that soon stops talking serves the tests of decoding, too."""

from ..evaluation.conftest import teacher

__all__ = ["teacher"]
