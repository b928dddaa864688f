"""The config of a Transformer."""

import dataclasses
import math
import typing
from typing import Literal, TypeAlias

from flax_transformer.errors import InputError
from flax_transformer.nn.attention_implementations import AttentionImplementation
from flax_transformer.nn.block_sparse_pattern import NO_SPARSITY, BlockSparseConfig
from flax_transformer.nn.feed_forward import Activation
from flax_transformer.nn.layer_config import LayerConfig
from flax_transformer.nn.normalization import Normalization
from flax_transformer.nn.positions import SinusoidLayout
from flax_transformer.nn.remat import RematPolicy
from flax_transformer.nn.rotary import RotaryConfig, RotaryScaling

Architecture: TypeAlias = Literal["encoder_decoder", "encoder_only", "decoder_only"]
ParameterDtype: TypeAlias = Literal["float32", "bfloat16"]
ComputeDtype: TypeAlias = Literal["float32", "bfloat16", "float16"]
PositionEncoding: TypeAlias = Literal["sinusoidal", "learned", "rotary", "relative"]
Head: TypeAlias = Literal["none", "masked_lm", "sequence_classification", "token_classification"]
Pooler: TypeAlias = Literal["none", "tanh", "relu"]


_MAY_BE_ZERO = ("position_offset", "num_token_types", "num_labels")
_LAYER_COUNTS = ("num_encoder_layers", "num_decoder_layers")

