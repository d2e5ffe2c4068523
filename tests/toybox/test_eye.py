"""The eye: network and files, training data, losses, statistics of its tests, and a smoke run of the stage."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dora_diffusion.errors import ConfigError, DoraError, ModelError
from dora_diffusion.toybox import architecture
from dora_diffusion.toybox.draws import TWINS, Split, split_of
from dora_diffusion.toybox.eye import (
    CONFIG_FILE,
    EMBEDDING,
    NOTHING,
    SIZE,
    WEIGHTS_FILE,
    Eye,
    Seen,
    load_eye,
    resized,
    save_eye,
)
from dora_diffusion.toybox.recipe import eye_augment
from dora_diffusion.toybox.recipe.eye_acceptance import _gate, accept_eye, table, write_report
from dora_diffusion.toybox.recipe.eye_augment import Dice, augment, is_outline, without_toy
from dora_diffusion.toybox.recipe.eye_bench import OTHER_SCENES, AcceptanceSizes, Bench
from dora_diffusion.toybox.recipe.eye_figures import Figure, auc, auc_figure, mean_figure, plain, recall_at_1
from dora_diffusion.toybox.recipe.eye_losses import found_share, identity_loss
from dora_diffusion.toybox.recipe.eye_pool import MEMBERS, EyePool, EyePoolSettings, family_pictures
from dora_diffusion.toybox.recipe.eye_probes import PROBES, recolored, saturated
from dora_diffusion.toybox.recipe.eye_stage import EyeSettings, load_round_trip, train_eye
from dora_diffusion.toybox.recipe.loop import read_state
from dora_diffusion.toybox.render import Rendered
from dora_diffusion.toybox.words import CLASSES, COLORS, REFERENCE_SCENES, SCENES, STYLES

MAX_BYTES = 3_400_000


def small_eye() -> Eye:
    torch.manual_seed(0)
    eye = Eye((8, 16, 16, 16), (1, 1, 1, 1), 32)
    for block in eye.blocks:
        nn.init.normal_(block.conv2.weight, std=0.1)
    return eye.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_eye(small_eye(), tmp_path)
    return tmp_path


class TestNetwork:
    def test_says_everything_about_pictures_of_any_size(self) -> None:
        seen = small_eye().see(torch.rand(3, 3, 50, 40))
        assert seen.embedding.shape == (3, EMBEDDING)
        assert seen.class_logits.shape == (3, len(CLASSES) + 1)
        assert seen.scene_logits.shape == (3, len(SCENES))
        assert seen.style_logits.shape == (3, len(STYLES))
        assert seen.color_logits.shape == (3, len(COLORS))
        torch.testing.assert_close(seen.embedding.norm(dim=1), torch.ones(3))
        assert len(CLASSES) == NOTHING

    def test_a_picture_is_seen_the_same_alone_and_in_a_batch(self) -> None:
        eye, images = small_eye(), torch.rand(4, 3, 32, 32)
        torch.testing.assert_close(eye.see(images[:1]).embedding, eye.see(images).embedding[:1])

    def test_sees_where_a_spot_is(self) -> None:
        left, right = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
        left[..., 8:12, 4:8], right[..., 8:12, 24:28] = 1, 1
        eye = small_eye()
        assert (eye.see(left).embedding - eye.see(right).embedding).abs().max() > 1e-3

    def test_large_pictures_are_brought_down_without_aliasing(self) -> None:
        stripes = torch.zeros(1, 3, 256, 256)
        stripes[..., ::2] = 1
        assert (resized(stripes, 32)[..., 4:-4] - 0.5).abs().max() < 0.02
        same = torch.rand(1, 3, 32, 32)
        assert resized(same, 32) is same

    @pytest.mark.parametrize(
        "wrong", [torch.rand(3, 32, 32), torch.rand(1, 1, 32, 32), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)]
    )
    def test_refuses_what_is_no_batch_of_pictures(self, wrong: Tensor) -> None:
        with pytest.raises(ModelError, match=r"\(n, 3, height, width\)"):
            small_eye().see(wrong)


class TestFiles:
    def test_the_product_fits(self, tmp_path: Path) -> None:
        eye = Eye()
        assert eye.size == SIZE
        save_eye(eye, tmp_path)
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= MAX_BYTES

    def test_comes_back_as_fp16_made_it(self, folder: Path) -> None:
        loaded, images = load_eye(folder), torch.rand(2, 3, 32, 32)
        assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        torch.testing.assert_close(loaded.see(images).embedding, small_eye().see(images).embedding, atol=5e-3, rtol=0)

    def test_same_weights_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        save_eye(small_eye(), tmp_path / "again")
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

    def test_no_eye_is_told_plainly(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="There is no eye in .*eye.json and eye.safetensors missing"):
            load_eye(tmp_path)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            (CONFIG_FILE, "{"),
            (CONFIG_FILE, "[]"),
            (CONFIG_FILE, '{"size": 32}'),
            (WEIGHTS_FILE, "no safetensors"),
            (WEIGHTS_FILE, ""),
        ],
    )
    def test_damaged_files_are_told_plainly(self, folder: Path, name: str, text: str) -> None:
        (folder / name).write_text(text)
        with pytest.raises(ModelError, match=f"{name} is damaged"):
            load_eye(folder)

    @pytest.mark.parametrize(
        "change", [{"widths": [8, 16, 16]}, {"widths": "wide"}, {"size": "large"}, {"depths": []}, {"widths": [3, 5]}]
    )
    def test_a_config_of_another_network_is_told_plainly(self, folder: Path, change: dict[str, object]) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text())
        (folder / CONFIG_FILE).write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match="is damaged"):
            load_eye(folder)

    def test_other_words_are_told_plainly(self, folder: Path) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text())
        config["words"]["scenes"] = config["words"]["scenes"][::-1]
        (folder / CONFIG_FILE).write_text(json.dumps(config))
        with pytest.raises(ModelError, match="trained on other scenes"):
            load_eye(folder)

    def test_numbers_that_are_not_finite_are_told_plainly(self, folder: Path) -> None:
        eye = small_eye()
        eye.class_head.bias.data.fill_(torch.nan)
        save_eye(eye, folder)
        with pytest.raises(ModelError, match="not finite"):
            load_eye(folder)


class TestFigures:
    def test_auc_of_order(self) -> None:
        low, high = torch.tensor([0.1, 0.2]), torch.tensor([0.7, 0.8, 0.9])
        assert auc(high, low) == 1
        assert auc(low, high) == 0
        assert auc(low, low) == 0.5
        assert auc(torch.ones(3), torch.ones(4)) == 0.5

    def test_auc_counts_pairs(self) -> None:
        positives, negatives = torch.randint(9, (40,)).float(), torch.randint(7, (30,)).float()
        above = (positives[:, None] > negatives).double() + (positives[:, None] == negatives).double() / 2
        torch.testing.assert_close(auc(positives, negatives), above.mean())

    def test_auc_of_two_normals(self) -> None:
        draws = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0))
        expected = torch.special.ndtr(torch.tensor(1.0) / 2**0.5).double()
        torch.testing.assert_close(auc(draws[0] + 1, draws[1]), expected, atol=3e-3, rtol=0)

    def test_auc_in_batches(self) -> None:
        positives, negatives = torch.rand(5, 20), torch.rand(5, 10)
        torch.testing.assert_close(auc(positives, negatives)[3], auc(positives[3], negatives[3]))

    def test_intervals_are_those_of_a_share(self) -> None:
        figure = mean_figure(torch.arange(1000) < 900, seed=1, times=2000)
        half = 1.96 * (0.9 * 0.1 / 1000) ** 0.5
        assert (figure.value, figure.count) == (0.9, 1000)
        assert figure.low == pytest.approx(0.9 - half, abs=3e-3)
        assert figure.high == pytest.approx(0.9 + half, abs=3e-3)
        assert mean_figure(torch.arange(9) < 5, 1, 50) == mean_figure(torch.arange(9) < 5, 1, 50)

    def test_auc_figure_holds_its_value(self) -> None:
        draws = torch.randn(2, 300, generator=torch.Generator().manual_seed(3))
        figure = auc_figure(draws[0] + 1, draws[1], 0, 200)
        assert figure.low < figure.value < figure.high
        assert str(figure).startswith(f"{figure.value:.3f} [")

    def test_recall(self) -> None:
        gallery = torch.eye(4)
        assert recall_at_1(gallery, gallery).tolist() == [1, 1, 1, 1]
        assert recall_at_1(gallery[[1, 0, 2, 3]], gallery).tolist() == [0, 0, 1, 1]

    def test_plain_is_json(self) -> None:
        found = plain({"a": [Figure(0.123456, 0.0, 1.0, 3)], "b": "text"})
        assert json.loads(json.dumps(found)) == {
            "a": [{"value": 0.1235, "low": 0.0, "high": 1.0, "count": 3}],
            "b": "text",
        }


class TestLosses:
    def test_identity_against_its_closed_form(self) -> None:
        # Two toys of one family, two pictures each, all embeddings equal: chance 1 / (1 + 2 * weight).
        toy, family = torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.long)
        embedding = torch.ones(4, 1)
        loss = identity_loss(embedding, toy, family, 0.1, 3.0)
        torch.testing.assert_close(loss, torch.tensor(7.0).log())

    def test_strangers_weigh_one_and_single_toys_are_no_anchors(self) -> None:
        toy, family = torch.tensor([0, 0, -1, -1]), torch.tensor([0, 0, -1, -1])
        loss = identity_loss(torch.ones(4, 1), toy, family, 0.1, 3.0)
        torch.testing.assert_close(loss, torch.tensor(3.0).log())

    def test_falls_when_toys_are_told_apart(self) -> None:
        toy = torch.tensor([0, 0, 1, 1])
        apart = torch.eye(2)[toy]
        assert identity_loss(apart, toy, toy * 0, 0.1, 3.0) < 1e-3
        assert found_share(apart, toy) == 1
        assert found_share(torch.eye(2)[torch.tensor([0, 1, 0, 1])], toy) == 0


class TestPool:
    def test_siblings_differ_in_one_thing_and_training_may_see_them_all(self) -> None:
        views = 2
        instances, seen_as = family_pictures(40, seed=5, views=views, shared=1.0)
        assert len(instances) == len(seen_as) == 40 * MEMBERS * views
        assert bool((split_of(instances) == Split.TRAIN).all())
        columns = {k: v.unflatten(0, (40, MEMBERS, views)) for k, v in instances.columns().items()}
        changed = {"shape": {"shape", "stretch"}, "color": {"colors"}, "roles": {"colors"}}
        for member, what in enumerate(TWINS, 1):
            differing = {k for k, v in columns.items() if not torch.equal(v[:, member], v[:, 0])}
            assert differing == changed.get(what, {what})
        for column in seen_as.columns().values():
            member = column.unflatten(0, (40, MEMBERS, views))
            assert torch.equal(member[:, 1], member[:, 0])
        assert bool((seen_as.style == eye_augment.PHOTO).all())

    def test_views_of_one_toy_differ(self) -> None:
        _, seen_as = family_pictures(6, seed=5, views=3, shared=0.0)
        azimuth = seen_as.azimuth.unflatten(0, (6, MEMBERS, 3))
        assert len(azimuth.unique()) == azimuth.numel()

    def test_batches_show_two_pictures_of_every_toy(self) -> None:
        pool = EyePool(EyeSettings.smoke().pool, 3, "cpu", round_trip=lambda images: 1 - images)
        assert pool.fill(lambda: False) == MEMBERS * 2 + 4
        assert pool.fill(lambda: True) > MEMBERS * 2 + 4
        batch = pool.batch(2, 3, 2, 0.0, torch.Generator().manual_seed(0))
        assert len(batch.images) == len(batch.masks) == 2 * MEMBERS * 2 + 3
        known = batch.toy[batch.toy >= 0]
        assert known.unique(return_counts=True)[1].tolist() == [2] * (2 * MEMBERS)
        assert torch.equal(batch.family[batch.toy >= 0], known // MEMBERS)
        for column in (batch.labels.kind, batch.labels.pattern):
            assert len(column) == len(batch.images)
        copied = pool.batch(2, 3, 2, 1.0, torch.Generator().manual_seed(0))
        torch.testing.assert_close(copied.images, 1 - batch.images, atol=0.005, rtol=0)


class TestAugment:
    def test_keeps_the_toy_and_changes_the_background(self) -> None:
        count, size = 64, 32
        generator = torch.Generator().manual_seed(0)
        masks = torch.zeros(count, 1, size, size)
        masks[..., 10:22, 10:22] = 1
        images = torch.rand(count, 3, 1, 1, generator=generator) * masks + 0.5 * (1 - masks)
        style = torch.arange(count) % len(STYLES)
        changed, replaced = augment(images, masks, style, Dice.throw(count, size, "cpu", generator), 0.5, 8)
        assert changed.shape == images.shape
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert bool(replaced[style == 0].any())
        assert not bool(replaced[style != 0].any())
        middle = (changed - images)[:-8, :, 15:17, 15:17].abs()
        assert middle.mean() < 0.08

    def test_a_scene_without_its_toy(self) -> None:
        image, mask = torch.full((1, 3, 64, 64), 0.3), torch.zeros(1, 1, 64, 64)
        mask[..., 20:44, 20:44] = 1
        emptied = without_toy(image * (1 - mask) + mask, mask)
        torch.testing.assert_close(emptied, image, atol=1e-4, rtol=0)
        assert bool(without_toy(image, torch.ones_like(mask)).isfinite().all())

    def test_outlines_are_a_minority_of_decoys(self) -> None:
        share = is_outline(torch.linspace(0, 1, 1001)).float().mean()
        assert 0.1 < share < 0.3


class TestProbes:
    def test_saturation_and_recoloring(self) -> None:
        images = torch.rand(2, 3, 16, 16) * 0.4 + 0.3
        torch.testing.assert_close(saturated(images, 1.0), images)
        assert (saturated(images, 0.0).std(1)).max() < 1e-6
        mask = torch.ones(2, 1, 16, 16)
        like = Rendered(torch.rand(2, 3, 16, 16) * 0.2 + 0.4, mask)
        made = recolored(Rendered(images, mask), like)
        torch.testing.assert_close(made.mean((2, 3)), like.images.mean((2, 3)), atol=2e-3, rtol=0)

    def test_names_are_told_apart_and_scenes_do_not_meet(self) -> None:
        assert len({probe.name for probe in PROBES}) == len(PROBES)
        assert not set(REFERENCE_SCENES) & set(OTHER_SCENES)
        assert set(REFERENCE_SCENES) | set(OTHER_SCENES) == set(SCENES)


class TestStage:
    def test_settings_fill_a_batch(self) -> None:
        settings = EyeSettings()
        assert settings.families * 2 * MEMBERS + settings.plain == settings.loop.batch
        assert 0 < settings.decoys < settings.plain

    def test_same_seed_same_bytes_and_it_goes_on(self, tmp_path: Path) -> None:
        told: list[str] = []
        digests = []
        for name in ("one", "two"):
            made = train_eye(EyeSettings.smoke(), tmp_path / name, None, "cpu", None, told.append)
            digests.append(hashlib.sha256((made / WEIGHTS_FILE).read_bytes()).hexdigest())
        assert digests[0] == digests[1]
        train_eye(EyeSettings.smoke(), tmp_path / "one", None, "cpu", 5.0, told.append)
        state = read_state(tmp_path / "one")
        assert state["steps"] == 2 * EyeSettings.smoke().loop.steps
        assert hashlib.sha256((tmp_path / "one" / WEIGHTS_FILE).read_bytes()).hexdigest() != digests[0]
        assert load_eye(tmp_path / "one").size == EyeSettings.smoke().pool.size

    def test_another_network_does_not_go_on(self, folder: Path) -> None:
        settings = EyeSettings.smoke()
        wider = settings.model_copy(update={"widths": (8, 16, 16, 24)})
        with pytest.raises(ModelError, match="the settings ask for others"):
            train_eye(wider, folder, None, "cpu", None, lambda line: None)

    def test_no_autoencoder_is_told_plainly(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="There is no autoencoder"):
            load_round_trip(tmp_path, "cpu")

    def test_round_trips_through_what_the_autoencoder_stage_wrote(self, tmp_path: Path) -> None:
        architecture.save_part("vae", architecture.autoencoder((16, 16, 16, 16), 1, 4, 32), tmp_path / "vae")
        images = torch.rand(2, 3, 32, 32)
        made = load_round_trip(tmp_path, "cpu")(images)
        assert made.shape == images.shape
        assert 0 <= made.min() <= made.max() <= 1

    @pytest.mark.parametrize("wrong", [{"sibling_weight": 0}, {"copies": 2}, {"families_": 3}])
    def test_settings_out_of_range_are_told_plainly(self, wrong: dict[str, float]) -> None:
        with pytest.raises(DoraError):
            EyeSettings(**wrong)

    def test_pool_views_make_pairs(self) -> None:
        with pytest.raises(ConfigError):
            EyePoolSettings(views=1)


class TestAcceptance:
    def test_everything_is_measured_with_an_interval(self, tmp_path: Path) -> None:
        sizes = AcceptanceSizes.smoke()
        found = accept_eye(small_eye(), lambda images: images, 0, Split.TEST, "cpu", sizes)
        assert set(found["twins"]) == set(TWINS)
        assert {probe.name for probe in PROBES} < set(found["probes"])
        for figure in (found["heads"]["class"], found["recall"]["recall@1"], found["twins"]["shape"]["references"]):
            assert figure["low"] <= figure["value"] <= figure["high"]
        assert found["blind"], "an untrained eye is blind"
        assert found["missed"]
        write_report(found, tmp_path)
        assert json.loads((tmp_path / "eye_acceptance.json").read_text()) == found
        assert "Blind to:" in table(found)

    def test_the_gate_stands_between_the_right_class_and_the_others(self) -> None:
        """A head that gives 0.9 and 0.8 to the right class, 0.05 and 0.1 to the next: 0.45, whatever is sure enough."""
        kind = torch.arange(2).repeat(50)
        chance = torch.full((100, len(CLASSES) + 1), 1e-4)
        chance[torch.arange(100), kind] = torch.tensor([0.9, 0.8]).repeat(50)
        chance[torch.arange(100), kind + 3] = torch.tensor([0.05, 0.1]).repeat(50)
        nothing = torch.zeros(100, 2)
        seen = Seen(nothing, chance.log(), nothing, nothing, nothing)
        bench = Bench(small_eye(), None, Split.TEST, 0, "cpu", AcceptanceSizes.smoke())
        gate = _gate(bench, seen, kind)
        share = chance / chance.sum(1, keepdim=True)
        assert gate["own class reaches"] == pytest.approx(float(share[1, 1]), abs=1e-3)
        assert gate["threshold"] == pytest.approx((share[1, 1] + share[1, 4]).item() / 2, abs=1e-3)
        assert gate["real rejected"].value == gate["real taken for another class"].value == 0

    @pytest.mark.parametrize("split", [Split.TRAIN, Split.FINAL])
    def test_only_on_toys_it_may_be_tested_on(self, split: Split) -> None:
        with pytest.raises(ConfigError, match="tested on the split TEST"):
            accept_eye(small_eye(), None, 0, split, "cpu", AcceptanceSizes.smoke())
