"""What to measure about a backbone, and how often."""

from typing import Literal

from pydantic import Field, PositiveInt

from pipelines.settings import Settings
from raymask.evaluate.finetune_settings import FineTune

LinearRecipe = Literal["dino", "mae"]


class Evaluate(Settings):
    """Evaluation on a held-out split: `data.train` is the bank that is searched, `data.val` the queries.

    knn: neighbour counts of the weighted k-NN; empty turns it off
    temperature: a neighbour's vote is exp(cosine similarity / temperature)
    low_shot: also k-NN from 1, 5, 10 and 20 labelled images a class, at the end of a run
    linear: also fit a linear probe on the frozen features, at the end of a run
    linear_recipe: DINO's probe, or that of the masked autoencoders (MAE, ConvMAE, DMJD)
    linear_epochs, linear_views: its passes over the bank, and augmented copies of the bank it is fitted on
    linear_lr, linear_batch: its peak rate is linear_lr * linear_batch / 256; null is the recipe's own, as for
        the epochs (DINO's 100, 0.001 and 1024, MAE's 90, 0.1 and 4096)
    finetune: also train a copy of the backbone end to end on the labels, in `raymask evaluate` alone
    label_free: also measure what needs no labels: LiDAR and the entropy of [CLS] attention. The second costs
        next to nothing, LiDAR lidar_images * lidar_views forwards: as long as so many images of a bank
    lidar_images, lidar_views: images, spread evenly over the bank, and random crops of each
    every_images: evaluate each time this many images were seen; null is only at the end
    network: whose backbone is measured
    size: side of the evaluation images in pixels; null is backbone.image_size
    resize: the shorter side before the centre crop; null is size * 256 / 224 (the usual 256 -> 224)
    max_images: at most so many images of each split, spread evenly over it; null is all of them
    batch: images of one forward
    """

    knn: tuple[PositiveInt, ...] = (10, 20, 100, 200)
    temperature: float = Field(0.07, gt=0)
    low_shot: bool = False
    linear: bool = False
    linear_recipe: LinearRecipe = "dino"
    linear_epochs: PositiveInt | None = None
    linear_views: PositiveInt = 1
    linear_lr: float | None = Field(None, gt=0)
    linear_batch: PositiveInt | None = None
    finetune: FineTune | None = None
    label_free: bool = False
    lidar_images: int = Field(1000, ge=2)
    lidar_views: int = Field(10, ge=2)
    every_images: PositiveInt | None = None
    network: Literal["teacher", "student"] = "teacher"
    size: PositiveInt | None = None
    resize: PositiveInt | None = None
    max_images: PositiveInt | None = None
    batch: PositiveInt = 256
