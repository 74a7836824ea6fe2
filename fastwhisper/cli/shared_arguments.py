"""Groups of flags that several verbs share: one name for each thing."""

from dataclasses import dataclass, field


@dataclass
class DataArguments:
    """Data."""

    dataset: str = field(
        metadata={
            "help": "name on the Hub, folder with metadata.csv, .tsv or .jsonl, or folder of audio files",
        }
    )
    dataset_config: str | None = field(default=None, metadata={"help": "configuration of a dataset on the Hub"})
    split: str | None = field(default=None, metadata={"help": "split to use; needed if there are several"})
    audio_column: str = field(default="audio", metadata={"help": "column with the audio"})
    text_column: str = field(default="text", metadata={"help": "column with the text"})
    limit: int | None = field(default=None, metadata={"help": "use only the first N rows"})
    streaming: bool = field(default=False, metadata={"help": "stream the dataset instead of downloading it"})
    on_bad_audio: str = field(
        default="skip",
        metadata={"help": "skip leaves out empty or undecodable audio and names it; stop makes it an error"},
    )
    num_proc: int | None = field(
        default=None, metadata={"help": "processes that check the audio beforehand (default: 1)"}
    )


@dataclass
class SpeechArguments:
    """Language."""

    language: str | None = field(
        default=None, metadata={"help": "code or English name; default: the model's own, or auto-detected"}
    )
    task: str = field(
        default="transcribe", metadata={"help": "transcribe, or translate into English", "metavar": "TASK"}
    )


@dataclass
class DeviceArguments:
    """Device."""

    device: str | None = field(
        default=None, metadata={"help": "cpu, cuda or cuda:N; default: CUDA if available", "metavar": "DEVICE"}
    )
    dtype: str | None = field(
        default=None,
        metadata={
            "help": "float32, float16 or bfloat16; default: float32 on the CPU, float16 on CUDA",
            "metavar": "DTYPE",
        },
    )


@dataclass
class TrustArguments:
    """Trust."""

    trust_remote_code: bool = field(
        default=False,
        metadata={"help": "run the Python code that a model folder or repository brings along; never without it"},
    )
