"""The eye that comes with the package: what its acceptance found, and that it sees."""

import json

import torch

from dora_diffusion.toybox.draws import Instances, Split, draw_instances, draw_views
from dora_diffusion.toybox.eye import DEFAULT_FOLDER, WEIGHTS_FILE, load_eye
from dora_diffusion.toybox.render import render
from dora_diffusion.toybox.words import CLASSES, SCENES


def test_it_tells_toys_apart_that_it_never_learned():
    found = json.loads((DEFAULT_FOLDER / "eye_acceptance.json").read_text(encoding="utf-8"))
    assert found["missed"] == []
    assert found["gate"]["other classes reach"] < found["gate"]["threshold"] < found["gate"]["own class reaches"]
    assert found["split"] in ("test", "final")


def test_its_weights_are_small():
    assert (DEFAULT_FOLDER / WEIGHTS_FILE).stat().st_size <= 3_400_000


def test_it_sees_toys_it_never_learned():
    toys = Instances.cat([draw_instances(1, 50 + k, Split.FINAL, classes=[name]) for k, name in enumerate(CLASSES)])
    views = [draw_views(toys, seed, styles=["photo"]) for seed in (1, 2)]
    first, second = (load_eye().see(render(toys, seen, 128, 1).images) for seen in views)
    assert (first.class_logits.argmax(1) == toys.kind).float().mean() >= 0.95
    assert (first.scene_logits.argmax(1) == views[0].scene).float().mean() >= 0.95
    # Each finds its other picture among all.
    nearest = (first.embedding @ second.embedding.T).argmax(1)
    assert (nearest == torch.arange(len(toys))).float().mean() >= 0.95
    assert len(SCENES) == first.scene_logits.shape[1]
