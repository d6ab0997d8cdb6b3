"""Images as evaluation sees them: torchvision's resize and centre crop, in order, whatever their size."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from pipelines.crops import Crops, MultiCrop
from pipelines.evaluation import evaluation_batches, evaluation_images
from pipelines.loader import Data
from tests.pipelines.pictures import Memory, encoded, memory, picture

CROPS = MultiCrop(global_crops=Crops(size=32))


@pytest.mark.parametrize("shape", [(28, 28), (60, 91), (91, 60), (224, 300), (1, 5), (700, 3)])
@pytest.mark.parametrize("size", [28, 33, 64])
def test_they_are_those_of_torchvision(shape, size):
    pixels = picture(1, *shape)
    got = evaluation_images(Memory([encoded(pixels, "PNG")]), [0], size, crops=CROPS)
    wanted = Compose(
        [
            Resize(round(size * 256 / 224), InterpolationMode.BICUBIC),
            CenterCrop(size),
            ToTensor(),
            Normalize(CROPS.mean, CROPS.std),
        ]
    )(Image.fromarray(pixels))
    levels = (got[0] - wanted).abs() * torch.tensor(CROPS.std)[:, None, None] * 255
    # where Pillow 13 takes rows first, levels in between round otherwise
    assert levels.max() < 4.01 and levels.mean() < 0.3


def test_tiny_grey_images_work():
    grey = Image.fromarray(picture(0, 28, 28)).convert("L")
    got = evaluation_images(Memory([encoded(np.asarray(grey), "PNG")]), [0, 0], 28, 28, crops=CROPS)
    assert got.shape == (2, 3, 28, 28)
    levels = got * torch.tensor(CROPS.std)[:, None, None] + torch.tensor(CROPS.mean)[:, None, None]
    assert (levels * 255 - torch.from_numpy(np.array(grey))).abs().max() < 1e-3


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_come_in_order_with_labels_and_bad_images_left_out(threads):
    source = memory(23, broken={5: b""})
    settings = Data(crops=CROPS, threads=threads, max_bad_fraction=0.1)
    got = list(evaluation_batches(settings, source, batch=10))
    assert [len(batch.images) for batch in got] == [9, 10, 3]
    samples = torch.cat([batch.samples for batch in got])
    assert samples.tolist() == [0, 1, 2, 3, 4, *range(6, 23)]
    assert torch.equal(torch.cat([batch.labels for batch in got]), samples % 3)
    images = evaluation_images(source, samples.numpy(), 32, crops=CROPS)
    assert torch.equal(torch.cat([batch.images for batch in got]), images)


def test_a_batch_of_bad_images_alone_is_passed_over():
    source = memory(6, broken={0: b"", 1: b"torn"})
    (batch,) = evaluation_batches(Data(crops=CROPS, max_bad_fraction=0.5), source, batch=2, samples=[0, 1, 4])
    assert batch.samples.tolist() == [4] and len(batch.images) == 1


def test_some_images_and_another_size_can_be_asked_for():
    (batch,) = evaluation_batches(Data(crops=CROPS), memory(9), size=(16, 24), samples=[7, 2])
    assert batch.images.shape == (2, 3, 16, 24) and batch.samples.tolist() == [7, 2]
