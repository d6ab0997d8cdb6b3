"""Device decisions that can be checked anywhere."""

import pytest
import torch

from pipelines.batch import Batch
from pipelines.crops import MultiCrop
from pipelines.finish import Finisher
from raymask import device
from raymask.pace import Spans
from raymask.plan import Train, plan

CPU = torch.device("cpu")


def test_precision_means_what_it_says():
    assert device.autocast_dtype(CPU, "float32") is None
    assert device.autocast_dtype(CPU, "bf16") is torch.bfloat16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert device.autocast_dtype(CPU) is (torch.bfloat16 if fast else None)


def test_autocast_changes_matrix_products_only_where_it_is_asked_for():
    one = torch.ones(2, 2)
    with device.autocast(CPU, None):
        assert (one @ one).dtype is torch.float32
    with device.autocast(CPU, torch.bfloat16):
        assert (one @ one).dtype is torch.bfloat16


def test_on_a_cpu_batches_pass_as_they_are():
    rows = torch.arange(2)
    batches = [
        Batch({"global": torch.ones(1, 2, 3, 4, 4)}, rows, rows, rows, rows, step, 2, 0) for step in range(3)
    ]
    arrived = device.moved(batches, CPU, Finisher(MultiCrop()), Spans(CPU))
    assert all(mine is theirs for mine, theirs in zip(arrived, batches, strict=True))


def test_memory_and_device_are_said_in_units_a_person_knows():
    assert 1 << 24 < device.peak_memory(CPU) < 1 << 40
    assert device.describe(CPU).startswith("CPU (")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_batches_arrive_whole_and_in_order():
    gpu = device.pick_device()
    rows = torch.arange(64)

    def batches():
        for step in range(20):
            crops = torch.full((2, 64, 3, 64, 64), float(step)).pin_memory()
            yield Batch({"global": crops}, rows, rows, rows, rows, step, 64, step)

    for step, batch in enumerate(device.moved(batches(), gpu, Finisher(MultiCrop()), Spans(gpu))):
        work = torch.ones(2048, 2048, device=gpu) @ torch.ones(2048, 2048, device=gpu)
        assert batch.step == step and batch.crops["global"].device == gpu
        assert bool((batch.crops["global"] == step).all()) and work[0, 0] == 2048


@pytest.mark.parametrize(
    ("epochs", "images", "batch", "steps"), [(2, 10, 4, 5), (1, 10, 10, 1), (0.1, 10, 4, 1)]
)
def test_a_plan_counts_batches_that_straddle_epochs(epochs: float, images: int, batch: int, steps: int):
    found = plan(Train(epochs=epochs, global_batch=batch), images=images, evaluate_images=None)
    assert found.steps == steps and found.steps_per_epoch == images / batch
    assert found.saves_after(steps) and found.logs_after(steps) and found.evaluates_after(steps)
    assert not found.evaluates_after(0)


def test_intervals_in_images_become_steps():
    found = plan(Train(epochs=10, global_batch=8, checkpoint_images=30), images=100, evaluate_images=17)
    assert [step for step in range(13) if found.saves_after(step)] == [0, 4, 8, 12]
    assert [step for step in range(7) if found.evaluates_after(step)] == [0, 2, 4, 6]
