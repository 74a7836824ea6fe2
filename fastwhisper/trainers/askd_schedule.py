"""The curriculum of ASKD: how much the teacher and the self-teacher weigh in the loss over the course of training.

Pure functions of the progress r = global_step / max_steps in [0, 1]. The idea of a decaying teacher and a following
self-distillation phase is from arXiv 2601.19919; the formulas and defaults are this project's own.
"""

import math

SCHEDULES = ("linear", "cosine", "constant", "gap")
MODES = ("sequential", "joint")


def teacher_weight_at(progress: float, schedule: str, mode: str, initial: float, decay_end: float) -> float:
    r"""Weight lambda of the teacher; for `gap` its upper bound, the linear schedule.

    linear: `initial * (1 - r / rho)`, cosine: `initial * (1 + cos(pi * r / rho)) / 2`, both 0 from rho on; constant:
    `initial`. rho is `decay_end` in mode `sequential` and 1 in mode `joint`.

    Args:
        progress (`float`): r, in [0, 1].
        schedule (`str`): one of `SCHEDULES`.
        mode (`str`): one of `MODES`.
        initial (`float`): lambda_0.
        decay_end (`float`): rho, in (0, 1].
    """
    if schedule == "constant":
        return initial
    elapsed = min(progress / (decay_end if mode == "sequential" else 1.0), 1.0)
    if elapsed == 1.0:
        return 0.0
    return initial * (0.5 * (1.0 + math.cos(math.pi * elapsed)) if schedule == "cosine" else 1.0 - elapsed)


def self_weight_at(
    progress: float, schedule: str, mode: str, final: float, decay_end: float, teacher_weight: float
) -> float:
    r"""Weight alpha of the self-teacher.

    sequential: 0 until rho, then `final * (r - rho) / (1 - rho)`; joint: `final * r`, but never more than
    lambda leaves. With a constant teacher it is 0, which is plain knowledge distillation.

    Args:
        progress (`float`): r, in [0, 1].
        schedule (`str`): one of `SCHEDULES`.
        mode (`str`): one of `MODES`.
        final (`float`): alpha_T, reached at r = 1.
        decay_end (`float`): rho, in (0, 1].
        teacher_weight (`float`): lambda at the same progress.
    """
    if schedule == "constant":
        return 0.0
    if mode == "sequential":
        ramp = 0.0 if progress <= decay_end else (progress - decay_end) / (1.0 - decay_end)
    else:
        ramp = progress
    return min(final * ramp, 1.0 - teacher_weight)


def gap_weight(upper_bound: float, initial: float, student_ce: float, teacher_ce: float) -> float:
    r"""Weight lambda of the schedule `gap`: `initial * clip((CE_S - CE_T) / CE_S, 0, 1)`, at most `upper_bound`.

    The student relies on the teacher only as long as the teacher is better.

    Args:
        upper_bound (`float`): the linear schedule at this progress.
        initial (`float`): lambda_0.
        student_ce (`float`): running average of the student's cross-entropy, nats per token.
        teacher_ce (`float`): running average of the teacher's.
    """
    gap = (student_ce - teacher_ce) / student_ce if student_ce > 0.0 else 0.0
    return min(upper_bound, initial * min(max(gap, 0.0), 1.0))
