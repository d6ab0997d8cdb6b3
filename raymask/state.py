"""What a checkpoint holds, and how it comes back: strictly, by name, without pickle.

model.safetensors      the method: student, teacher, centers
optimiser.safetensors  PARAMETER.exp_avg, PARAMETER.step, ...
running.safetensors    what was summed up since the last line of metrics.jsonl
state.json             step, images, config, fingerprint of the data, versions
shards/                in place of the first two where they are spread over ranks (sharded.py)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from raymask.sharded import described, fill, holds_shards, is_shared

Tensors = dict[str, Tensor]

# What may differ between a run and its continuation: names, places, pace and reporting, never the result.
HARMLESS = (
    "run.name",
    "run.root",
    "run.resume",
    "run.mirror",
    "data.train",  # the fingerprint tells whether it is the same data elsewhere
    "data.val",
    "data.cache",
    "data.threads",
    "data.prefetch",
    "data.max_bad_fraction",
    "train.chunk",
    "train.sharing",
    "train.compile",
    "train.log_steps",
    "train.checkpoint_images",
    "train.keep",
    "evaluate",
    "workers",
    "cluster",
    "ingest",
    "track",
    "debug",
)


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint will hold.

    parts: tensors by part and name: the live ones, unless they were taken `on_host`
    state: what state.json will say
    """

    parts: Mapping[str, Tensors]
    state: Mapping[str, object]

    @property
    def shared(self) -> Mapping[str, Tensors]:
        """The parts that are spread over ranks, each of which has to write its share."""
        return {
            part: named for part, named in self.parts.items() if any(is_shared(t) for t in named.values())
        }

    def on_host(self) -> "Snapshot":
        """A copy, of what is not spread over ranks, that training does not change any more."""
        whole = {part: named for part, named in self.parts.items() if part not in self.shared}
        copied = {
            part: {name: _copied(tensor) for name, tensor in named.items()} for part, named in whole.items()
        }
        return Snapshot(copied, self.state)

    def write(self, folder: Path) -> None:
        """Fills `folder` with all that is not spread over ranks, which must be on the host."""
        for part, named in self.parts.items():
            try:
                save_file(named, folder / f"{part}.safetensors")
            except SafetensorError as error:
                raise OSError(
                    f"a checkpoint cannot be written to {folder.parent} ({error}): make room there, then "
                    "raymask resume goes on from the last complete one, or from the start"
                ) from error
        (folder / "state.json").write_text(json.dumps(self.state, indent=2) + "\n")


def _copied(tensor: Tensor) -> Tensor:
    """One copy, wherever the tensor is: safetensors refuses those that share memory, as tied ones do."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def snapshot(
    *, method: nn.Module, optimiser: Optimizer, running: Tensors, state: Mapping[str, object]
) -> Snapshot:
    """The checkpoint of a method and its optimiser as they are."""
    moments = _by_parameter(method, optimiser)
    return Snapshot({"model": method.state_dict(), "optimiser": moments, "running": running}, state)


def describe(folder: Path) -> dict:
    """state.json of a checkpoint. Raises ValueError where it is no checkpoint."""
    try:
        return json.loads((folder / "state.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder} is no checkpoint of raymask: its state.json cannot be read") from error


def restore(folder: Path, *, method: nn.Module, optimiser: Optimizer) -> str:
    """Puts a checkpoint into the method and its optimiser; returns "211/211 tensors, ...".

    Both may be spread over ranks, and so may have been what was saved, in another way. Raises ValueError
    unless every name and shape fits.
    """
    expected, moments = method.state_dict(), _outline(folder, "optimiser")
    matches(_outline(folder, "model"), expected, where=folder / "model.safetensors")
    fill(folder, "model", expected)  # these are the method's own tensors
    _load_moments(method, optimiser, moments, folder=folder)
    return f"{len(expected)}/{len(expected)} tensors, and {len(moments)} of the optimiser"


def part(folder: Path, name: str) -> Tensors:
    """All tensors of a part of a checkpoint, whole. Raises ValueError if it is missing or damaged."""
    found = _outline(folder, name)
    if any(tensor.is_meta for tensor in found.values()):
        found = {key: torch.empty_like(each, device="cpu") for key, each in found.items()}
        fill(folder, name, found)
    return found


def tensors(path: Path) -> Tensors:
    """The tensors of a safetensors file. Raises ValueError if it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}): the checkpoint is damaged") from error


