"""The settings of ASKD, separate from the trainer so that `--help` can show them without importing torch."""

from dataclasses import dataclass, field, fields

from ..errors import InputError, check_finite, check_positive
from .askd_schedule import MODES, SCHEDULES

SELF_TEACHERS = ("snapshot", "ema")


@dataclass
class ASKDSettings:
    r"""Settings of adaptive self-knowledge distillation.

    With r = global_step / max_steps, tau the temperature and N the target tokens of the whole batch, the loss is

        [(1 - lambda - alpha) CE(labels, S) + lambda tau^2 KL(T_tau || S_tau) + alpha KL(S' || S)] / N

    for student S, teacher T and self-teacher S', plus `encoder_weight` times the mean squared distance of the encoder
    states over the frames of speech. At true length the student hears each row as long as it is, or now and then in a
    whole window, so that it keeps working as plain Whisper; the teacher always hears the window. The defaults are
    this project's, not the paper's (arXiv 2601.19919).

    Args:
        teacher_weight (`float`, *optional*, defaults to 0.8): lambda_0.
        teacher_decay_end (`float`, *optional*, defaults to 0.7): rho.
        schedule (`str`, *optional*, defaults to `"linear"`): `linear`, `cosine`, `constant` or `gap`.
        mode (`str`, *optional*, defaults to `"sequential"`): `sequential` or `joint`.
        self_weight (`float`, *optional*, defaults to 0.5): alpha_T.
        self_teacher (`str`, *optional*, defaults to `"snapshot"`): `snapshot` or `ema`.
        ema_decay (`float`, *optional*, defaults to 0.999): decay per step of the moving average.
        temperature (`float`, *optional*, defaults to 1.0): tau.
        token_gate (`bool`, *optional*, defaults to `False`): teacher term only where the teacher beats the student.
        freeze_encoder (`bool`, *optional*): keep the encoder as it is; by default unless `true_length` is on.
        true_length (`bool`, *optional*, defaults to `False`): train the student for clips without padding.
        true_length_margin (`float`, *optional*, defaults to 0.5): seconds of silence behind a clip; the sum is rounded
            up to a second.
        full_length_probability (`float`, *optional*, defaults to 0.25): share of the rows, drawn anew every epoch,
            that a student of true length hears in a whole window.
        encoder_weight (`float`, *optional*, defaults to 0.0): of the distance of the encoder states.
        encoder_learning_rate (`float`, *optional*): the encoder's; by default that of everything else.
        gap_decay (`float`, *optional*, defaults to 0.95): decay per step of the running averages of schedule `gap`.
        loss_chunk_size (`int`, *optional*, defaults to 256): target tokens whose vocabulary rows are held at a time.

    Raises:
        InputError: for a setting outside its range; the message names the setting, its value and the range.
    """

    teacher_weight: float = field(default=0.8, metadata={"help": "weight of the teacher at the start (lambda_0)"})
    teacher_decay_end: float = field(
        default=0.7, metadata={"help": "share of training after which the teacher's weight is 0 (rho)"}
    )
    schedule: str = field(
        default="linear", metadata={"help": "how the teacher's weight falls: linear, cosine, constant or gap"}
    )
    mode: str = field(
        default="sequential",
        metadata={"help": "self-distillation after the teacher (sequential) or alongside it (joint)"},
    )
    self_weight: float = field(default=0.5, metadata={"help": "weight of the self-teacher at the end (alpha_T)"})
    self_teacher: str = field(
        default="snapshot", metadata={"help": "snapshot (renewed every epoch) or ema (moving average)"}
    )
    ema_decay: float = field(default=0.999, metadata={"help": "decay per step of the self-teacher ema"})
    temperature: float = field(default=1.0, metadata={"help": "softmax temperature of the teacher's term (tau)"})
    token_gate: bool = field(
        default=False, metadata={"help": "use the teacher's term only on tokens where it has the lower cross-entropy"}
    )
    freeze_encoder: bool | None = field(
        default=None,
        metadata={
            "help": "freeze the encoder, which runs once for both if it equals the teacher's (default: true, unless "
            "--true_length)",
            "metavar": "true|false",
        },
    )
    true_length: bool = field(
        default=False,
        metadata={"help": "train the student for clips without padding: fast on short ones, and still good at 30 s"},
    )
    true_length_margin: float = field(
        default=0.5, metadata={"help": "seconds of silence kept behind a clip at true length"}
    )
    full_length_probability: float = field(
        default=0.25, metadata={"help": "share of the rows heard at 30 s all the same, with --true_length"}
    )
    encoder_weight: float = field(
        default=0.0, metadata={"help": "weight of the squared distance to the teacher's encoder over the speech"}
    )
    encoder_learning_rate: float | None = field(
        default=None, metadata={"help": "learning rate of the encoder (default: --learning_rate)"}
    )
    gap_decay: float = field(default=0.95, metadata={"help": "decay per step of the running averages of schedule gap"})
    loss_chunk_size: int = field(
        default=256, metadata={"help": "target tokens whose vocabulary rows are in memory at a time"}
    )

    def __post_init__(self) -> None:
        # Those of the training arguments with them, where this is a part of them.
        numbers = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        check_finite(**{name: number for name, number in numbers.items() if isinstance(number, float)})
        for name, choices in (("schedule", SCHEDULES), ("mode", MODES), ("self_teacher", SELF_TEACHERS)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name}={getattr(self, name)!r} is not one of {', '.join(choices)}")
        for name in ("teacher_weight", "self_weight", "ema_decay", "gap_decay", "full_length_probability"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name}={getattr(self, name)} must be in [0, 1]")
        if not 0.0 < self.teacher_decay_end <= 1.0:
            raise InputError(f"teacher_decay_end={self.teacher_decay_end} must be in (0, 1]")
        if not 0.0 < self.temperature < float("inf"):
            raise InputError(f"temperature={self.temperature} must be above 0, and a number")
        for name in ("true_length_margin", "encoder_weight"):
            if getattr(self, name) < 0.0:
                raise InputError(f"{name}={getattr(self, name)} must be 0 or more")
        if self.freeze_encoder is None:
            self.freeze_encoder = not self.true_length
        check_positive(loss_chunk_size=self.loss_chunk_size)

    @property
    def cuts_rows(self) -> bool:
        """Whether the batches say how long their rows are, and how much of each the student hears."""
        return self.true_length or self.encoder_weight > 0.0
