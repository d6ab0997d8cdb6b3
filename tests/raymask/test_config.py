"""The config: complete on paper, closed to what it does not know, and plain in its refusals."""

from pathlib import Path

import pytest
import yaml

from raymask import presets
from raymask.config import Config, anchored, build, change, load, read, to_tree, to_yaml
from raymask.debug import shrink

PRESETS = [name for known in presets.names() for name in (known, known + presets.LAPTOP)]


@pytest.mark.parametrize("name", PRESETS)
def test_the_yaml_of_every_preset_gives_the_same_config_again(name: str, tmp_path: Path):
    config = load(name)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert read(path) == config
    assert load(str(path), ["run.name=x"]) == change(config, ["run.name=x"])


@pytest.mark.parametrize("name", PRESETS)
def test_the_written_config_holds_every_default(name: str):
    config = load(name)

    def complete(tree: object, value: object) -> None:
        fields = getattr(type(value), "model_fields", None)
        if fields is not None:
            assert isinstance(tree, dict) and set(tree) == set(fields)
            for key in fields:
                complete(tree[key], getattr(value, key))

    complete(yaml.safe_load(to_yaml(config)), config)


@pytest.mark.parametrize("name", PRESETS)
def test_shrinking_twice_is_shrinking_once_and_keeps_the_masks(name: str):
    config = load(name)
    small = shrink(config)
    assert shrink(small) == small
    assert small.debug and small.train.global_batch <= 4 and small.data.threads == 0
    assert small.mask == config.mask and type(small.method) is type(config.method)


def test_shrinking_keeps_a_network_that_chooses_patches_and_makes_it_small():
    chosen = ["method.keep.source=network", "method.selector.name=vit_base_patch16_224"]
    selector = shrink(load("maskedkd-50", chosen)).method.selector
    assert (selector.name, selector.dim, selector.depth) == ("deit_tiny_patch16_224", 32, 2)
    assert shrink(load("maskedkd-50")).method.selector is None


def test_what_the_user_says_beside_debug_still_holds():
    config = load("dino", ["debug=true", "train.steps=3", "train.global_batch=6"])
    assert (config.debug, config.train.steps, config.train.global_batch) == (True, 3, 6)
    assert config.run.name == "dino-debug"


def test_a_laptop_variant_has_the_masks_and_objective_of_its_preset():
    for name in presets.names():
        large, small = load(name), load(name + presets.LAPTOP)
        assert small.mask == large.mask, name
        assert small.method.kind == large.method.kind and type(small.backbone) is type(large.backbone), name
        assert small.train.global_batch <= large.train.global_batch, name


def test_an_override_reaches_the_leaf_it_names_and_nothing_else():
    before = load("dino-random-mask")
    after = load("dino-random-mask", ["optim.weight_decay.end=0.2", "data.crops.local_crops.count=3"])
    assert after.optim.weight_decay.end == 0.2 and after.data.crops.local_crops.count == 3
    back = change(after, ["optim.weight_decay.end=0.4", "data.crops.local_crops.count=8"])
    assert back == before


def test_a_number_where_a_schedule_stands_is_a_constant():
    config = load("dino-random-mask", ["mask.ratio=0.25", "optim.weight_decay=1e-2"])
    assert config.mask.ratio.kind == "constant" and config.mask.ratio.value == 0.25
    assert config.optim.weight_decay.value == 0.01


def test_another_kind_drops_the_settings_of_the_former_one():
    config = load("dino", ["optim.weight_decay.kind=constant", "optim.weight_decay.value=0.1"])
    assert to_tree(config)["optim"]["weight_decay"] == {"kind": "constant", "value": 0.1}
    as_dict = load("dino", ["optim.weight_decay={kind: linear, start: 0.1, end: 0.2}"])
    assert as_dict.optim.weight_decay.kind == "linear"


def test_a_list_of_shards_is_named_as_in_the_docs():
    assert load("dino-random-mask", ["data=@list.txt"]).data.train == "@list.txt"
    assert load("dino-random-mask", ["data.val=@https://host/list.txt"]).data.val == "@https://host/list.txt"


def test_overrides_do_not_depend_on_their_order():
    changes = ["mask.ratio.kind=linear", "mask.ratio.start=0.1", "mask.ratio.end=0.5", "train.epochs=3"]
    assert load("dino-random-mask", changes) == load("dino-random-mask", changes[::-1])


def test_the_paths_of_data_leave_the_other_data_settings_alone():
    config = load("dino-laptop", ["data=photos"])
    assert config.data.train == "photos"
    assert config.data.crops == load("dino-laptop").data.crops


