"""Time spent in encoder and decoder, and the memory that a model needs, on the CPU and on CUDA."""

import ctypes
import gc
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn
from transformers import WhisperForConditionalGeneration

# Short compared with any decoding; longer gaps would miss the peak of small batches.
SAMPLING_SECONDS = 0.002


@dataclass(frozen=True)
class Timing:
    """Seconds of one run.

    Args:
        total (`float`): from samples to text, features included.
        encoder (`float`): in the encoder.
        decoder (`float`): in the decoder and the output head.
    """

    total: float
    encoder: float
    decoder: float


class ForwardClock:
    """Times the encoder and the decoder of a model that runs inside a `with` block.

    On CUDA it waits for the device at both ends of a forward pass, since kernels run after the call that starts them.
    """

    def __init__(self, model: WhisperForConditionalGeneration):
        self._model = model
        self._seconds: dict[nn.Module, float] = {}
        self._started: dict[nn.Module, float] = {}
        self._encoder_within = 0.0

    def __enter__(self) -> "ForwardClock":
        self._seconds = {self._model: 0.0, self._model.model.encoder: 0.0}
        self._encoder_within = 0.0
        self._hooks = []
        for module in self._seconds:
            self._hooks.append(module.register_forward_pre_hook(self._start))
            self._hooks.append(module.register_forward_hook(self._stop))
        self._began = self._now()
        return self

    def __exit__(self, *exception: object) -> None:
        self._total = self._now() - self._began
        for hook in self._hooks:
            hook.remove()

    @property
    def timing(self) -> Timing:
        """Seconds of the last block."""
        encoder = self._model.model.encoder
        return Timing(self._total, self._seconds[encoder], self._seconds[self._model] - self._encoder_within)

    def _now(self) -> float:
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)
        return time.perf_counter()

    def _start(self, module: nn.Module, inputs: Any) -> None:
        self._started[module] = self._now()

    def _stop(self, module: nn.Module, inputs: Any, output: Any) -> None:
        elapsed = self._now() - self._started.pop(module)
        self._seconds[module] += elapsed
        # `generate` runs the encoder separately; language detection runs it within the whole model.
        if module is not self._model and self._model in self._started:
            self._encoder_within += elapsed


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def peak_memory(model: WhisperForConditionalGeneration, work: Callable[[], object]) -> int:
    """Bytes that a model needs to do some work: its weights, and the most that memory grew while it worked.

    So a model is not charged for the interpreter or for another model in the same process, whichever ran first.
    On the CPU, growth is that of the resident set, with memory freed by earlier work returned to the system
    beforehand; run the work once before, so that what libraries load on first use does not count.
    """
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
        before = torch.cuda.memory_allocated(model.device)
        work()
        return weights + torch.cuda.max_memory_allocated(model.device) - before
    return weights + resident_growth(work)


def resident_growth(work: Callable[[], object]) -> int:
    process = psutil.Process()
    finished = threading.Event()
    _give_memory_back()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not finished.wait(SAMPLING_SECONDS):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        finished.set()
        watcher.join()
    return peak - before


def _give_memory_back() -> None:
    gc.collect()
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def hardware(device: torch.device) -> dict[str, Any]:
    """What speed figures depend on: processor, cores, torch threads, device, bytes of memory."""
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "memory_bytes": psutil.virtual_memory().total,
    }


def _processor_name() -> str:
    """As `platform.processor`, which on Linux often knows only the architecture."""
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
