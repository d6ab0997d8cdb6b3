"""DMJD."""


def adaptive_lr(base: float, *, images: int, prediction_rate: float, mask_ratio: float) -> float:
    """DMJD's learning rate: `base` per 256 images, times the share predicted over the share hidden.

    >>> round(adaptive_lr(6e-4, images=512, prediction_rate=1.0, mask_ratio=0.6), 10)
    0.002
    """
    return base * (images * prediction_rate / mask_ratio) / 256
