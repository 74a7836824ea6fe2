# Before any module of this folder: importing transformers registers our classes, and half of one cannot be registered.
import transformers  # noqa: F401
