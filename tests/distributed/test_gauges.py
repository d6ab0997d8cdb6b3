"""What Prometheus sees of a run, scraped from Ray's own agent, and the dashboard that shows it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from raymask.distributed.gauges import GAUGES
from tests.raymask.tiny_run import RECIPE, pictures

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "cluster" / "grafana" / "raymask.json").read_text())
# What a cluster of Ray 2.60 without GPUs exported while it trained a run; `test_a_run_is_scraped` compares.
SCRAPED = set((Path(__file__).parent / "exported_metrics.txt").read_text().split())
OURS = {f"ray_{name}" for name, _ in GAUGES.values()}


def shown() -> set[str]:
    """The metrics that the dashboard's queries name."""
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [
        variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable
    ]
    text = re.sub(r"by \([^)]*\)|\{[^}]*\}", "", " ".join([*panels, *variables]))
    return set(re.findall(r"\bray_\w+", text))


def with_gpus() -> set[str]:
    """The metrics of a node that Ray exports where there are GPUs, by its own list."""
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    return {f"ray_{name}" for name in METRICS_GAUGES if "gpu" in name or "gram" in name}


def test_the_dashboard_shows_nothing_that_is_not_exported_and_all_that_we_export():
    assert shown() <= SCRAPED | with_gpus()
    assert shown() >= OURS and SCRAPED >= OURS


def test_each_panel_says_what_it_shows_in_a_place_of_its_own():
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len({(x, y) for x, y, _, _ in places}) == len(places) and all(x + w <= 24 for x, _, w, _ in places)
    assert all(panel["description"] and panel["title"] for panel in DASHBOARD["panels"])
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


# A cluster of its own, whose agent is told of metrics each second instead of every ten.
SCRIPT = """
import json, sys, threading, urllib.request
from pathlib import Path
from raymask.distributed.bootstrap import prepare_environment
prepare_environment(local=True)
import ray
from raymask.config import load
from raymask.distributed.launch import train_on_ray

folder, stop, found = Path(sys.argv[1]), threading.Event(), {}
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
         _system_config={"metrics_report_interval_ms": 1000})
page = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"

def scrape():
    while not stop.wait(0.5):
        try:
            text = urllib.request.urlopen(page, timeout=10).read().decode()
        except OSError:
            continue
        for line in text.splitlines():
            name, _, rest = line.partition("{")
            if not line.startswith("#") and rest:
                found.setdefault(name, []).append(rest)

thread = threading.Thread(target=scrape)
thread.start()
changes = ["run.name=a", f"run.root={folder}/runs", f"data={folder}/pictures", "workers=1", "train.epochs=12"]
changes += ["train.log_steps=1", "train.checkpoint_images=60", "evaluate.every_images=null"]
train_on_ray(load(str(folder / "tiny.yaml"), changes))
stop.wait(3)
stop.set()
thread.join()
ray.shutdown()
names = {name.removesuffix("_total").removesuffix("_bucket") for name in found} | set(found)
own = {name: sorted(set(rows)) for name, rows in found.items() if "raymask" in name}
(folder / "found.json").write_text(json.dumps({"names": sorted(names), "own": own}))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_is_scraped_from_the_port_of_rays_agent(tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    pictures(tmp_path / "pictures")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "home").mkdir()
    shared = {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **shared}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["own"]) == OURS
    for name, rows in found["own"].items():
        assert all('run="a"' in row and 'rank="0"' in row for row in rows), name
    last = max(float(row.rsplit(" ", 1)[1]) for row in found["own"]["ray_raymask_step"])
    lines = [json.loads(line) for line in (tmp_path / "runs/a/metrics.jsonl").read_text().splitlines()]
    assert last == lines[-1]["step"] == 24
    losses = {line["loss"] for line in lines if "loss" in line}
    assert {float(row.rsplit(" ", 1)[1]) for row in found["own"]["ray_raymask_loss"]} & losses
    assert shown() - with_gpus() <= set(found["names"]), "Ray exports them under other names now"