def test_a_config_file_extends_a_preset(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: dino-random-mask-laptop\nmask: {ratio: 0.5}\ntrain: {epochs: 1e1}\n")
    config = load(str(path))
    assert config.mask.ratio.value == 0.5 and config.train.epochs == 10
    assert config.backbone == load("dino-random-mask-laptop").backbone and config.run.name == "mine"


REFUSED = {
    "mask.ration=0.3": "unknown key 'mask.ration': did you mean 'mask.ratio'?",
    "optim.learning_rate=1": "unknown key 'optim.learning_rate'",
    "ratio=0.3": "unknown key 'ratio': did you mean 'mask.ratio'?",
    "crops.local_crops.count=2": "unknown key 'crops': did you mean 'data.crops'?",
    "mask.strategy.kind=atention": "unknown kind 'atention' at 'mask.strategy': possible are",
    "method.kind=dyno": "unknown kind 'dyno' at 'method': possible are",
    "mask.kind=drp": "'mask.kind' is 'drp': possible are token, drop, pixel (did you mean drop?)",
    "train.precision=fp16": "'train.precision' is 'fp16': possible are auto, float32, bf16",
    "train.epochs=many": "'train.epochs' is 'many': it must be a number",
    "train.global_batch=2.5": "'train.global_batch' is 2.5: it must be a whole number",
    "train.global_batch=0": "'train.global_batch' is 0: it must be greater than 0",
    "train.compile=perhaps": "'train.compile' is 'perhaps': it must be true or false",
    "data.crops.global_crops.size=big": "'data.crops.global_crops.size' is 'big': it must be a whole number",
    "mask.ratio=0": "a mask ratio of 0 leaves nothing visible or nothing hidden",
    "mask.ratio=1": "a mask ratio of 1 leaves nothing visible or nothing hidden",
    "mask.ratio.kind=linear": "'mask.ratio.start' is missing: give mask.ratio.start=VALUE",
    "backbone.patch_size=7": "backbone.patch_size=7 does not divide data.crops.global_crops.size=64",
    "data.crops.local_crops.size=30": "does not divide data.crops.local_crops.size=30",
    "epochs": "'epochs' is not key=value",
    "train={epochs: [": "the value of 'train' is not YAML",
    "train=5": "'train' is 5: it must be a group of settings",
}


@pytest.mark.parametrize(("change", "sentence"), REFUSED.items())
def test_a_wrong_setting_gets_a_sentence(change: str, sentence: str):
    with pytest.raises(ValueError) as refused:
        load("dino-random-mask-laptop", [change])
    assert sentence in str(refused.value)
    assert type(refused.value) is ValueError and len(str(refused.value)) < 400


def test_each_wrong_setting_gets_a_line_of_its_own():
    with pytest.raises(ValueError) as refused:
        load("dino", ["train.epochs=-1", "mask.ration=0.3", "optim.clip=abc"])
    assert len(str(refused.value).splitlines()) == 3


def test_dropping_some_rows_only_is_refused_because_shapes_would_differ():
    with pytest.raises(ValueError, match="every row must hide the same count"):
        load("dino-random-mask", ["mask.kind=drop", "mask.probability=0.5"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    {
        "dinoo": "unknown preset 'dinoo': did you mean 'dino'?",
        "dino-laptops": "did you mean 'dino-laptop'?",
        "zzz": "or give the path of a YAML file",
        "missing.yaml": "the config file missing.yaml cannot be read",
    }.items(),
)
def test_an_unknown_preset_gets_a_sentence(name: str, sentence: str):
    with pytest.raises(ValueError) as refused:
        load(name)
    assert sentence in str(refused.value)


def test_yaml_runs_no_code(tmp_path: Path):
    path = tmp_path / "evil.yaml"
    path.write_text(f"run: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n")
    with pytest.raises(ValueError, match="is not YAML"):
        load(str(path))
    assert not (tmp_path / "made").exists()


def test_a_config_is_frozen():
    with pytest.raises(Exception, match="frozen"):
        build({}).train.epochs = 3


def test_the_default_config_is_valid():
    assert isinstance(build({}), Config)


def test_a_bare_data_path_keeps_company_with_other_data_settings():
    config = load("dino-laptop", ["data=photos", "data.crops.local_crops.count=2"])
    assert config.data.train == "photos" and config.data.crops.local_crops.count == 2


@pytest.mark.parametrize("name", ["..", "../out", "a/b"])
def test_the_name_of_a_run_is_one_folder(name):
    with pytest.raises(ValueError, match=r"no name of a folder: say where by run\.root"):
        load("dino-laptop", [f"run.name={name}"])


def test_relative_data_are_named_from_the_root_and_links_stay_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "v1").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "v1")
    monkeypatch.chdir(tmp_path)
    meant = {
        "current": f"{tmp_path}/current",
        f"{tmp_path}/current": f"{tmp_path}/current",
        "v1/*.tar": f"{tmp_path}/v1/*.tar",
        "s3://bucket/v1": "s3://bucket/v1",
        "pipe:cat v1/*.tar": "pipe:cat v1/*.tar",
    }
    for given, absolute in meant.items():
        assert anchored(load("dino", [f"data.train={given}", "data.allow_pipe=true"])).data.train == absolute
