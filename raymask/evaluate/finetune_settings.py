"""How a backbone is fine-tuned: MAE's recipe as settings."""

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipelines.crops import Crops, LocalCrops, MultiCrop, RandAugment
from pipelines.settings import Settings
from raymask.mixing import Mixing
from raymask.schedules import Fraction


class FineTune(Settings):
    """How a backbone is fine-tuned; the defaults are MAE's and DMJD's for base models.

    epochs, batch: passes over the training images, images a step (at most a sixteenth of them)
    base_lr: peak rate of the top layer for 256 images; layer_decay: what it is multiplied by, layer by layer,
        on the way down
    warmup: share of the steps
    mixup, cutmix: as in method.mixing of MaskedKD; erasing: share of the images that lose a rectangle
    """

    epochs: PositiveFloat = 100
    batch: PositiveInt = 1024
    base_lr: PositiveFloat = 5e-4
    min_lr: NonNegativeFloat = 1e-6
    layer_decay: float = Field(0.65, gt=0, le=1)
    warmup: Fraction = 0.05
    weight_decay: NonNegativeFloat = 0.05
    drop_path: float = Field(0.1, ge=0, lt=1)
    scale: tuple[float, float] = (0.08, 1.0)
    randaugment: RandAugment | None = RandAugment()
    mixup: NonNegativeFloat = 0.8
    cutmix: NonNegativeFloat = 1.0
    smoothing: float = Field(0.1, ge=0, lt=1)
    erasing: Fraction = 0.25

    @property
    def mixing(self) -> Mixing:
        """How images are mixed, and labels with them."""
        return Mixing(mixup=self.mixup, cutmix=self.cutmix, smoothing=self.smoothing)

    def crops(self, like: MultiCrop, size: tuple[int, int]) -> MultiCrop:
        """One crop an image of this size, in the colours of `like`."""
        plain = Crops(
            count=1,
            size=size,
            scale=self.scale,
            randaugment=self.randaugment,
            jitter=0.0,
            grey=0.0,
            blur=0.0,
            solarise=0.0,
        )
        return MultiCrop(global_crops=plain, local_crops=LocalCrops(count=0), mean=like.mean, std=like.std)
