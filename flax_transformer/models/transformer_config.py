"""The config of a Transformer."""

import dataclasses
import typing
from typing import Literal, TypeAlias

from flax_transformer.errors import InputError
from flax_transformer.nn.blocks import LayerConfig
from flax_transformer.nn.feed_forward import Activation
from flax_transformer.nn.positions import SinusoidLayout
from flax_transformer.nn.remat import RematPolicy

Architecture: TypeAlias = Literal["encoder_decoder", "decoder_only"]
ParameterDtype: TypeAlias = Literal["float32", "bfloat16"]
ComputeDtype: TypeAlias = Literal["float32", "bfloat16", "float16"]
PositionEncoding: TypeAlias = Literal["sinusoidal", "learned"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes and choices of a Transformer; the defaults are the paper's base model.

    Attributes:
        architecture: an encoder and a decoder that reads it, or a decoder alone; of the latter,
            what concerns the source is not used.
        source_vocab_size: tokens of the source; the trainer sets it from the tokenizer.
        target_vocab_size: tokens of the target; the trainer sets it from the tokenizer.
        model_dim: size of the states between layers, D.
        num_encoder_layers: layers of the encoder; 0 without one.
        num_decoder_layers: layers of the decoder.
        num_heads: attention heads, N.
        head_dim: size of each head; None for ``model_dim / num_heads``.
        feed_forward_dim: size of the hidden layer of the feed-forward network, F.
        activation: of the feed-forward network.
        gated_feed_forward: gated variant of the feed-forward network (arXiv 2002.05202).
        pre_norm: normalise what sub-layers read instead of the sum after them.
        norm_epsilon: added to the variance by layer normalisation.
        dropout_rate: of embeddings and of each sub-layer's output.
        attention_dropout_rate: of the attention weights.
        feed_forward_dropout_rate: of the hidden layer of the feed-forward network.
        position_encoding: fixed sinusoids or learned vectors.
        sinusoid_layout: order of sines and cosines in a sinusoidal encoding.
        max_positions: longest source and longest target that the model can read, in tokens.
        scale_embedding: multiply embeddings by √D.
        share_source_target_embedding: one table for both; needs one vocabulary.
        share_target_output_embedding: score the output against the target's table.
        param_dtype: of the parameters at the start of a training.
        compute_dtype: of the states; softmax, normalisation and the sums of the loss are float32.
            float16 needs ``training.loss_scale``.
        product_dtype: of the operands of matrix products, forward and backward; None for
            ``compute_dtype``. bfloat16 with states in float32 is the fastest choice on CPUs;
            float16 needs ``training.loss_scale``. Attention to a cache keeps to ``compute_dtype``.
        scan_layers: compile one layer and loop over stacked parameters, so that the time to
            compile does not grow with depth.
        remat: what of a layer is computed again in the backward pass instead of being kept; see
            :mod:`flax_transformer.nn.remat`.
    """

    architecture: Architecture = "encoder_decoder"
    source_vocab_size: int = 32_000
    target_vocab_size: int = 32_000
    model_dim: int = 512
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    head_dim: int | None = None
    feed_forward_dim: int = 2048
    activation: Activation = "relu"
    gated_feed_forward: bool = False
    pre_norm: bool = False
    norm_epsilon: float = 1e-6
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.0
    feed_forward_dropout_rate: float = 0.0
    position_encoding: PositionEncoding = "sinusoidal"
    sinusoid_layout: SinusoidLayout = "interleaved"
    max_positions: int = 1024
    scale_embedding: bool = True
    share_source_target_embedding: bool = True
    share_target_output_embedding: bool = True
    param_dtype: ParameterDtype = "float32"
    compute_dtype: ComputeDtype = "float32"
    product_dtype: ComputeDtype | None = None
    scan_layers: bool = False
    remat: RematPolicy = "none"

    def __post_init__(self) -> None:
        """Refuse a config that cannot work.

        Raises:
            InputError: names the field, its value and the reason.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and field.name != "num_encoder_layers":
                _check_size(field.name, value)
            if typing.get_origin(field.type) is Literal:
                _check_choice(field.name, value, typing.get_args(field.type))
            if field.type is bool and not isinstance(value, bool):
                raise InputError(f"{field.name} must be True or False, got {value!r}.")
        for name in ("dropout_rate", "attention_dropout_rate", "feed_forward_dropout_rate"):
            rate = getattr(self, name)
            if not (_is_number(rate) and 0.0 <= rate < 1.0):
                raise InputError(f"{name} must be a number in [0, 1), got {rate!r}.")
        if not (_is_number(self.norm_epsilon) and 0.0 < self.norm_epsilon < 1.0):
            raise InputError(f"norm_epsilon must be a number in (0, 1), got {self.norm_epsilon!r}.")
        if self.product_dtype is not None:
            _check_choice("product_dtype", self.product_dtype, typing.get_args(ComputeDtype))
        if self.architecture == "encoder_decoder":
            _check_size("num_encoder_layers", self.num_encoder_layers)
        elif self.num_encoder_layers != 0:
            raise InputError(
                "num_encoder_layers must be 0 when architecture is decoder_only, got "
                f"{self.num_encoder_layers!r}."
            )
        if self.head_dim is not None:
            _check_size("head_dim", self.head_dim)
        elif self.model_dim % self.num_heads:
            raise InputError(
                f"model_dim must be a multiple of num_heads, got {self.model_dim} and "
                f"{self.num_heads}. Change one of them or set head_dim."
            )
        if self.position_encoding == "sinusoidal" and self.model_dim % 2:
            raise InputError(
                f"model_dim must be even for sinusoidal positions, got {self.model_dim}."
            )
        if self.share_source_target_embedding and self.source_vocab_size != self.target_vocab_size:
            raise InputError(
                "source_vocab_size and target_vocab_size must be equal when "
                "share_source_target_embedding is set, got "
                f"{self.source_vocab_size} and {self.target_vocab_size}."
            )

    def layer_config(self) -> LayerConfig:
        """Return what each layer is made of."""
        return LayerConfig(
            model_dim=self.model_dim,
            num_heads=self.num_heads,
            head_dim=self.head_dim or self.model_dim // self.num_heads,
            feed_forward_dim=self.feed_forward_dim,
            activation=self.activation,
            gated_feed_forward=self.gated_feed_forward,
            pre_norm=self.pre_norm,
            norm_epsilon=self.norm_epsilon,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            feed_forward_dropout_rate=self.feed_forward_dropout_rate,
            dtype=self.compute_dtype,
            product_dtype=self.product_dtype or self.compute_dtype,
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_size(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, got {value!r}.")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
