"""Imports every file of replays, each of which registers its kinds."""


def register() -> None:
    """Fills the table of replays; each file is named after the folder of cases it replays."""
    import importlib
    import pkgutil
    from pathlib import Path

    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.startswith("replay_") and module.name != "replay_all":
            importlib.import_module(f"tests.golden.{module.name}")
