"""The device's share of augmentation: one call makes a batch's crops of what its loader left to do."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pipelines.batch import Batch
from pipelines.crops import MultiCrop
from pipelines.device_colour import Hue, colour
from pipelines.device_crops import cut, picture_canvases
from pipelines.raw import Raw, RawPictures

# v: views   b: images   n, m: sides of a view


class Finisher:
    """Crops, colours and normalisation on whichever device a batch lies.

    crops: what is cut; hue: "hsv", or the faster "linear"; dtype: what the products that cut run in
    compiled: through torch.compile, a graph a shape
    """

    def __init__(
        self,
        crops: MultiCrop,
        *,
        hue: Hue = "hsv",
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ):
        self._crops, self._hue, self._dtype = crops, hue, dtype
        self._cut: Callable[..., Tensor] = torch.compile(cut, dynamic=False) if compiled else cut
        self._colour: Callable[..., Tensor] = (
            torch.compile(self._painted, dynamic=False) if compiled else self._painted
        )

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Batch:
        """The batch with its crops; as it is where they are there already."""
        if batch.raw is None:
            return batch
        return replace(batch, crops=self._finished(batch.raw), raw=None)

    def _finished(self, raw: Raw) -> dict[str, Tensor]:
        groups = self._crops.groups
        views = dict(zip(groups, raw.views.split([group.count for group in groups.values()], dim=1)))
        levels = self._cut_all(raw, views) if isinstance(raw, RawPictures) else raw.levels
        found = {}
        for name, group in groups.items():
            blurs = max(group.per_view("blur")) > 0
            # A view at a time: what is held besides the crops stays small.
            each = zip(levels[name], views[name].unbind(1))
            found[name] = torch.stack([self._colour(level, view, blurs=blurs) for level, view in each])
        return found

    def _cut_all(self, raw: RawPictures, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """The crops of whole pictures, by view group."""
        # What comes of the bytes that stand for a large picture is written over below.
        sides = raw.sides.index_fill(0, raw.large, 1) if len(raw.large) else raw.sides
        planes = picture_canvases(raw.pixels, raw.starts, sides, raw.largest)
        found = {
            name: self._cut(planes, views[name], size=(group.height, group.width), dtype=self._dtype)
            for name, group in self._crops.groups.items()
        }
        for name, levels in raw.levels.items():
            found[name].index_copy_(1, raw.large, levels.to(found[name].dtype))
        return found

    def _painted(self, levels: Tensor, views: Tensor, *, blurs: bool) -> Tensor:
        """float [b, 3, n, m], not yet whole levels, to normalised float32 of the same shape."""
        whole = (levels.float() + 0.5).clamp(0, 255).floor()
        painted = colour(whole, views, hue=self._hue, blurs=blurs)
        mean = torch.tensor(self._crops.mean, device=levels.device)[:, None, None]
        std = torch.tensor(self._crops.std, device=levels.device)[:, None, None]
        return (painted / 255 - mean) / std
