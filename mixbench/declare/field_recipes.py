"""The recipes of the field for today's networks, at three sizes.

They are without their own mixing, which is the method one_of: methods would be mixed twice.
"""

from dataclasses import replace

from mixbench.declare.facts import Recipe

RSB_A3 = Recipe(
    model="resnet50",
    epochs=100,
    batch_size=2048,
    lr=8e-3,
    optimizer="lamb",
    weight_decay=0.02,
    filter_bias_and_bn=True,
    warmup_epochs=5,
    warmup_lr=1e-4,
    min_lr=1e-6,
    bce_loss=True,
    bce_target_thresh=0.2,
    auto_augment="rand-m6-mstd0.5-inc1",
)
DEIT = Recipe(
    model="vit_small_patch16_224",
    epochs=300,
    batch_size=1024,
    lr=1e-3,
    optimizer="adamw",
    weight_decay=0.05,
    filter_bias_and_bn=True,
    warmup_epochs=5,
    warmup_lr=1e-6,
    min_lr=1e-5,
    label_smoothing=0.1,
    auto_augment="rand-m9-mstd0.5-inc1",
    random_erasing=0.25,
    aug_repeats=3,
    drop_path=0.1,
)
CONVNEXT = Recipe(
    model="convnext_tiny",
    epochs=300,
    batch_size=4096,
    lr=4e-3,
    optimizer="adamw",
    weight_decay=0.05,
    filter_bias_and_bn=True,
    warmup_epochs=20,
    min_lr=1e-6,
    ema_decay=0.9999,
    label_smoothing=0.1,
    auto_augment="rand-m9-mstd0.5-inc1",
    random_erasing=0.25,
    drop_path=0.1,
)
# openmixup's recipe for networks of this kind on CIFAR-100.
SMALL_DEIT = Recipe(
    model="vit_small",
    epochs=200,
    lr=1e-3,
    optimizer="adamw",
    weight_decay=0.05,
    filter_bias_and_bn=True,
    clip_grad=5.0,
    warmup_epochs=20,
    warmup_lr=1e-8,
    min_lr=1e-6,
    label_smoothing=0.1,
    auto_augment="rand-m7-mstd0.5-inc1",
    drop_path=0.1,
)
QUICK_FIELD_PROTOCOLS = {
    "quick_rsb_a3": replace(
        RSB_A3, model="resnet8", epochs=10, batch_size=50, lr=0.01, warmup_epochs=1, tail=3
    ),
    "quick_deit": replace(
        DEIT, model="small_test_vit", epochs=10, batch_size=50, lr=2e-3, warmup_epochs=1, tail=3
    ),
    "quick_convnext": replace(
        CONVNEXT,
        model="small_test_convnext",
        epochs=10,
        batch_size=50,
        lr=2e-3,
        warmup_epochs=1,
        ema_decay=0.9,
        tail=3,
    ),
}
QUICK_PROTOCOLS = ("quick", "quick_rsb_a3", "quick_deit", "quick_convnext")
IMAGENET_FIELD_PROTOCOLS = {
    "rsb_a3": RSB_A3,
    "deit": DEIT,
    "convnext": CONVNEXT,
    **QUICK_FIELD_PROTOCOLS,
}
SMALL_FIELD_PROTOCOLS = {
    "rsb_a3": replace(RSB_A3, batch_size=256, lr=2.8e-3),
    "deit": SMALL_DEIT,
    "convnext": replace(SMALL_DEIT, model="small_convnext_tiny", clip_grad=0.0, drop_path=0.3),
    **QUICK_FIELD_PROTOCOLS,
}
