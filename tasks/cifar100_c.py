"""CIFAR-100-C: the test images of CIFAR-100 under fifteen corruptions at five severities.

Data     Hendrycks & Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
         Perturbations, ICLR 2019, arXiv:1903.12261: CIFAR-100-C/ with labels.npy and one array per
         corruption, which holds 10,000 images per severity; its four extra corruptions are not used
Licence  CC BY 4.0
Split    test: 750,000 images; the model is trained on cifar100 with the same method and seed
Differs  mCE is the mean error, not divided by the error of a reference model, as usual on CIFAR
"""

from mixbench.declare import Archive, Data
from mixbench.vision.robustness.corruption_arrays import CorruptionArrays


class Cifar100C(CorruptionArrays):
    """Evaluate CIFAR-100 classifiers on corrupted images."""

    version = 2
    evaluates = "cifar100"
    data = Data(
        name="cifar100_c",
        version="1, 2019",
        licence="CC BY 4.0",
        url="https://zenodo.org/records/3555552",
        files={"CIFAR-100-C/labels.npy": "bb4026e9ce52996b95f439544568cdb2"},
        file_counts={"CIFAR-100-C": 0},
        suffixes=(".npy",),
        archives=(
            Archive(
                "CIFAR-100-C.tar",
                "11f0ed0f1191edbf9fa23466ae6021d3",
                "https://zenodo.org/records/3555552/files/CIFAR-100-C.tar",
                2918473216,
            ),
        ),
        num_test=750000,
    )
    array_folder = "CIFAR-100-C"
    array_digests = {
        "brightness.npy": "f22d7195aecd6abb541e27fca230c171",
        "contrast.npy": "322bb385f1d05154ee197ca16535f71e",
        "defocus_blur.npy": "d923e3d9c585a27f0956e2f2ad832564",
        "elastic_transform.npy": "a0792bd6581f6810878be71acedfc65a",
        "fog.npy": "4efc7ebd5e82b028bdbe13048e3ea564",
        "frost.npy": "3a39c6823bdfaa0bf8b12fe7004b8117",
        "gaussian_noise.npy": "ecc4d366eac432bdf25c024086f5e97d",
        "glass_blur.npy": "0bf384f38e5ccbf8dd479d9059b913e1",
        "impulse_noise.npy": "3b3c210ddfa0b5cb918ff4537a429fef",
        "jpeg_compression.npy": "c851b7f1324e1d2ffddeb76920576d11",
        "motion_blur.npy": "732a7e2e54152ff97c742d4c388c5516",
        "pixelate.npy": "96c00c60f144539e14cffb02ddbd0640",
        "shot_noise.npy": "b0a1fa6e1e465a747c1b204b1914048a",
        "snow.npy": "0237be164583af146b7b144e73b43465",
        "zoom_blur.npy": "0204613400c034a81c4830d5df81cb82",
    }
