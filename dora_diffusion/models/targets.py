"""Target presets and layer names that every family of UNet and CLIP text encoders shares."""

_ATTENTION = r"\.attn\d+\.(to_q|to_k|to_v|to_out\.0)$"
_FEED_FORWARD = r"\.ff\.net\.(0\.proj|2)$"
_OTHER = r"\.(proj_in|proj_out|conv1|conv2|conv_shortcut|time_emb_proj)$|samplers\.\d+\.conv$"
_TEXT_ATTENTION = r"\.self_attn\.(q_proj|k_proj|v_proj|out_proj)$"
_TEXT_MLP = r"\.mlp\.(fc1|fc2)$"

_UNET = {
    "attn": _ATTENTION,
    "attn-mlp": f"{_ATTENTION}|{_FEED_FORWARD}",
    "full": f"{_ATTENTION}|{_FEED_FORWARD}|{_OTHER}",
}
_TEXT_ENCODER = {
    "attn": _TEXT_ATTENTION,
    "attn-mlp": f"{_TEXT_ATTENTION}|{_TEXT_MLP}",
    "full": f"{_TEXT_ATTENTION}|{_TEXT_MLP}",
}


def is_text_encoder(component: str) -> bool:
    """Whether a component ("unet", "text_encoder", "text_encoder_2") reads prompts."""
    return component.startswith("text_encoder")


def preset(component: str, name: str) -> str | None:
    """The regex behind a target preset, or None if ``name`` is no preset."""
    return (_TEXT_ENCODER if is_text_encoder(component) else _UNET).get(name)


def layer_name(component: str, path: str) -> str:
    """The canonical name of the layer at ``path`` of a component: what stands in files.

    transformers 5 dropped the level "text_model" of text encoders without a projection; files keep it, because every
    reader knows it. The projection never stood below it.
    """
    if is_text_encoder(component) and not path.startswith(("text_model.", "text_projection")):
        path = f"text_model.{path}"
    return f"{component}.{path}"
