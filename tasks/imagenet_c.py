"""ImageNet-C: the validation images of ImageNet under fifteen corruptions at five severities.

Data     Hendrycks & Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
         Perturbations, ICLR 2019, arXiv:1903.12261: CORRUPTION/SEVERITY/WNID/*.JPEG, images of
         224x224 pixels, as unpacked from the published archives
Licence  CC BY 4.0; ImageNet's terms apply to the photographs
Split    test: 3,750,000 images; the model is trained on imagenet with the same method and seed
Source   images are not resized, as in hendrycks/robustness@8190fe3, ImageNet-C/test.py:241-244; mCE
         is relative to the errors of AlexNet, as in google-research/augmix@9b9824c,
         imagenet.py:148-194
Differs  from augmix, which resizes images to 256 pixels and crops 224
Expect   protocol paper, resnet50: 76.7 % mCE without mixing (hendrycks/robustness@8190fe3, README)
"""

from mixbench.declare import Archive, Data, for_each_corruption
from mixbench.vision.robustness.corruption_folders import CorruptionFolders


class ImagenetC(CorruptionFolders):
    """Evaluate ImageNet classifiers on corrupted images."""

    version = 2
    evaluates = "imagenet"
    data = Data(
        name="imagenet_c",
        version="1, 2019",
        licence="CC BY 4.0; ImageNet's terms apply to the photographs",
        url="https://zenodo.org/records/2235448",
        file_counts=for_each_corruption(250000),
        archives=(
            Archive(
                "noise.tar",
                "e80562d7f6c3f8834afb1ecf27252745",
                "https://zenodo.org/records/2235448/files/noise.tar",
            ),
            Archive(
                "blur.tar",
                "2d8e81fdd8e07fef67b9334fa635e45c",
                "https://zenodo.org/records/2235448/files/blur.tar",
            ),
            Archive(
                "weather.tar",
                "33ffea4db4d93fe4a428c40a6ce0c25d",
                "https://zenodo.org/records/2235448/files/weather.tar",
            ),
            Archive(
                "digital.tar",
                "89157860d7b10d5797849337ca2e5c03",
                "https://zenodo.org/records/2235448/files/digital.tar",
            ),
        ),
        num_test=3750000,
    )
    of_alexnet = True
