"""Faster R-CNN with a feature pyramid (Ren et al., arXiv:1506.01497; Lin et al., arXiv:1612.03144).

The parts are torchvision's, assembled like ``fasterrcnn_resnet50_fpn`` around any backbone of
mixbench. The first layers and all batch norms of a pretrained encoder are frozen.
"""

import torch
from timm import layers
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from mixbench.contract import Backbone, Output
from mixbench.errors import UsageError
from mixbench.vision.detection.boxes import detections, fitted, to_torchvision_targets

ANCHOR = 8  # side of the anchors, in strides of their level
RATIOS = (0.5, 1.0, 2.0)
CROP = 7  # rows and columns of a region's features in the box head
LEARNING = 3  # last blocks of a pretrained encoder that are trained
FOUND = 100  # maximum number of boxes per image


class Detector(Backbone):
    """A backbone with a feature pyramid, a region proposal network and a box head.

    Parameters
    ----------
    encoder
        Backbone whose ``maps`` gives feature maps of several sizes.
    classes
        Number of object classes, without the background.
    side : pixels
        Side of the input images, which are squares.
    width
        Number of channels of the pyramid's maps; the layers of the box head have four times as
        many units as there are channels.
    proposals
        Maximum number of proposed regions in training, per level before non-maximum suppression
        and per image after it. At test time, the maximum is half of this.
    regions
        Number of proposed regions per image that are sampled for the loss of the box head. Half as
        many anchors are sampled for the loss of the region proposal network.
    trained
        Whether the encoder will start from pretrained weights.
    """

    head_modules = ("pyramid", "rpn", "roi_heads")

    def __init__(  # noqa: PLR0913  # what users set
        self,
        encoder: Backbone,
        *,
        classes: int,
        side: int,
        width: int,
        proposals: int,
        regions: int,
        trained: bool,
    ) -> None:
        super().__init__()
        self.side = side
        self.encoder = encoder
        self.blocks = tuple(f"encoder.{name}" for name in encoder.blocks)
        encoder.classifier.requires_grad_(False)  # noqa: FBT003  # unused
        maps = blank_maps(encoder, side)
        self.feature_dim, self.feature_size = (
            maps[-1].shape[1],
            (maps[-1].shape[2], maps[-1].shape[3]),
        )
        self._levels = len(maps)
        depths = [features.shape[1] for features in maps]
        self.pyramid = FeaturePyramidNetwork(depths, width, LastLevelMaxPool())
        levels = self.pyramid({str(i): features for i, features in enumerate(maps)})
        self._sizes = {name: tuple(level.shape[2:]) for name, level in levels.items()}
        net = _faster_rcnn(width, classes, [side / size[0] for size in self._sizes.values()])
        self.rpn, self.roi_heads = net.rpn, net.roi_heads
        self._limit(proposals, regions)
        # MultiScaleRoIAlign infers the levels' scales from its first images: use a full square.
        self.roi_heads.box_roi_pool(levels, [torch.zeros(1, 4)], [(side, side)])
        if trained:
            _freeze_beginning(encoder)

    @property
    def classifier(self) -> nn.Module:  # type: ignore[override]  # torchvision's own
        """The layer that classifies the regions."""
        layer: nn.Module = self.roi_heads.box_predictor.cls_score
        return layer

    def _limit(self, proposals: int, regions: int) -> None:
        limits = {"training": proposals, "testing": max(proposals // 2, 1)}
        self.rpn._pre_nms_top_n = self.rpn._post_nms_top_n = limits
        self.rpn.fg_bg_sampler.batch_size_per_image = max(regions // 2, 1)
        self.roi_heads.fg_bg_sampler.batch_size_per_image = regions
        self.roi_heads.detections_per_img = FOUND

    def forward(self, x: Tensor) -> Output:
        """Return the flattened pyramid, (B, width, positions of all levels), and last features."""
        maps = self.encoder.maps(x)[-self._levels :]
        levels = self.pyramid({str(i): features for i, features in enumerate(maps)})
        return Output(torch.cat([level.flatten(2) for level in levels.values()], 2), maps[-1])

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the whole batch, repeated for every image, (B,).

        The loss is a mean over regions sampled from all images, so it has no value per image.

        Parameters
        ----------
        out : (B, width, positions)
            Flattened maps of the pyramid.
        targets : (B, M, 6)
            Frame of each image, and true boxes with their classes and difficult flags.
        """
        levels, canvas = self._levels_of(out), self._canvas(out, targets)
        taught = [to_torchvision_targets(target, self.side) for target in targets]
        regions, losses = self.rpn(canvas, levels, taught)
        _, more = self.roi_heads(levels, regions, canvas.image_sizes, taught)
        return torch.stack([*losses.values(), *more.values()]).sum().expand(len(out))

    @torch.no_grad()
    def detect(self, out: Tensor, targets: Tensor) -> Tensor:
        """Return the detected boxes, (B, 100, 6), by decreasing score.

        Parameters
        ----------
        out : (B, width, positions)
            Flattened maps of the pyramid.
        targets : (B, M, 6)
            Targets of the images, of which only the frames are used.
        """
        levels, canvas = self._levels_of(out), self._canvas(out, targets)
        regions, _ = self.rpn(canvas, levels)
        found, _ = self.roi_heads(levels, regions, canvas.image_sizes)
        places = [fitted(target, self.side) for target in targets]
        pairs = zip(found, places, strict=True)
        return torch.stack([detections(boxes, place, FOUND) for boxes, place in pairs])

    def _levels_of(self, out: Tensor) -> dict[str, Tensor]:
        """Return the pyramid's maps by the names of their levels."""
        parts = out.split([height * width for height, width in self._sizes.values()], 2)
        pairs = zip(self._sizes.items(), parts, strict=True)
        return {name: part.unflatten(2, size) for (name, size), part in pairs}

    def _canvas(self, out: Tensor, targets: Tensor) -> ImageList:
        """Return an image list with the sizes of squares and images; its pixels are not set."""
        squares = out.new_empty(1).expand(len(out), 3, self.side, self.side)
        return ImageList(squares, [fitted(target, self.side).size for target in targets])


def _faster_rcnn(width: int, classes: int, strides: list[float]) -> FasterRCNN:
    """Return torchvision's detector for precomputed feature maps with the given strides."""
    maps = nn.Identity()
    maps.out_channels = width  # type: ignore[assignment]  # the only attribute used
    # Strides are powers of 2 unless the side is not a multiple of them.
    anchors = [(ANCHOR * 2 ** round(torch.tensor(s).log2().item()),) for s in strides]
    names = [str(level) for level in range(len(strides) - 1)]
    return FasterRCNN(
        maps,
        rpn_anchor_generator=AnchorGenerator(tuple(anchors), (RATIOS,) * len(anchors)),
        box_roi_pool=MultiScaleRoIAlign(names, CROP, sampling_ratio=2),
        box_head=TwoMLPHead(width * CROP**2, 4 * width),
        box_predictor=FastRCNNPredictor(4 * width, classes + 1),
    )


def blank_maps(encoder: Backbone, side: int) -> list[Tensor]:
    """Return a backbone's maps of a blank image, without those as large as the image.

    Raises
    ------
    UsageError
        If the backbone has no such maps, or their sizes do not decrease strictly.
    """
    name = getattr(encoder, "name", type(encoder).__name__)
    training = encoder.training
    encoder.eval()
    with torch.no_grad():
        maps = encoder.maps(torch.zeros(1, 3, side, side))
    encoder.train(training)
    maps = [features for features in maps if features.shape[2] < side]
    sizes = [features.shape[2] for features in maps]
    if not sizes or sorted(set(sizes), reverse=True) != sizes:
        raise UsageError(
            f"{name} has no feature maps of several sizes, which a detector needs: choose a "
            "convolutional model with --model."
        )
    return maps


def _freeze_beginning(encoder: Backbone) -> None:
    """Freeze an encoder's batch norms and all parameters before its last blocks."""
    layers.freeze_batch_norm_2d(encoder)  # type: ignore[attr-defined, no-untyped-call]
    first_learning = encoder.blocks[-LEARNING:][0]
    for name, parameter in encoder.named_parameters():
        if name.startswith(f"{first_learning}."):
            break
        parameter.requires_grad_(False)  # noqa: FBT003  # torch's signature
