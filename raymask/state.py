"""What a checkpoint holds, and how it comes back: strictly, by name, without pickle.

model.safetensors      the method: student, teacher, centers
optimiser.safetensors  PARAMETER.exp_avg, PARAMETER.step, ...
running.safetensors    what was summed up since the last line of metrics.jsonl
state.json             step, images, config, fingerprint of the data, versions
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

Tensors = dict[str, Tensor]

# What may differ between a run and its continuation: names, places, pace and reporting, never the result.
HARMLESS = (
    "run.name",
    "run.root",
    "run.resume",
    "data.train",  # the fingerprint tells whether it is the same data elsewhere
    "data.val",
    "data.cache",
    "data.threads",
    "data.prefetch",
    "data.max_bad_fraction",
    "train.chunk",
    "train.compile",
    "train.log_steps",
    "train.checkpoint_images",
    "train.keep",
    "evaluate",
    "workers",
    "cluster",
    "ingest",
    "debug",
)


def save(
    folder: Path, *, method: nn.Module, optimiser: Optimizer, running: Tensors, state: Mapping[str, object]
) -> None:
    """Fills `folder` with a checkpoint."""
    parts = {"model": method.state_dict(), "optimiser": _by_parameter(method, optimiser), "running": running}
    for name, part in parts.items():
        try:
            save_file(_on_host(part), folder / f"{name}.safetensors")
        except SafetensorError as error:
            raise OSError(
                f"a checkpoint cannot be written to {folder.parent} ({error}): make room there, then "
                "raymask resume goes on from the last complete one, or from the start"
            ) from error
    (folder / "state.json").write_text(json.dumps(state, indent=2) + "\n")


def describe(folder: Path) -> dict:
    """state.json of a checkpoint. Raises ValueError where it is no checkpoint."""
    try:
        return json.loads((folder / "state.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder} is no checkpoint of raymask: its state.json cannot be read") from error


def restore(folder: Path, *, method: nn.Module, optimiser: Optimizer) -> str:
    """Puts a checkpoint into the method and its optimiser; returns "211/211 tensors, ...".

    Raises ValueError unless every name and shape fits.
    """
    model, moments = tensors(folder / "model.safetensors"), tensors(folder / "optimiser.safetensors")
    expected = method.state_dict()
    matches(model, expected, where=folder / "model.safetensors")
    method.load_state_dict(model, strict=True)
    _load_moments(method, optimiser, moments, where=folder / "optimiser.safetensors")
    return f"{len(model)}/{len(expected)} tensors, and {len(moments)} of the optimiser"


def tensors(path: Path) -> Tensors:
    """The tensors of a safetensors file. Raises ValueError if it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}): the checkpoint is damaged") from error


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
    keys = [
        key
        for key in differences(saved, now)
        if not any(key == h or key.startswith(f"{h}.") for h in HARMLESS)
    ]
    if keys:
        named = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
        raise ValueError(
            f"{where} was written under another config: {named} differ{'s' if len(keys) == 1 else ''}. "
            "A run continues as it began; start a new one with run.name=NAME"
        )


def differences(one: object, other: object, path: str = "") -> list[str]:
    """The dotted keys whose values differ between two trees."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.get("kind") == other.get("kind"):
        keys = [*one, *(key for key in other if key not in one)]
        below = [differences(one.get(k), other.get(k), f"{path}.{k}" if path else k) for k in keys]
        return [key for found in below for key in found]
    return [] if one == other else [path]


def _on_host(found: Mapping[str, Tensor]) -> Tensors:
    # Cloned: safetensors refuses tensors that share memory, as tied or viewed ones do.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in found.items()}


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


def _load_moments(method: nn.Module, optimiser: Optimizer, found: Tensors, *, where: Path) -> None:
    numbers = {name: number for number, name in enumerate(_names(method, optimiser))}
    state: dict[int, Tensors] = {}
    for key, value in found.items():
        name, entry = key.rsplit(".", 1)
        if name not in numbers:
            raise ValueError(f"{where} holds '{name}', which is no trained parameter of this method")
        state.setdefault(numbers[name], {})[entry] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
