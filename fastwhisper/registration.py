"""Registers the classes of this package with transformers' AutoClasses, once transformers itself is imported.

`import fastwhisper` stays light (`fastwhisper --help` answers at once): a registration waits until the module of
transformers with its AutoClass is there and no import of transformers or of this package is still under way, whoever
started it.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder


def _register_configurations() -> None:
    from transformers import AutoConfig

    from .configuration.configuration_fastslm import FastSLMConfig

    # Not FastWhisper's: its model_type stays "whisper", and plain Whisper checkpoints must load as before.
    AutoConfig.register("fastslm", FastSLMConfig, exist_ok=True)


def _register_processors() -> None:
    from transformers import AutoProcessor

    from .configuration.configuration_fastslm import FastSLMConfig
    from .modeling.processing_fastslm import FastSLMProcessor

    AutoProcessor.register(FastSLMConfig, FastSLMProcessor, exist_ok=True)


def _register_models() -> None:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq

    from .configuration.configuration_fastslm import FastSLMConfig
    from .configuration.configuration_fastwhisper import FastWhisperConfig
    from .modeling.modeling_fastslm import FastSLMForCausalLM, FastSLMModel
    from .modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration

    AutoModel.register(FastSLMConfig, FastSLMModel, exist_ok=True)
    AutoModelForCausalLM.register(FastSLMConfig, FastSLMForCausalLM, exist_ok=True)
    AutoModelForMultimodalLM.register(FastSLMConfig, FastSLMForCausalLM, exist_ok=True)
    AutoModel.register(FastWhisperConfig, FastWhisperForConditionalGeneration, exist_ok=True)
    AutoModelForSpeechSeq2Seq.register(FastWhisperConfig, FastWhisperForConditionalGeneration, exist_ok=True)


_PENDING: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_configurations,
    "transformers.models.auto.processing_auto": _register_processors,
    "transformers.models.auto.modeling_auto": _register_models,
}


class _TransformersImports(MetaPathFinder):
    """Watches the imports of transformers and of this package and registers when the outermost one is done.

    Of this package too: its modules import transformers, and half of one cannot be registered.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._finding = False

    def find_spec(self, fullname, path=None, target=None):
        if self._finding or fullname.partition(".")[0] not in ("transformers", __package__):
            return None
        self._finding = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._finding = False
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module) -> None:
            self._depth += 1
            try:
                execute(module)
            finally:
                self._depth -= 1
            if self._depth == 0:
                self._register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec

    def _register(self) -> None:
        _register_loaded()
        if not _PENDING and self in sys.meta_path:
            sys.meta_path.remove(self)


def _register_loaded() -> None:
    # A registration imports more of transformers, and with it perhaps what another one waits for.
    while loaded := [name for name in _PENDING if name in sys.modules]:
        _PENDING.pop(loaded[0])()


def register_auto_classes() -> None:
    """Register now what transformers has loaded already, and the rest when it is loaded."""
    _register_loaded()
    if _PENDING:
        sys.meta_path.insert(0, _TransformersImports())
