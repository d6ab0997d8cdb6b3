"""A run that fits under a debugger: the same code path on a network of toy size, a few steps, one thread."""

import json

from raymask.config import Config, change

# Dotted keys and their toy values; a key that a config does not have (another method's) is passed over.
TOY = {
    "backbone.image_size": 32,
    "backbone.patch_size": 8,
    "backbone.dim": 32,
    "backbone.depth": 2,
    "backbone.heads": 2,
    "backbone.mlp_ratio": 2,
    "backbone.dims": [8, 16, 32],
    "backbone.depths": [1, 1, 2],
    "backbone.strides": [2, 2, 2],
    "backbone.pretrained": False,
    "backbone.weights": None,
    "data.threads": 0,
    "data.crops.global_crops.size": 32,
    "data.crops.local_crops.size": 16,
    "method.head.hidden_dim": 32,
    "method.head.bottleneck_dim": 16,
    "method.head.out_dim": 64,
    "method.teacher.name": "deit_tiny_patch16_224",
    "method.teacher.pretrained": False,
    "method.teacher.weights": None,
    "method.teacher.patch_size": 8,
    "method.teacher.dim": 32,
    "method.teacher.depth": 2,
    "method.teacher.heads": 2,
    "method.decoder.dim": 16,
    "method.decoder.depth": 1,
    "method.decoder.heads": 2,
    "method.target.cell": 4,
    "method.selector.name": "deit_tiny_patch16_224",
    "method.selector.pretrained": False,
    "method.selector.weights": None,
    "method.selector.patch_size": 8,
    "method.selector.dim": 32,
    "method.selector.depth": 2,
    "method.selector.heads": 2,
    "method.keep.count": None,
    "train.steps": 6,
    "train.global_batch": 4,
    "train.chunk": None,
    "train.precision": "float32",
    "train.compile": False,
    "train.log_steps": 1,
    "train.checkpoint_images": 12,
    "evaluate.knn": [5],
    "evaluate.linear_epochs": 2,
    "evaluate.every_images": 12,
    "evaluate.size": None,
    "evaluate.resize": None,
    "evaluate.max_images": 16,
    "evaluate.batch": 8,
    "debug": True,
}


def shrink(config: Config) -> Config:
    """The toy run of the same shape: all global crops, at most two local ones, the same objective."""
    local = min(2, config.data.crops.local_crops.count)
    toy = {**TOY, "data.crops.local_crops.count": local}
    return change(config, [f"{key}={_spelled(value)}" for key, value in toy.items() if _has(config, key)])


def _has(config: Config, key: str) -> bool:
    here: object = config
    for name in key.split("."):
        if name not in getattr(type(here), "model_fields", {}):
            return False
        here = getattr(here, name)
    return True


def _spelled(value: object) -> str:
    """A value as YAML spells it."""
    return json.dumps(value)  # JSON is YAML