def _outline(folder: Path, name: str) -> Tensors:
    """A part of a checkpoint; of one that is spread over files, only names, shapes and types."""
    if holds_shards(folder) and not (folder / f"{name}.safetensors").exists():
        return described(folder, name)
    return tensors(folder / f"{name}.safetensors")


def matches(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, where: Path) -> None:
    """Raises ValueError unless both hold the same names with the same shapes."""
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    both = [name for name in expected if name in found]
    shapes = [name for name in both if found[name].shape != expected[name].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} are missing ({missing[0]}, ...)")
    if surplus:
        problems.append(f"{len(surplus)} are unknown ({surplus[0]}, ...)")
    if shapes:
        name = shapes[0]
        given, wanted = tuple(found[name].shape), tuple(expected[name].shape)
        problems.append(f"{len(shapes)} have another shape ({name}: {given}, not {wanted})")
    if problems:
        good = len(both) - len(shapes)
        raise ValueError(f"{where} does not fit: {good}/{len(expected)} tensors match; {'; '.join(problems)}")


def refuse_another_config(saved: Mapping, now: Mapping, *, where: Path) -> None:
    """Raises ValueError, naming the keys, if a checkpoint's config differs in more than harmless ways."""
    keys = [key for key in differences(saved, now) if not _is_harmless(key)]
    if keys:
        named = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
        raise ValueError(
            f"{where} was written under another config: {named} differ{'s' if len(keys) == 1 else ''}. "
            "A run continues as it began; start a new one with run.name=NAME"
        )


def with_found(given: Mapping, saved: Mapping, path: str = "") -> dict:
    """`given`, with what it leaves open (null, auto) as a run found it when it began."""
    whole = {}
    for name, value in given.items():
        key, found = f"{path}{name}", saved.get(name)
        if isinstance(value, Mapping) and isinstance(found, Mapping):
            value = with_found(value, found, f"{key}.")
        elif value in (None, "auto") and not _is_harmless(key):
            value = found
        whole[name] = value
    return whole


def _is_harmless(key: str) -> bool:
    return any(key == harmless or key.startswith(f"{harmless}.") for harmless in HARMLESS)


def differences(one: object, other: object, path: str = "") -> list[str]:
    """The dotted keys whose values differ between two trees."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.get("kind") == other.get("kind"):
        keys = [*one, *(key for key in other if key not in one)]
        below = [differences(one.get(k), other.get(k), f"{path}.{k}" if path else k) for k in keys]
        return [key for found in below for key in found]
    return [] if one == other else [path]


def _names(method: nn.Module, optimiser: Optimizer) -> list[str]:
    """The parameters' names in the order in which the optimiser numbers them."""
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    return [names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]


def _by_parameter(method: nn.Module, optimiser: Optimizer) -> Tensors:
    """The optimiser's state as PARAMETER.ENTRY; hyper-parameters are schedules and need no saving."""
    names = _names(method, optimiser)
    state = optimiser.state_dict()["state"]
    return {
        f"{names[number]}.{entry}": value if torch.is_tensor(value) else torch.tensor(value)
        for number, entries in state.items()
        for entry, value in entries.items()
        if value is not None
    }


def _load_moments(method: nn.Module, optimiser: Optimizer, found: Tensors, *, folder: Path) -> None:
    """Reads the optimiser's state of `found` names and shapes."""
    parameters = dict(method.named_parameters())
    numbers = {name: number for number, name in enumerate(_names(method, optimiser))}
    state: dict[int, Tensors] = {}
    targets: Tensors = {}
    for key, shape in found.items():
        name, entry = key.rsplit(".", 1)
        if name not in numbers:
            raise ValueError(f"{folder} holds '{name}', which is no trained parameter of this method")
        like = parameters[name].detach()
        targets[key] = torch.empty_like(like) if like.shape == shape.shape else torch.empty(shape.shape)
        state.setdefault(numbers[name], {})[entry] = targets[key]
    fill(folder, "optimiser", targets)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
