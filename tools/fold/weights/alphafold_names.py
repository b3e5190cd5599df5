"""What AlphaFold's `params_*.npz` calls the tensors that OpenFold's state dict names.

Source: the scopes of the released parameters; a stack holds the blocks of a tensor along its first dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

_ROOT = "alphafold/alphafold_iteration/"

_STACKS = MappingProxyType(
    {
        "evoformer.blocks.": "evoformer/evoformer_iteration/",
        "extra_msa_stack.blocks.": "evoformer/extra_msa_stack/",
        "template_embedder.template_pair_stack.blocks.": (
            "evoformer/template_embedding/single_template_embedding/template_pair_stack/__layer_stack_no_state/"
        ),
    }
)

_TRANSITION = {"layer_norm": "input_layer_norm", "linear_1": "transition1", "linear_2": "transition2"}
_OUTER = {"layer_norm": "layer_norm_input", "linear_1": "left_projection", "linear_2": "right_projection"}
_TRIANGLE = {
    "layer_norm_in": "layer_norm_input",
    "layer_norm_out": "center_layer_norm",
    "linear_z": "output_projection",
    "linear_g": "gating_linear",
    "linear_a_p": "left_projection",
    "linear_a_g": "left_gate",
    "linear_b_p": "right_projection",
    "linear_b_g": "right_gate",
}
# Of incoming edges AlphaFold calls left what the paper calls b.
_INCOMING = {
    name: scope.replace("left", "*").replace("right", "left").replace("*", "right") for name, scope in _TRIANGLE.items()
}
_ROW = {"layer_norm_m": "query_norm", "layer_norm_z": "feat_2d_norm"}


def _under(module: str, scope: str, table: dict[str, str]) -> dict[str, str]:
    return {f"{module}.{name}": f"{scope}/{below}" for name, below in table.items()}


_BLOCK = MappingProxyType(
    {
        **_under("msa_att_row", "msa_row_attention_with_pair_bias", _ROW),
        "msa_att_col._msa_att.layer_norm_m": "msa_column_attention/query_norm",
        "msa_att_col.layer_norm_m": "msa_column_global_attention/query_norm",
        **_under("msa_transition", "msa_transition", _TRANSITION),
        **_under("outer_product_mean", "outer_product_mean", _OUTER),
        **_under("tri_mul_out", "triangle_multiplication_outgoing", _TRIANGLE),
        **_under("tri_mul_in", "triangle_multiplication_incoming", _INCOMING),
        "tri_att_start.layer_norm": "triangle_attention_starting_node/query_norm",
        "tri_att_end.layer_norm": "triangle_attention_ending_node/query_norm",
        **_under("pair_transition", "pair_transition", _TRANSITION),
    }
)
_ATTENTIONS = MappingProxyType(
    {
        "msa_att_row.mha": "msa_row_attention_with_pair_bias/attention",
        "msa_att_col._msa_att.mha": "msa_column_attention/attention",
        "msa_att_col.global_attention": "msa_column_global_attention/attention",
        "tri_att_start.mha": "triangle_attention_starting_node/attention",
        "tri_att_end.mha": "triangle_attention_ending_node/attention",
        "template_embedder.template_pointwise_att.mha": "evoformer/template_embedding/attention",
    }
)
_PROJECTIONS = MappingProxyType(
    {"linear_q": "query", "linear_k": "key", "linear_v": "value", "linear_g": "gating", "linear_o": "output"}
)
_TENSORS = MappingProxyType(
    {
        "msa_att_row.linear_z.weight": "msa_row_attention_with_pair_bias//feat_2d_weights",
        "tri_att_start.linear.weight": "triangle_attention_starting_node//feat_2d_weights",
        "tri_att_end.linear.weight": "triangle_attention_ending_node//feat_2d_weights",
        "outer_product_mean.linear_out.weight": "outer_product_mean//output_w",
        "outer_product_mean.linear_out.bias": "outer_product_mean//output_b",
        "structure_module.ipa.head_weights": (
            "structure_module/fold_iteration/invariant_point_attention//trainable_point_weights"
        ),
    }
)
_IPA = {
    "linear_q": "q_scalar",
    "linear_kv": "kv_scalar",
    "linear_q_points.linear": "q_point_local",
    "linear_kv_points.linear": "kv_point_local",
    "linear_b": "attention_2d",
    "linear_out": "output_projection",
}
_FOLD = {
    "layer_norm_ipa": "attention_layer_norm",
    "transition.layers.0.linear_1": "transition",
    "transition.layers.0.linear_2": "transition_1",
    "transition.layers.0.linear_3": "transition_2",
    "transition.layer_norm": "transition_layer_norm",
    "bb_update.linear": "affine_update",
    "angle_resnet.linear_in": "rigid_sidechain/input_projection",
    "angle_resnet.linear_initial": "rigid_sidechain/input_projection_1",
    "angle_resnet.layers.0.linear_1": "rigid_sidechain/resblock1",
    "angle_resnet.layers.0.linear_2": "rigid_sidechain/resblock2",
    "angle_resnet.layers.1.linear_1": "rigid_sidechain/resblock1_1",
    "angle_resnet.layers.1.linear_2": "rigid_sidechain/resblock2_1",
    "angle_resnet.linear_out": "rigid_sidechain/unnormalized_angles",
}
_WHOLE = MappingProxyType(
    {
        "input_embedder.linear_tf_m": "evoformer/preprocess_1d",
        "input_embedder.linear_msa_m": "evoformer/preprocess_msa",
        "input_embedder.linear_tf_z_i": "evoformer/left_single",
        "input_embedder.linear_tf_z_j": "evoformer/right_single",
        # The misspelling is in the released parameters.
        "input_embedder.linear_relpos": "evoformer/pair_activiations",
        "recycling_embedder.linear": "evoformer/prev_pos_linear",
        "recycling_embedder.layer_norm_m": "evoformer/prev_msa_first_row_norm",
        "recycling_embedder.layer_norm_z": "evoformer/prev_pair_norm",
        "template_embedder.template_single_embedder.linear_1": "evoformer/template_single_embedding",
        "template_embedder.template_single_embedder.linear_2": "evoformer/template_projection",
        "template_embedder.template_pair_embedder.linear": (
            "evoformer/template_embedding/single_template_embedding/embedding2d"
        ),
        "template_embedder.template_pair_stack.layer_norm": (
            "evoformer/template_embedding/single_template_embedding/output_layer_norm"
        ),
        "extra_msa_embedder.linear": "evoformer/extra_msa_activations",
        "evoformer.linear": "evoformer/single_activations",
        "structure_module.layer_norm_s": "structure_module/single_layer_norm",
        "structure_module.layer_norm_z": "structure_module/pair_layer_norm",
        "structure_module.linear_in": "structure_module/initial_projection",
        **_under("structure_module.ipa", "structure_module/fold_iteration/invariant_point_attention", _IPA),
        **_under("structure_module", "structure_module/fold_iteration", _FOLD),
        "aux_heads.plddt.layer_norm": "predicted_lddt_head/input_layer_norm",
        "aux_heads.plddt.linear_1": "predicted_lddt_head/act_0",
        "aux_heads.plddt.linear_2": "predicted_lddt_head/act_1",
        "aux_heads.plddt.linear_3": "predicted_lddt_head/logits",
        "aux_heads.distogram.linear": "distogram_head/half_logits",
        "aux_heads.masked_msa.linear": "masked_msa_head/logits",
        "aux_heads.experimentally_resolved.linear": "experimentally_resolved_head/logits",
        "aux_heads.tm.linear": "predicted_aligned_error_head/logits",
    }
)


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: the array's name, and its index along the first dimension if a stack holds it."""

    array: str
    block: int | None


def place_of(name: str) -> Place:
    """Return where AlphaFold's parameters hold the tensor of this name in a state dict."""
    for stack, scope in _STACKS.items():
        if name.startswith(stack):
            block, inside = name.removeprefix(stack).split(".", 1)
            return Place(_ROOT + scope + _array(inside.removeprefix("pair_stack."), _BLOCK), int(block))
    return Place(_ROOT + _array(name, _WHOLE), None)


def _array(name: str, modules: MappingProxyType[str, str]) -> str:
    """Return the name of an array below the scope of its stack or, outside of stacks, below the root."""
    if name in _TENSORS:
        return _TENSORS[name]
    module, leaf = name.rsplit(".", 1)
    owner, _, last = module.rpartition(".")
    if owner in _ATTENTIONS:
        return f"{_ATTENTIONS[owner]}//{_PROJECTIONS[last]}_{leaf[0]}"
    if last.startswith("layer_norm"):
        return f"{modules[module]}//{'scale' if leaf == 'weight' else 'offset'}"
    return f"{modules[module]}//{'weights' if leaf == 'weight' else 'bias'}"
