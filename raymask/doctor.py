"""Is this machine, this data, and this cluster, set up right? Each question is answered by trying."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is right, and what there is to say about it."""

    what: str
    ok: bool
    said: str


def examine(data: str | None = None, *, cluster: str | None = None) -> Iterator[Finding]:
    """Looks at one thing after the other; `data` and the `cluster` of that address as well, if given."""
    questions: list[tuple[str, Callable[[], str]]] = [
        ("torch", _torch),
        ("torchvision", _torchvision),
        ("device", _device),
        ("precision", _precision),
        ("decoder", _decoder),
        ("free disk", _disk),
    ]
    if data is not None:
        questions.append(("data", lambda: _data(data)))
    for what, question in questions:
        try:
            yield Finding(what, True, question())
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            yield Finding(what, False, _advice(str(error)))
    if cluster is not None:
        from raymask.distributed.node_report import examine_cluster

        yield from examine_cluster(cluster)


def _advice(error: str) -> str:
    """The known cause of a message, or the message."""
    if "torchvision::nms" in error:
        return (
            f"torch {version('torch')} and torchvision {version('torchvision')} were built for each other's "
            "other versions: install both again from one index, in one command"
        )
    return " ".join(error.split())


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _torchvision() -> str:
    import torchvision.ops

    return f"{torchvision.__version__}, its operators load ({torchvision.ops.nms.__name__})"


def _device() -> str:
    from raymask.device import describe, pick_device

    return describe(pick_device())


def _precision() -> str:
    from raymask.device import autocast_dtype, pick_device

    dtype = autocast_dtype(pick_device())
    return f"train.precision=auto means {'float32' if dtype is None else str(dtype).removeprefix('torch.')}"


def _decoder() -> str:
    """Decodes a small JPEG by the loader's own means."""
    from io import BytesIO

    from PIL import Image

    from pipelines.data import available_cores
    from pipelines.decode import decode

    file = BytesIO()
    Image.new("RGB", (32, 24), (200, 30, 30)).save(file, "jpeg")
    height, width, _ = decode(file.getvalue(), 64 * 64).shape
    return f"a {height}x{width} JPEG was decoded; {available_cores()} cores for the loader"


def _disk() -> str:
    import shutil

    free = shutil.disk_usage(".").free
    if free < 1 << 30:
        raise ValueError(f"only {free / 1e9:.2f} GB are free here: checkpoints need more")
    return f"{free / 1e9:.1f} GB"


def _data(data: str) -> str:
    from pipelines.inspect import inspect_splits

    found = inspect_splits(data)
    bad = [f"{name}: {cause}" for contents in found.values() for name, cause in contents.bad]
    if bad:
        raise ValueError(f"{len(bad)} of the images that were looked at cannot be read, first {bad[0]}")
    return ", ".join(
        f"{contents.images:,} images of {len(contents.classes)} classes{f' in {split}' if split else ''}"
        for split, contents in found.items()
    )