COMPUTATION_FIELDS = (
    "dropout_rate",
    "attention_dropout_rate",
    "feed_forward_dropout_rate",
    "param_dtype",
    "compute_dtype",
    "product_dtype",
    "attention_implementation",
    "scan_layers",
    "remat",
)
"""Fields that say how a model is computed or trained, not which function it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes and choices of a Transformer; the defaults are the paper's base model.

    Attributes:
        architecture: an encoder and a decoder that reads it, an encoder alone, or a decoder alone.
        source_vocab_size: tokens of the source; the trainer sets it from the tokenizer.
        target_vocab_size: tokens of the target; the trainer sets it from the tokenizer. Of a model
            with one side both are equal.
        model_dim: size of the states between layers, D.
        num_encoder_layers: layers of the encoder; 0 without one.
        num_decoder_layers: layers of the decoder; 0 without one.
        num_heads: attention heads, N.
        num_key_value_heads: heads of keys and values, K, each of which serves N / K heads
            (grouped-query attention, arXiv 2305.13245); None for N.
        head_dim: size of each head; None for ``model_dim / num_heads``.
        attention_bias: biases of the projections of attention, which the paper's has not.
        scale_attention: divide the logits of attention by the root of the size of a head.
        feed_forward_dim: size of the hidden layer of the feed-forward network, F.
        activation: of the feed-forward network.
        gated_feed_forward: gated variant of the feed-forward network (arXiv 2002.05202).
        feed_forward_bias: biases of the feed-forward network.
        pre_norm: normalise what sub-layers read instead of the sum after them.
        norm: layer normalisation, or by the root mean square alone (arXiv 1910.07467).
        norm_epsilon: added to the variance or mean square.
        embedding_norm: normalise the sum of embeddings and positions.
        dropout_rate: of embeddings and of each sub-layer's output.
        attention_dropout_rate: of the attention weights.
        feed_forward_dropout_rate: of the hidden layer of the feed-forward network.
        position_encoding: fixed sinusoids or learned vectors, added to embeddings; rotations of
            queries and keys (:mod:`flax_transformer.nn.rotary`); or a learned bias of attention by
            distance (:mod:`flax_transformer.nn.relative_position`).
        sinusoid_layout: order of sines and cosines in a sinusoidal encoding.
        position_offset: row of a table of learned vectors that holds the first position.
        rotary_base: of rotary positions; the longest wavelength is about ``2π`` times it.
        rotary_scaling: how rotary positions were stretched after a first training; see
            :func:`flax_transformer.nn.rotary.rotary_frequencies`, also for the next four.
        rotary_factor: by which they were stretched; read with a ``rotary_scaling`` alone.
        rotary_low_frequency_factor: of the scaling ``"llama3"``.
        rotary_high_frequency_factor: likewise.
        rotary_original_positions: likewise; positions of the first training.
        num_relative_buckets: distances that a relative encoding tells apart.
        max_relative_distance: from which on all distances are one.
        max_positions: longest source and longest target that the model can read, in tokens. With
            relative positions, which have no end, it is where commands cut texts by default.
        num_token_types: kinds of segments of an encoder's input, each with a vector; 0 for none.
        scale_embedding: multiply embeddings by √D.
        share_source_target_embedding: one table for both; needs one vocabulary.
        share_target_output_embedding: score the output against the target's table.
        scale_output: divide final states by √D before they are scored.
        output_bias: add a learned number for each token to the logits.
        head: what an encoder alone ends in; see
            :class:`flax_transformer.models.encoder_only.EncoderOnly`.
        pooler: activation of the map of the first position that stands for the whole input;
            ``"none"`` for no such map.
        num_labels: classes of a classification head; 0 without one.
        encoder_sparsity: which blocks of a long source attend to which in the encoder, at a cost
            that grows with its length alone; by default all attend to all.
        param_dtype: of the parameters at the start of a training.
        compute_dtype: of the states; softmax, normalisation and the sums of the loss are float32.
            float16 needs ``training.loss_scale``.
        product_dtype: of the operands of matrix products, forward and backward; None for
            ``compute_dtype``. bfloat16 with states in float32 is the fastest choice on CPUs;
            float16 needs ``training.loss_scale``. Attention to a cache keeps to ``compute_dtype``.
        attention_implementation: the program that computes attention between whole sequences; see
            :data:`flax_transformer.nn.attention_implementations.AttentionImplementation`.
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
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    attention_bias: bool = False
    scale_attention: bool = True
    feed_forward_dim: int = 2048
    activation: Activation = "relu"
    gated_feed_forward: bool = False
    feed_forward_bias: bool = True
    pre_norm: bool = False
    norm: Normalization = "layer"
    norm_epsilon: float = 1e-6
    embedding_norm: bool = False
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.0
    feed_forward_dropout_rate: float = 0.0
    position_encoding: PositionEncoding = "sinusoidal"
    sinusoid_layout: SinusoidLayout = "interleaved"
    position_offset: int = 0
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling = "none"
    rotary_factor: float = 1.0
    rotary_low_frequency_factor: float = 1.0
    rotary_high_frequency_factor: float = 4.0
    rotary_original_positions: int = 8192
    num_relative_buckets: int = 32
    max_relative_distance: int = 128
    max_positions: int = 1024
    num_token_types: int = 0
    scale_embedding: bool = True
    share_source_target_embedding: bool = True
    share_target_output_embedding: bool = True
    scale_output: bool = False
    output_bias: bool = False
    head: Head = "none"
    pooler: Pooler = "none"
    num_labels: int = 0
    encoder_sparsity: BlockSparseConfig = NO_SPARSITY
    param_dtype: ParameterDtype = "float32"
    compute_dtype: ComputeDtype = "float32"
    product_dtype: ComputeDtype | None = None
    attention_implementation: AttentionImplementation = "xla"
    scan_layers: bool = False
    remat: RematPolicy = "none"

    def __post_init__(self) -> None:
        """Refuse a config that cannot work.

        Raises:
            InputError: names the field, its value and the reason.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and field.name not in _LAYER_COUNTS:
                _check_size(field.name, value, at_least=0 if field.name in _MAY_BE_ZERO else 1)
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
        self._check_sides()
        self._check_heads()
        self._check_rotary()
        self._check_positions()
        self._check_output()

    def _check_sides(self) -> None:
        has_encoder = self.architecture != "decoder_only"
        has_decoder = self.architecture != "encoder_only"
        for name, is_there in (
            ("num_encoder_layers", has_encoder),
            ("num_decoder_layers", has_decoder),
        ):
            if is_there:
                _check_size(name, getattr(self, name), at_least=1)
            elif getattr(self, name) != 0:
                raise InputError(
                    f"{name} must be 0 when architecture is {self.architecture}, got "
                    f"{getattr(self, name)!r}."
                )
        is_shared = self.share_source_target_embedding or self.architecture != "encoder_decoder"
        if is_shared and self.source_vocab_size != self.target_vocab_size:
            raise InputError(
                "source_vocab_size and target_vocab_size must be equal when "
                "share_source_target_embedding is set or there is one side, got "
                f"{self.source_vocab_size} and {self.target_vocab_size}."
            )
        if self.encoder_sparsity.block_size and not has_encoder:
            raise InputError("encoder_sparsity.block_size must be 0 without an encoder.")
        if self.num_token_types and self.architecture != "encoder_only":
            raise InputError(
                "num_token_types must be 0 unless architecture is encoder_only, got "
                f"{self.num_token_types}."
            )

    def _check_heads(self) -> None:
        if self.head_dim is not None:
            _check_size("head_dim", self.head_dim, at_least=1)
        elif self.model_dim % self.num_heads:
            raise InputError(
                f"model_dim must be a multiple of num_heads, got {self.model_dim} and "
                f"{self.num_heads}. Change one of them or set head_dim."
            )
        if self.num_key_value_heads is not None:
            _check_size("num_key_value_heads", self.num_key_value_heads, at_least=1)
            if self.num_heads % self.num_key_value_heads:
                raise InputError(
                    "num_key_value_heads must divide num_heads, got "
                    f"{self.num_key_value_heads} and {self.num_heads}."
                )

    def _check_rotary(self) -> None:
        if not (_is_number(self.rotary_base) and self.rotary_base > 1.0):
            raise InputError(f"rotary_base must be a number above 1, got {self.rotary_base!r}.")
        if not (_is_number(self.rotary_factor) and 1.0 <= self.rotary_factor < math.inf):
            raise InputError(
                f"rotary_factor must be a number of at least 1, got {self.rotary_factor!r}."
            )
        low, high = self.rotary_low_frequency_factor, self.rotary_high_frequency_factor
        if not (_is_number(low) and _is_number(high) and 0.0 < low < high < math.inf):
            raise InputError(
                "rotary_low_frequency_factor must be a number above 0 and below "
                f"rotary_high_frequency_factor, got {low!r} and {high!r}."
            )

    def _check_positions(self) -> None:
        if self.position_encoding == "sinusoidal" and self.model_dim % 2:
            raise InputError(
                f"model_dim must be even for sinusoidal positions, got {self.model_dim}."
            )
        if self.position_encoding == "rotary" and self.layer_config().head_dim % 2:
            raise InputError(
                "the size of a head must be even for rotary positions, got "
                f"{self.layer_config().head_dim}. Change num_heads or set head_dim."
            )
        if self.position_offset and self.position_encoding != "learned":
            raise InputError(
                "position_offset must be 0 unless position_encoding is learned, got "
                f"{self.position_offset}."
            )
        if self.encoder_sparsity.block_size and self.position_encoding == "relative":
            raise InputError(
                "encoder_sparsity.block_size must be 0 when position_encoding is relative."
            )
        num_exact = self.num_relative_buckets // 4
        if self.position_encoding == "relative" and not (
            self.num_relative_buckets % 4 == 0 and self.max_relative_distance > 2 * num_exact
        ):
            raise InputError(
                "num_relative_buckets must be a multiple of 4 and less than twice "
                f"max_relative_distance, got {self.num_relative_buckets} and "
                f"{self.max_relative_distance}."
            )

    def _check_output(self) -> None:
        is_classifier = self.head in ("sequence_classification", "token_classification")
        if self.architecture != "encoder_only" and (self.head, self.pooler) != ("none", "none"):
            raise InputError(
                "head and pooler must be none unless architecture is encoder_only, got "
                f"{self.head} and {self.pooler}."
            )
        if is_classifier != (self.num_labels > 0):
            raise InputError(
                "num_labels must be at least 1 with a classification head and 0 without, got "
                f"{self.num_labels} for the head {self.head}."
            )
        if self.head == "sequence_classification" and self.pooler == "none":
            raise InputError("pooler must be tanh or relu to classify sequences, got none.")

    @property
    def position_limit(self) -> int | None:
        """Tokens that a row may have at most; None where positions are relative and have no end."""
        return None if self.position_encoding == "relative" else self.max_positions

    def layer_config(self) -> LayerConfig:
        """Return what each layer is made of."""
        return LayerConfig(
            model_dim=self.model_dim,
            num_heads=self.num_heads,
            head_dim=self.head_dim or self.model_dim // self.num_heads,
            num_key_value_heads=self.num_key_value_heads,
            attention_bias=self.attention_bias,
            attention_scale=None if self.scale_attention else 1.0,
            rotary=self._rotary_config() if self.position_encoding == "rotary" else None,
            feed_forward_dim=self.feed_forward_dim,
            activation=self.activation,
            gated_feed_forward=self.gated_feed_forward,
            feed_forward_bias=self.feed_forward_bias,
            pre_norm=self.pre_norm,
            norm=self.norm,
            norm_epsilon=self.norm_epsilon,
            attention_implementation=self.attention_implementation,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            feed_forward_dropout_rate=self.feed_forward_dropout_rate,
            dtype=self.compute_dtype,
            product_dtype=self.product_dtype or self.compute_dtype,
        )

    def _rotary_config(self) -> RotaryConfig:
        return RotaryConfig(
            base=self.rotary_base,
            scaling=self.rotary_scaling,
            factor=self.rotary_factor,
            low_frequency_factor=self.rotary_low_frequency_factor,
            high_frequency_factor=self.rotary_high_frequency_factor,
            original_positions=self.rotary_original_positions,
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_size(name: str, value: object, *, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise InputError(f"{name} must be a whole number of at least {at_least}, got {value!r}.")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
