"""What only a GPU can show. Run with ``pytest -m gpu`` on a CUDA machine."""

import copy

import pytest
import torch
from bases import LAYERS, adapt, make_layer, only_slot, perturb, relative

from dora_diffusion.registry import ADAPTERS

pytestmark = pytest.mark.gpu

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", list(ADAPTERS))
def test_is_the_base_bit_for_bit_also_after_a_move(kind, layer, dtype):
    model, x = make_layer(layer, dtype)
    plain = copy.deepcopy(model).cuda()
    adapt(model, kind)
    model(x)
    model.cuda()
    assert torch.equal(model(x.cuda()), plain(x.cuda()))
    model.to(torch.bfloat16)
    assert torch.equal(model(x.cuda().bfloat16()), plain.bfloat16()(x.cuda().bfloat16()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norms_against_dense_float64(dtype):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(1280, 1280), torch.nn.Linear(1280, 640, bias=False)).to("cuda", dtype)
    torch.backends.cuda.matmul.allow_tf32 = True
    adapter = perturb(adapt(model, rank=16), size=0.02)
    adapter.prepare()
    assert torch.backends.cuda.matmul.allow_tf32
    for layer in adapter.layers.values():
        slot = layer.slot
        dense = (slot.module.weight.double().flatten(1) + slot.scale * slot.B.double() @ slot.A.double()).norm(dim=1)
        used = slot.magnitude.double() / slot.gain.double()
        assert ((used - dense).abs() / dense).max() <= (1e-6 if dtype == torch.float32 else 1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_on_the_gpu_are_those_of_the_cpu(layer):
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    model, x = make_layer(layer)
    twin = copy.deepcopy(model).cuda()
    here, there = perturb(adapt(model)), perturb(adapt(twin))
    model(x).square().sum().backward()
    twin(x.cuda()).square().sum().backward()
    for ours, theirs in zip(here.buffers, there.buffers, strict=True):
        assert relative(theirs.parameter.grad.cpu(), ours.parameter.grad) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_gradients_in_half_precision_follow_float32(dtype):
    model, x = make_layer("linear", dtype)
    exact = copy.deepcopy(model).float().cuda()
    model.cuda()
    half, full = perturb(adapt(model), size=0.2), perturb(adapt(exact), size=0.2)
    model(x.cuda()).float().square().sum().backward()
    exact(x.cuda().float()).square().sum().backward()
    for ours, theirs in zip(half.buffers, full.buffers, strict=True):
        assert relative(ours.parameter.grad, theirs.parameter.grad) <= 2e-2


def test_moving_back_and_forth_keeps_training_state():
    model, x = make_layer("linear")
    adapter = perturb(adapt(model))
    slot = only_slot(adapter)
    expected = model(x).detach()
    optimizer_parameters = [buffer.parameter for buffer in adapter.buffers]
    model.cuda()
    out = model(x.cuda())
    assert relative(out.cpu(), expected) <= 1e-5
    assert all(p.is_cuda for p in optimizer_parameters)
    out.square().sum().backward()
    assert slot.A.grad.is_cuda
    model.cpu()
    assert relative(model(x), expected) <= 1e-6


def test_merge_and_unmerge_on_the_gpu():
    model, x = make_layer("conv 3x3", torch.bfloat16)
    model.cuda()
    weight = model[0].weight.clone()
    adapter = perturb(adapt(model))
    live = model(x.cuda())
    adapter.merge()
    assert relative(model(x.cuda()), live) <= 1e-2
    adapter.unmerge()
    assert torch.equal(model[0].base.weight, weight)


def test_the_whole_unet_and_text_encoder_start_as_the_base():
    from dora_diffusion.adapters import inject
    from dora_diffusion.config import AdapterConfig
    from dora_diffusion.models import load_base

    for dtype in DTYPES:
        base = load_base("toybox", dtype=dtype).to("cuda")
        x = torch.randn(2, 8, 16, 16, device="cuda", dtype=dtype)
        with torch.no_grad():
            hidden = base.encode_prompts(["a photo of a mug", "a duck"])["encoder_hidden_states"]
            before = base.unet(x, torch.tensor([300, 500], device="cuda"), encoder_hidden_states=hidden).sample
            inject(base, AdapterConfig(targets="full", train_text_encoder=True, text_encoder_targets="full"))
            again = base.encode_prompts(["a photo of a mug", "a duck"])["encoder_hidden_states"]
            after = base.unet(x, torch.tensor([300, 500], device="cuda"), encoder_hidden_states=again).sample
        assert torch.equal(hidden, again)
        assert torch.equal(before, after)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_training_runs_in_every_precision(precision, tmp_path, subject_photos):
    from dora_diffusion.config import TrainConfig
    from dora_diffusion.formats import load_adapter
    from dora_diffusion.training import train

    config = TrainConfig(
        data={"instance_data_dir": subject_photos, "class_noun": "teapot"},
        adapter={"train_text_encoder": True},
        optim={"learning_rate": 1e-3},
        run={"output_dir": tmp_path / "run", "max_train_steps": 20, "mixed_precision": precision},
    )
    result = train(config)
    state = load_adapter(result.adapter)
    moved = sum((layer.B != 0).float().mean().item() for layer in state.layers.values()) / len(state.layers)
    assert result.loss == result.loss
    assert moved > 0.9


def test_xformers_is_probed_and_the_choice_reported():
    from dora_diffusion.models import choose_attention, load_base, probe_backends

    base = load_base("toybox", dtype=torch.float16).to("cuda")
    probed = probe_backends()
    chosen = choose_attention(base.unet, "xformers")
    assert chosen == "xformers" if probed["xformers"] == "works" else chosen.startswith("sdpa (xformers cannot be used")
