"""DMJD (arXiv:2301.00230): several disjoint masked views of a decoded image, and two predicting branches.

MAE's decoder (the invisible branch) predicts targets of hidden patches, and a small head (the visible branch)
those of visible patches, straight from the encoder's tokens. `mask.strategy` disjoint makes the views.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from raymask.backbone import VisionBackbone
from raymask.decoder import VisibleBranch
from raymask.masks import Mask
from raymask.masks.disjoint import Disjoint
from raymask.methods.disjoint_views import Views
from raymask.methods.mae import Branches, DecoderShape, Mae, MaeMethod
from raymask.progress import Progress
from raymask.targets import Distance, Hog, Target, hidden_loss, visible_loss

# q: masked views of crops (view by view)   n: patches   t: length of a target   m: prefix and visible tokens
# d: width of a token


class Dmjd(Mae):
    """Prediction of hidden and of visible patches; the defaults are the released code's, but for the pairing.

    theta: weight of the visible patches' loss
    visible_loss: their distance
    pairing: aligned compares each visible patch with its own target; released compares predictions in the
        encoder's order with targets in raster order, as the released code does by mistake
    adaptive_lr: the learning rate grows with prediction rate over mask ratio, beside the batch
    """

    kind: Literal["dmjd"] = "dmjd"  # type: ignore[assignment]
    target: Target = Hog()
    decoder: DecoderShape = DecoderShape(mlp_ratio=8.0)
    theta: float = Field(1.0, ge=0)
    visible_loss: Distance = "smooth_l1"
    pairing: Literal["aligned", "released"] = "aligned"
    adaptive_lr: bool = True


class DmjdMethod(MaeMethod):
    """MAE's method with a visible branch."""

    settings: Dmjd

    def branches(self, body: VisionBackbone, grid: tuple[int, int]) -> Branches:
        """The decoder and the visible branch, of one width."""
        decoder = super().branches(body, grid).decoder
        return Branches(decoder, VisibleBranch(body.dim, self.width, dim=self.settings.decoder.dim))

    def objective(
        self, tokens: Float[Tensor, "q m d"], target: Float[Tensor, "q n t"], views: Views
    ) -> dict[str, Tensor]:
        """The losses of hidden and of visible patches."""
        settings, head = self.settings, self.student.head
        hidden = hidden_loss(head.decoder(tokens, views.visible), target, views.hidden, settings.loss)
        paired = views.visible if settings.pairing == "aligned" else views.visible.sort(dim=1).values
        assert head.visible is not None
        predicted = head.visible(tokens[:, self.student.backbone.prefix :])
        visible = visible_loss(predicted, target, paired, settings.visible_loss)
        return {
            "loss": hidden + settings.theta * visible,
            "loss_hidden": hidden.detach(),
            "loss_visible": visible.detach(),
        }

    def image_weight(self, progress: Progress) -> float:
        """How many images one counts for in the learning rate."""
        return adaptive_weight(self.mask, progress) if self.settings.adaptive_lr else 1.0


def adaptive_weight(mask: Mask, progress: Progress) -> float:
    """Prediction rate over mask ratio: the paper's 6e-4 for 256 images is 2e-3 for 512 at a rate of 1 and a
    ratio of 0.6. Masks that are not disjoint views leave the learning rate alone."""
    if not isinstance(mask.strategy, Disjoint):
        return 1.0
    ratio = mask.ratio(progress)
    return mask.strategy.reached(ratio) / ratio
