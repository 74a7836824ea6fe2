"""Special tokens of prompts with speech: the placeholder, its brackets, tasks and languages."""

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

AUDIO_TOKENS = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
TASK_TOKENS = ("<|ASR|>", "<|AST|>", "<|SSUM|>", "<|SQQA|>")
LANGUAGE_TOKENS = ("<|EN|>", "<|KO|>")
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


def add_speech_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Add what a FastSLM's prompts need to a language model's tokenizer, in place; adding it twice does no harm.

    A tokenizer without a chat template also gets ChatML's tokens, with `<|im_end|>` as the end of an answer. One
    without a padding token pads with its end token.
    """
    chatml = () if tokenizer.chat_template else CHATML_TOKENS
    known = tokenizer.get_vocab()
    new = [token for token in (*AUDIO_TOKENS, *TASK_TOKENS, *LANGUAGE_TOKENS, *chatml) if token not in known]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in new], special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or CHATML_TOKENS[1]
    if chatml:
        # Trainer copies the tokenizer's end into the model's generation config.
        tokenizer.eos_token = CHATML_TOKENS[1]


__all__ = ["add_speech_tokens"]
