"""What a job runs for `raymask submit tune ...`: the user's own search, checked here first."""

from pathlib import Path

from raymask.distributed.job_command import (
    Command,
    absolute_paths,
    config_file,
    replaced,
    settings,
    shared_root,
)


def tune_command(arguments: list[str], *, here: Path) -> Command:
    """`raymask tune SPACE KEY=VALUE...` as a job, which goes on where its search is if submitted again."""
    from raymask.config import load
    from raymask.distributed.inquiry import settle
    from raymask.distributed.search import parse
    from raymask.distributed.space import open_space
    from raymask.distributed.spaces import names

    if not arguments or "=" in arguments[0]:
        raise ValueError(
            f"say what to search, a space ({', '.join(names())}) or a Python file: raymask submit tune SPACE "
            "preset=PRESET budget=IMAGES [KEY=VALUE]..."
        )
    source, *words = arguments
    search, changes = parse(source, words)
    base = load(search.preset, changes)
    root = shared_root(search.root, here=here, key="root")
    name = str(settle(search, base, open_space(source)).search.name)
    preset, preset_files = config_file(search.preset, here=here)
    space, space_files = (source, ()) if source in names() else config_file(source, here=here)
    given = {
        **absolute_paths(base, here=here),
        "preset": preset,
        "name": name,
        "root": root,
        "run.resume": True,
        "cluster.address": "auto",
    }
    kept = [word for word in words if not replaced(word, given)]
    line = ("python", "-m", "raymask", "tune", space, *kept, *settings(given))
    return Command("tune", name, f"{root}/{name}", line, preset_files + space_files, base.cluster.address)
