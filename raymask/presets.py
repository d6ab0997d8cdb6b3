"""Presets: a paper's recipe as YAML, each an `about`, what it `extends`, settings, and a `laptop` variant.

    about: {paper: ..., masks: ..., differs: ...}
    extends: another preset
    method: ... (settings over those of the other preset)
    laptop: {settings of the small variant of the same shape, reached as NAME-laptop}

A laptop block is inherited too: a preset's own laptop settings go over those of the preset it extends.
"""

from difflib import get_close_matches
from pathlib import Path

from raymask.overrides import read_yaml

HERE = Path(__file__).parent / "presets"
LAPTOP = "-laptop"
_OWN = ("about", "extends", "laptop")


def names() -> list[str]:
    """The presets there are, without their laptop variants."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def about(name: str) -> dict[str, str]:
    """What a preset says of itself: paper, masks (what is masked for whom), differs (from the default)."""
    return _read(name)["about"]


def find(source: str) -> tuple[dict, str]:
    """The raw settings of a preset's name or a YAML file's path, and a name for the run."""
    base, small = source.removesuffix(LAPTOP), source.endswith(LAPTOP)
    if base in names():
        return preset(base, laptop=small), source
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        tree = read_tree(path)
        parent = tree.pop("extends", None)
        if parent is not None:
            tree = _merge(find(str(parent))[0], tree)
        return {key: value for key, value in tree.items() if key not in _OWN}, _name_of(path)
    raise ValueError(_unknown(source))


def _name_of(path: Path) -> str:
    """What a run by a YAML file is called: as the run whose config it is, after a search, or as the file."""
    folder = path.absolute().parent
    if path.name == "config.yaml":
        return folder.name
    return f"{folder.name}-{path.stem}" if (folder / "search.yaml").exists() else path.stem


def preset(name: str, *, laptop: bool = False) -> dict:
    """The raw settings of a preset, those of the presets it extends included."""
    settings, small = _stack(name)
    return _merge(settings, _of_what_is_on(small, settings)) if laptop else settings


def read_tree(path: Path) -> dict:
    """The mapping in a YAML file. Raises ValueError if there is no such file or mapping."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"the config file {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    tree = read_yaml(text, where=str(path))
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds no settings: it should be a mapping such as 'train: {{epochs: 10}}'")
    return tree


def _stack(name: str) -> tuple[dict, dict]:
    """The settings and the laptop settings of a preset, its ancestors' below its own."""
    own = _read(name)
    settings = {key: value for key, value in own.items() if key not in _OWN}
    laptop = own.get("laptop", {})
    if "extends" not in own:
        return settings, laptop
    below, small = _stack(own["extends"])
    return _merge(below, settings), _merge(small, laptop)


def _of_what_is_on(small: dict, settings: dict) -> dict:
    """The laptop settings without those of what the preset turns off: null stays null."""
    kept = {}
    for key, value in small.items():
        if isinstance(value, dict):
            if key in settings and settings[key] is None:
                continue
            below = settings.get(key)
            value = _of_what_is_on(value, below) if isinstance(below, dict) else value
        kept[key] = value
    return kept


def _read(name: str) -> dict:
    if name not in names():
        raise ValueError(_unknown(name))
    return read_tree(HERE / f"{name}.yaml")


def _merge(base: dict, changes: dict) -> dict:
    from raymask.config import Config  # heavy: only where settings are really put together
    from raymask.overrides import merge

    return merge(base, changes, model=Config)


def _unknown(name: str) -> str:
    every = [*names(), *(f"{known}{LAPTOP}" for known in names())]
    near = get_close_matches(name, every, n=1, cutoff=0.5)
    hint = f": did you mean '{near[0]}'?" if near else "."
    return (
        f"unknown preset '{name}'{hint} There are {', '.join(names())} (each also as NAME{LAPTOP}); "
        "or give the path of a YAML file"
    )
