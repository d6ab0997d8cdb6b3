"""Every decision that depends on the device: which one, autocast, threads, compile, copies, memory.

Nothing is measured at run time and nothing happens at import. What torch keeps process-wide (threads, TF32)
is set by `prepare`, once, by the process that owns the run.
"""

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from pipelines.batch import Batch
from raymask.pace import Spans

Precision = Literal["auto", "float32", "bf16"]


def pick_device(local_rank: int = 0) -> torch.device:
    """The CUDA device of this local rank, or the CPU where there is no CUDA device at all."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(
            f"local rank {local_rank} has no GPU: this machine shows {count}; start at most {count} processes"
        )
    return torch.device("cuda", local_rank)


def autocast_dtype(device: torch.device, precision: Precision = "auto") -> torch.dtype | None:
    """What matrix products run in: bfloat16, or None for float32 throughout.

    `auto` takes bfloat16 on CUDA and on CPUs with bfloat16 instructions (AVX512-BF16, AMX), else float32:
    without them a CPU emulates bfloat16 slower than it computes float32.
    """
    if precision == "bf16":
        return torch.bfloat16
    if precision == "float32":
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Within it, matrix products run in `dtype`; nothing changes for None."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def prepare(device: torch.device, *, threads: int | None = None, detect_anomaly: bool = False) -> None:
    """Sets torch's process-wide switches: threads, TF32 for what stays in float32, anomaly detection."""
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        # Huge pages for large tensors: faulting in the pages of a fresh 64 MiB one took a sixth of the time.
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    torch.autograd.set_detect_anomaly(detect_anomaly)


def compile_(*modules: torch.nn.Module) -> None:
    """Runs the modules through torch.compile from now on, a graph a shape; parameters keep their names."""
    for module in modules:
        module.compile(dynamic=False)


def pins_memory(device: torch.device) -> bool:
    """Whether host batches should lie in page-locked memory (asynchronous copies need it)."""
    return device.type == "cuda"


def synchronise(device: torch.device) -> None:
    """Waits until everything queued on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """The largest number of bytes held at once: by CUDA tensors, or by the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def describe(device: torch.device) -> str:
    """The device in words, for env.json and the report."""
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return f"{torch.cuda.get_device_name(device)} ({memory >> 30} GiB)"
    return f"CPU ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads)"


def moved(
    batches: Iterable[Batch], device: torch.device, finish: Callable[[Batch], Batch], spans: Spans
) -> Iterator[Batch]:
    """The batches on `device`, after `finish` there (the device's share of augmentation), timed by `spans`.

    On CUDA the next one is copied and finished on a side stream while this one trains.
    """
    return (_moved_ahead if device.type == "cuda" else _finished_here)(batches, device, finish, spans)


def _finished_here(
    batches: Iterable[Batch], device: torch.device, finish: Callable[[Batch], Batch], spans: Spans
) -> Iterator[Batch]:
    for batch in batches:
        with spans("finish"):
            finished = finish(batch)
        yield finished


def _moved_ahead(
    batches: Iterable[Batch], device: torch.device, finish: Callable[[Batch], Batch], spans: Spans
) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)
    ready: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            with spans("transfer"):
                coming = batch.to(device)
            with spans("finish"):
                coming = finish(coming)
        if ready is not None:
            yield ready
        # Waiting here, after the step that used `ready` was queued, lets that step and this copy overlap.
        torch.cuda.current_stream(device).wait_stream(stream)
        _belongs_to_current_stream(coming, device)
        ready = coming
    if ready is not None:
        yield ready


def _belongs_to_current_stream(batch: Batch, device: torch.device) -> None:
    """Tells the allocator that the current stream uses the batch's memory, so it is not handed out early."""
    current = torch.cuda.current_stream(device)
    for tensor in batch.tensors():
        tensor.record_stream(current)
