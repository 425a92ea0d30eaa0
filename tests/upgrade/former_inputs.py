"""Inputs that `make_former.py` gives to an earlier version: images, pretrained weights and study files."""

import hashlib
import math
from pathlib import Path

import numpy as np
from PIL import Image

BACKBONE = "timm:test_efficientnet"  # 99,196 parameters in six blocks
CLASSES = ("blue", "green", "red")
IMAGES_A_CLASS, IMAGE_SIDE = 16, 32

HEAD = """\
name = "{name}"
seed = 7
objective = "{objective}"

[data]
source = "images"
repeats = 1

[model]
backbone = "timm:test_efficientnet"
weights = "weights.safetensors"

[budget]
trials = {trials}
epochs = 5
"""

INTERRUPTED = (
    HEAD
    + """
[search]
transfer_depth = {{ int = [0, 6] }}
freeze_depth = {{ int = [0, 6] }}
lr = {{ log = [1e-6, 1e-2] }}
l2_sp = {{ log = [1e-4, 1.0], zero = true }}
resolution = 32
batch_size = 8

[pruner]
kind = "percentile"
percentile = 80.0
n_startup_trials = 3
min_epochs = 2

[confirm]
points = 1

[service]
grace_seconds = 3.0
"""
)

HALF_CONFIRMED = (
    HEAD
    + """
[search]
freeze_depth = {{ uniform = [0.5, 1.0] }}
lr = {{ log = [1e-3, 1e-1] }}
resolution = 32
batch_size = 8

[confirm]
points = 1
"""
)

# every table and every key that the version knows
EVERY_KEY = """\
name = "every-key"
seed = 11
objective = "macro_f1"

[data]
source = "images"
val_fraction = 0.25
test_fraction = 0.25
repeats = 2
images_max = 40
unreadable = "skip"
resize = "squash"
flip = false
views = 2

[model]
backbone = "timm:test_efficientnet"
weights = "weights.safetensors"
precision = "auto"
layout = "auto"
compile = false

[budget]
trials = {trials}
epochs = 3
hours = 1000000.0

[search]
transfer_depth = {{ choice = [4, 5, 6] }}
freeze_depth = {{ int = [0, 4] }}
anchor_depth = 5
lr = {{ sgd = {{ log = [1e-3, 1e-1] }}, adamw = {{ log = [1e-4, 1e-2] }} }}
lr_ratio = {{ uniform = [0.1, 1.0] }}
lr_decay = 0.9
l2_sp = {{ sgd = {{ log = [1e-4, 1e-1], zero = true }}, adamw = {{ log = [1e-3, 1.0] }} }}
l2 = {{ sgd = 0.0005, adamw = {{ uniform = [0.0, 0.1] }} }}
l2_anchored = 0.0001
optimizer = {{ choice = ["sgd", "adamw"] }}
momentum = {{ choice = [0.8, 0.9] }}
batch_size = {{ choice = [8, 12] }}
epochs = {{ int = [2, 3] }}
warmup_fraction = 0.2
schedule = {{ choice = ["cosine", "linear", "constant"] }}
label_smoothing = {{ uniform = [0.0, 0.1] }}
class_weights = "balanced"
grad_clip = 5.0
augmentation = {{ choice = [0.0, 0.5] }}
mixup = 0.0
head_layers = {{ int = [0, 1] }}
head_width = 16
head_dropout = 0.1
head_first_epochs = 1
resolution = {{ choice = [32, 40] }}

[sampler]
kind = "tpe"
n_startup_trials = 4
n_ei_candidates = 12

[pruner]
kind = "hyperband"
min_epochs = 1
reduction_factor = 2

[confirm]
points = 2
seeds = 4

[service]
trial_seconds_max = 3600.0
stall_seconds_max = 600.0
grace_seconds = 3.0
crashes_max = 2
failures_max = 2
outage_seconds_max = 60.0
checkpoint_seconds = 1.0
checkpoint_gb_max = 1.0
"""

# what cannot stand in one file with the above: a searched backbone, depths as fractions, the other algorithms
CHOSEN_BACKBONE = """\
name = "chosen-backbone"
objective = "balanced_accuracy"

[data]
source = "images"
repeats = 1

[model]
backbone = {{ choice = ["timm:test_efficientnet", "timm:test_resnet"] }}
weights = "none"

[budget]
trials = {trials}
epochs = 2

[search]
transfer_depth = {{ choice = [0.5, 1.0] }}
freeze_depth = {{ uniform = [0.0, 1.0] }}
anchor_depth = 0.5
resolution = 32
mixup = {{ uniform = [0.0, 0.4] }}

[sampler]
kind = "random"

[pruner]
kind = "successive_halving"
min_epochs = 1
reduction_factor = 2
"""


def draw_images(folder: Path) -> None:
    """A folder a class with PNG images of `IMAGE_SIDE` pixels a side: a stripe of its colour on four greys.

    Every fourth image shows another class's, so that no network is without mistakes.
    """
    random = np.random.default_rng(7)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in range(IMAGES_A_CLASS):
            greys = random.integers(0, 4, (IMAGE_SIDE // 4, IMAGE_SIDE // 4)) * 20 + 70
            pixels = np.kron(greys, np.ones((4, 4), int)).astype(np.uint8)[:, :, None].repeat(3, axis=2)
            start = int(random.integers(4, IMAGE_SIDE - 10))
            shown = (label + (index % 4 == 0)) % len(CLASSES)
            stripe = pixels[start : start + 6] if shown else pixels[:, start : start + 6]
            stripe[...] = 40
            stripe[..., 2 - shown] = 230
            Image.fromarray(pixels).save(folder / name / f"{index:02}.png", optimize=True)


def write_weights(path: Path) -> None:
    """Tensors for `BACKBONE`, random numbers of eight bits: they have to lie in a small archive."""
    import timm
    from safetensors.numpy import save_file

    tensors = {}
    for name, tensor in timm.create_model(BACKBONE.removeprefix("timm:")).state_dict().items():
        shape = tuple(tensor.shape)
        if len(shape) < 4:  # norms, counters and the classifier, which tlopt leaves out
            usual = 1.0 if name.endswith(("running_var", ".weight")) and len(shape) == 1 else 0.0
            tensors[name] = np.full(shape, usual, np.int64 if not shape else np.float32)
            continue
        raw = hashlib.shake_256(name.encode()).digest(math.prod(shape))
        spread = 2.0 ** round(math.log2(math.sqrt(6 / math.prod(shape[1:]))))
        values = np.frombuffer(raw, np.int8).astype(np.float32) / 128 * spread
        tensors[name] = values.reshape(shape)
    save_file(tensors, path)
