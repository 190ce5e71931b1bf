"""COCO captions: caption photographs with an LSTM on features of a model pre-trained on ImageNet.

Data     Chen et al., Microsoft COCO Captions (arXiv:1504.00325), and Lin et al., Microsoft COCO,
         ECCV 2014, in two variants that are never compared: Karpathy's split (dataset_coco.json:
         113,287 training images, 5,000 for validation, 5,000 for test), or the official train2014
         and val2014
Licence  annotations CC BY 4.0; the photographs belong to their authors (Flickr)
Split    test: the test split of the variant; validation: Karpathy's validation split, or 10 % of
         train2014
Recipe   paper: a recurrent decoder of 512 units is trained with Adam for 20 epochs on the pooled
         features of the frozen pre-trained model; the PatchMix paper (arXiv:2106.09011, §5.3)
         states no recipe, names NIC (Vinyals et al., arXiv:1411.4555), and reports the numbers of
         CutMix (clovaai/CutMix-PyTorch@2d8eb68, README.md) for its baselines
Differs  the vocabulary has a fixed size, so that a few hundred entries can be unused; the decoder
         never generates the token for unknown words; images are resized to squares and not
         mirrored, because mirroring exchanges left and right
Expect   protocol paper, resnet50: BLEU-4 of 22.9 % after pre-training without mixing (the paper)
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mixbench.contract import Backbone, Encode, Output, Part, Predictions, Score, Split, Task
from mixbench.declare import (
    COCO_2014_ARCHIVES,
    COCO_2014_IMAGE_ARCHIVES,
    PRETRAINED_ON_IMAGENET,
    SMALL_NETS,
    Count,
    Data,
    Fraction,
    Metric,
    Recipe,
    Synthetic,
    Weights,
    table_row,
)
from mixbench.errors import DataError
from mixbench.streams import generator
from mixbench.vision.captions.captioner import Captioner
from mixbench.vision.captions.scores import blind_bleu, caption_scores
from mixbench.vision.captions.stanford import command
from mixbench.vision.captions.tokenizer import END as END
from mixbench.vision.captions.tokenizer import TOKENIZERS, Vocabulary, sentences
from mixbench.vision.images.augment import resize
from mixbench.vision.images.features import FeatureSplit
from mixbench.vision.images.splits import held_out_share
from mixbench.vision.models.build import build
from mixbench.vision.models.weights import start_from

from .files import TREES, karpathy, official
from .items import CaptionSplit, Told
from .synthetic import write_scenes


class CocoCaptions(Task):
    """Generate captions of photographs with an encoder pre-trained on ImageNet.

    Parameters
    ----------
    variant
        Split of the data: ``karpathy`` for Karpathy's, ``official`` for train2014 and val2014.
    side : pixels
        Side of the squares to which images are resized, regardless of their aspect ratios.
    holdout
        Fraction of train2014 that is held out for validation. Only used with variant ``official``.
    weights
        Initial weights of the encoder. ``pretrained``: from the ImageNet cell of the same method.
        ``synthetic``: the same, trained on synthetic images. ``timm`` or ``timm:TAG``: published by
        timm. ``random``: no pre-training. Any other value is a path of a file of weights.
    mix_in
        Stages in which the method mixes: ``pretrain``, ``finetune`` or ``both``.
    finetune_encoder
        Whether the encoder is trained too. If false, the encoder is frozen, and its features are
        computed once per image unless images are mixed in fine-tuning.
    vocabulary
        Size of the decoder's vocabulary: the most frequent words and three special tokens (end,
        start, unknown).
    words_seen
        Minimum number of occurrences in the training captions for a word of the vocabulary.
    width
        Number of units of the decoder's LSTM, and size of its word embeddings.
    length
        Maximum number of words of a caption. Longer captions are truncated in training, but not as
        references in testing.
    beam
        Beam size of the beam search. 1 means greedy decoding.
    dropout
        Dropout probability at the decoder's inputs and outputs.
    tokenizer
        How captions are split into words: ``rule`` by rules that give Stanford's words in 99 % of
        difficult captions, ``ptb`` by Stanford's tokenizer, which needs Java. Results of the two
        are never compared.
    """

    version = 2
    data = Data(
        name="coco2014_karpathy",
        version="2014, Karpathy's split",
        licence="annotations CC BY 4.0; the photographs belong to their authors (Flickr)",
        url="https://cs.stanford.edu/people/karpathy/deepimagesent/",
        files={
            "dataset_coco.json": "2fd999220673258012acfb411a4e7e66af7d488050b2519b0badcc49b7600b8d"
        },
        file_counts={"train2014": 82783, "val2014": 40504},
        archives=COCO_2014_IMAGE_ARCHIVES,
        manual_steps="Put dataset_coco.json from caption_datasets.zip into the data folder. The "
        "official page no longer offers the file; copies of it are common.",
        shares_folder_with="coco2014",
        num_train=566747,
        num_test=5000,
        num_validation=5000,
    )
    variants = {
        "karpathy": data,
        "official": Data(
            name="coco2014_captions",
            version="2014",
            licence="annotations CC BY 4.0; the photographs belong to their authors (Flickr)",
            url="https://cocodataset.org/#download",
            files={
                "annotations/captions_train2014.json": "abfcc336d66eec2e8c453600cc1db939",
                "annotations/captions_val2014.json": "41a3e90178948b2ba004175080277e35",
            },
            file_counts={"train2014": 82783, "val2014": 40504},
            parts={
                "train2014": "train",
                "annotations/captions_val2014.json": "test",
                "val2014": "test",
            },
            archives=COCO_2014_ARCHIVES,
            shares_folder_with="coco2014",
            num_train=414113,
            num_test=40504,
        ),
    }
    synthetic = Synthetic(train=60, test=20, protocols=("quick",))
    needs = PRETRAINED_ON_IMAGENET
    by_protocol = {
        "quick": {"side": 48, "vocabulary": 80, "words_seen": 2, "width": 96, "dropout": 0.2}
    }
    metrics = (
        Metric("bleu4", "%", higher_is_better=True, primary=True),
        Metric("bleu1", "%", higher_is_better=True),
        Metric("bleu2", "%", higher_is_better=True),
        Metric("bleu3", "%", higher_is_better=True),
        Metric("rouge_l", "%", higher_is_better=True),
        Metric("cider_d", "points", higher_is_better=True),
        Metric("blind_bleu4", "%", higher_is_better=True, trivial_baseline=True),
    )
    models = SMALL_NETS
    takes_timm = True
    protocols = {
        "paper": Recipe(
            "resnet50", epochs=20, batch_size=128, lr=5e-4, weight_decay=0, optimizer="adam"
        ),
        "quick": Recipe(
            "resnet8", epochs=12, batch_size=50, lr=0.004, weight_decay=0, optimizer="adam", tail=3
        ),
    }
    references = (
        *table_row(
            "arXiv:2106.09011", "Table 4, MS-COCO NIC", "resnet50",
            {
                "none": 22.9, "mixup": 23.2, "cutmix": 24.9, "random_patchmix": 26.3,
                "guided_patchmix": 25.5,
            },
            metric="bleu4", remark="the paper does not state the split",
        ),
        *table_row(
            "arXiv:2106.09011", "Table 4, MS-COCO NIC", "resnet50",
            {
                "none": 61.4, "mixup": 61.6, "cutmix": 64.8, "random_patchmix": 66.8,
                "guided_patchmix": 65.5,
            },
            metric="bleu1", remark="the paper does not state the split",
        ),
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # these are the parameters of the task
        self,
        variant: Literal["karpathy", "official"] = "karpathy",
        side: Count = 224,
        holdout: Fraction = 0.1,
        weights: Weights = "pretrained",
        mix_in: Literal["pretrain", "finetune", "both"] = "pretrain",
        finetune_encoder: bool = False,  # noqa: FBT001, FBT002  # users set it by name
        vocabulary: Count = 10000,
        words_seen: Count = 5,
        width: Count = 512,
        length: Count = 20,
        beam: Count = 3,
        dropout: Fraction = 0.5,
        tokenizer: Literal["rule", "ptb"] = "rule",
    ) -> None:
        if tokenizer == "ptb":
            command()  # raises if it cannot run
        self.variant = variant
        self.image_size = (side, side)
        self.holdout = holdout
        self.weights = weights
        self.frozen = not finetune_encoder
        self.plain = mix_in == "pretrain"
        self._decoder = {"words": vocabulary, "width": width, "length": length, "beam": beam}
        self._dropout = dropout
        self._words_seen = words_seen
        self._tokenize = TOKENIZERS[tokenizer]
        self._said: dict[tuple[Path, Part], list[Told]] = {}
        self._vocabularies: dict[Path, Vocabulary] = {}

    def build(self, model: str) -> Backbone:
        """Return an encoder and a decoder that reads the encoder's pooled features."""
        encoder = build(model, classes=1, size=self.image_size)
        encoder.classifier.requires_grad_(False)  # noqa: FBT003  # it is not used
        return Captioner(encoder, **self._decoder, dropout=self._dropout, frozen=self.frozen)

    def start(self, model: Backbone, trained: Mapping[str, Backbone]) -> None:
        """Load the initial weights of the encoder, as given by `weights`."""
        start_from(model.get_submodule("encoder"), self.weights, trained)

    def precompute_frozen(self, model: Backbone, split: Split, encode: Encode) -> Split:
        """Replace the images of a split by their features if the features never change."""
        if not (self.frozen and self.plain and isinstance(split, CaptionSplit)):
            return split
        assert isinstance(model, Captioner)
        model.encoder.eval()
        features = encode(lambda x: model.encoder(x).features.mean((2, 3)), split.images())
        return FeatureSplit(features, split.image, split.targets)

    @property
    def held_out(self) -> float:
        """Fraction of the training images that is held out; Karpathy's splits need none."""
        return 0.0 if self.variant == "karpathy" else super().held_out

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split; Karpathy's splits have one."""
        return self.variant == "karpathy" or super().has_validation

    def load(self, part: Part, folder: Path, seed: int) -> Split:
        """Return one item per training caption, or one per test image with all its captions."""
        said, words = self._images(part, folder, seed), self.vocabulary(folder)
        paths = [folder / image.file for image in said]
        captions = [image.captions for image in said]
        fit = partial(resize, size=self.image_size)
        if part != "train":
            whole, _ = words.number_whole(captions)
            return CaptionSplit(paths, torch.arange(len(said)), whole, fit)
        image = [i for i, of_image in enumerate(captions) for _ in of_image]
        flat = [caption for of_image in captions for caption in of_image]
        targets = words.number(flat, self._decoder["length"])
        return CaptionSplit(paths, torch.tensor(image), targets, fit)

    def vocabulary(self, folder: Path) -> Vocabulary:
        """Return the vocabulary of the official training captions, held-out images included."""
        if folder not in self._vocabularies:
            captions = (words for image in self._read("train", folder) for words in image.captions)
            words = Vocabulary(captions, self._decoder["words"], self._words_seen)
            self._vocabularies[folder] = words
        return self._vocabularies[folder]

    def _images(self, part: Part, folder: Path, seed: int) -> list[Told]:
        """Return the images of a split."""
        if self.variant == "karpathy" or part == "test":
            return self._read(part, folder)
        said = self._read("train", folder)
        held = held_out_share(len(said), self.holdout, generator(seed, "split"))
        return [image for image, out in zip(said, held, strict=True) if out == (part != "train")]

    def _read(self, part: Part, folder: Path) -> list[Told]:
        """Read the images of a published split, dropping empty captions and uncaptioned images."""
        if (folder, part) not in self._said:
            if self.variant == "karpathy":
                every = karpathy(folder, part)
            else:
                every = official(folder, TREES[part])
            words = iter(self._tokenize([caption for image in every for caption in image.captions]))
            told = [Told(i.file, [w for _ in i.captions if (w := next(words))]) for i in every]
            self._said[folder, part] = [image for image in told if image.captions]
        if not self._said[folder, part]:
            raise DataError(
                f"{folder} must have at least one image with a caption in its {part} split (got 0)."
            )
        return self._said[folder, part]

    def class_names(self, folder: Path) -> list[str]:
        """Return the words in the order of their ids; words only in test captions come last."""
        captions = [image.captions for image in self._read("test", folder)]
        return self.vocabulary(folder).number_whole(captions)[1]

    def predict(
        self,
        model: Backbone,
        read: Callable[[Output], Tensor],
        images: Tensor,
        targets: Tensor,  # noqa: ARG002  # captions do not depend on targets
    ) -> dict[str, Tensor]:
        """Return the word ids of a caption for every image, (B, length)."""
        assert isinstance(model, Captioner)
        return {"captions": model.tell(read(model(images)))}

    def score(self, predictions: Predictions, targets: Tensor) -> dict[str, Score]:
        """Return BLEU, ROUGE-L and CIDEr-D, and BLEU-4 if all images get the same caption."""
        told = sentences(predictions["captions"])
        said = [[words for words in sentences(rows) if words] for rows in targets]
        found = caption_scores(told, said)
        scores = {f"bleu{n}": Score(100 * value) for n, value in enumerate(found.bleu, 1)}
        scores |= {"rouge_l": Score(100 * found.rouge_l), "cider_d": Score(100 * found.cider_d)}
        scores["blind_bleu4"] = Score(100 * blind_bleu(said))
        return {metric.name: scores[metric.name] for metric in self.metrics}

    def synthesize(self, folder: Path, amount: Synthetic) -> None:
        """Write synthetic images with captions in the format of the variant.

        Each image shows up to three objects. The amounts are numbers of images for each of eight
        kinds of objects.
        """
        write_scenes(folder, self.variant, amount)
