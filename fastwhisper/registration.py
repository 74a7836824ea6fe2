"""Registers this package's classes with transformers' AutoClasses.

`import fastwhisper` asks wrapt to call `register_auto_classes` as soon as `transformers` is imported, at once if it
already is. So `import fastwhisper` and `--help` stay quick, and the order of imports does not matter. The hook is on
the top package because every import of transformers runs it first and to its end: nothing of transformers is half
imported then. Nor is anything of ours: `configuration/` and `modeling/` import transformers before their first module.
Other threads wait at the import lock of `transformers` until the classes are registered.
"""


def register_auto_classes() -> None:
    """Make `AutoConfig`, `AutoProcessor` and the `AutoModel` classes know FastSLM, and the models know FastWhisper.

    `import fastwhisper` does this by itself. Call it to choose the moment; calling it twice does no harm.
    """
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMultimodalLM,
        AutoModelForSpeechSeq2Seq,
        AutoProcessor,
    )

    from .configuration.configuration_fastslm import FastSLMConfig
    from .configuration.configuration_fastwhisper import FastWhisperConfig
    from .modeling.modeling_fastslm import FastSLMForCausalLM, FastSLMModel
    from .modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
    from .modeling.processing_fastslm import FastSLMProcessor

    # FastWhisper's configuration is not registered: its model_type is "whisper", and plain Whispers must load as ever.
    AutoConfig.register("fastslm", FastSLMConfig, exist_ok=True)
    AutoProcessor.register(FastSLMConfig, FastSLMProcessor, exist_ok=True)
    AutoModel.register(FastSLMConfig, FastSLMModel, exist_ok=True)
    AutoModelForCausalLM.register(FastSLMConfig, FastSLMForCausalLM, exist_ok=True)
    AutoModelForMultimodalLM.register(FastSLMConfig, FastSLMForCausalLM, exist_ok=True)
    AutoModel.register(FastWhisperConfig, FastWhisperForConditionalGeneration, exist_ok=True)
    AutoModelForSpeechSeq2Seq.register(FastWhisperConfig, FastWhisperForConditionalGeneration, exist_ok=True)
