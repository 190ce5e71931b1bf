"""CIFAR-10-C: the test images of CIFAR-10 under fifteen corruptions at five severities.

Data     Hendrycks & Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
         Perturbations, ICLR 2019, arXiv:1903.12261: CIFAR-10-C/ with labels.npy and one array per
         corruption, which holds 10,000 images per severity; its four extra corruptions are not used
Licence  CC BY 4.0
Split    test: 750,000 images; the model is trained on cifar10 with the same method and seed
Differs  mCE is the mean error, not divided by the error of a reference model, as usual on CIFAR
"""

from mixbench.declare import Archive, Data
from mixbench.vision.robustness.corruption_arrays import CorruptionArrays


class Cifar10C(CorruptionArrays):
    """Evaluate CIFAR-10 classifiers on corrupted images."""

    version = 2
    evaluates = "cifar10"
    data = Data(
        name="cifar10_c",
        version="1, 2019",
        licence="CC BY 4.0",
        url="https://zenodo.org/records/2535967",
        files={"CIFAR-10-C/labels.npy": "c439b113295ed5254878798ffe28fd54"},
        file_counts={"CIFAR-10-C": 0},
        suffixes=(".npy",),
        archives=(
            Archive(
                "CIFAR-10-C.tar",
                "56bf5dcef84df0e2308c6dcbcbbd8499",
                "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
                2918471680,
            ),
        ),
        num_test=750000,
    )
    array_folder = "CIFAR-10-C"
    array_digests = {
        "brightness.npy": "0a81ef75e0b523c3383219c330a85d48",
        "contrast.npy": "3c8262171c51307f916c30a3308235a8",
        "defocus_blur.npy": "7d1322666342a0702b1957e92f6254bc",
        "elastic_transform.npy": "9421657c6cd452429cf6ce96cc412b5f",
        "fog.npy": "7b397314b5670f825465fbcd1f6e9ccd",
        "frost.npy": "31f6ab3bce1d9934abfb0cc13656f141",
        "gaussian_noise.npy": "ecaf8b9a2399ffeda7680934c33405fd",
        "glass_blur.npy": "7361fb4019269e02dbf6925f083e8629",
        "impulse_noise.npy": "2090e01c83519ec51427e65116af6b1a",
        "jpeg_compression.npy": "2b9cc4c864e0193bb64db8d7728f8187",
        "motion_blur.npy": "fffa5f852ff7ad299cfe8a7643f090f4",
        "pixelate.npy": "0f14f7e2db14288304e1de10df16832f",
        "shot_noise.npy": "3a7239bb118894f013d9bf1984be7f11",
        "snow.npy": "bb238de8555123da9c282dea23bd6e55",
        "zoom_blur.npy": "6ea8e63f1c5cdee1517533840641641b",
    }
