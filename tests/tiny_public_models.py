"""Public models without the library that they are of: tiny ones of every family, and files."""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_transformer.interop.generation_defaults import GenerationDefaults
from flax_transformer.interop.pretrained import Pretrained
from flax_transformer.models.make_model import make_model
from flax_transformer.models.parameters import init_parameters
from flax_transformer.models.transformer_config import TransformerConfig

_ENCODER: dict[str, Any] = {
    "architecture": "encoder_only",
    "num_encoder_layers": 1,
    "num_decoder_layers": 0,
    "activation": "gelu",
    "attention_bias": True,
    "norm_epsilon": 1e-12,
    "embedding_norm": True,
    "scale_embedding": False,
    "position_encoding": "learned",
}
_DECODER: dict[str, Any] = {
    "architecture": "decoder_only",
    "num_encoder_layers": 0,
    "num_decoder_layers": 1,
    "pre_norm": True,
    "scale_embedding": False,
}
_PAIR: dict[str, Any] = {
    "num_encoder_layers": 1,
    "num_decoder_layers": 2,
    "attention_bias": True,
    "norm_epsilon": 1e-5,
    "output_bias": True,
    "activation": "silu",
}
_SIZES: dict[str, Any] = {
    "source_vocab_size": 23,
    "target_vocab_size": 23,
    "model_dim": 6,
    "num_heads": 3,
    "feed_forward_dim": 11,
    "max_positions": 13,
}

PUBLIC_SHAPES: dict[str, dict[str, Any]] = {
    "BertForMaskedLM": {
        **_ENCODER,
        "num_token_types": 2,
        "head": "masked_lm",
        "output_bias": True,
    },
    "DistilBertForSequenceClassification": {
        **_ENCODER,
        "pooler": "relu",
        "head": "sequence_classification",
        "num_labels": 3,
    },
    "RobertaModel": {**_ENCODER, "num_token_types": 1, "position_offset": 2, "pooler": "tanh"},
    "GPT2LMHeadModel": {
        **_DECODER,
        "activation": "gelu_tanh",
        "attention_bias": True,
        "norm_epsilon": 1e-5,
        "position_encoding": "learned",
    },
    "LlamaForCausalLM": {
        **_DECODER,
        "num_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "norm": "rms",
        "activation": "silu",
        "gated_feed_forward": True,
        "feed_forward_bias": False,
        "position_encoding": "rotary",
        "share_target_output_embedding": False,
    },
    "T5ForConditionalGeneration": {
        "num_encoder_layers": 1,
        "num_decoder_layers": 2,
        "head_dim": 5,
        "norm": "rms",
        "pre_norm": True,
        "feed_forward_bias": False,
        "scale_attention": False,
        "scale_embedding": False,
        "scale_output": True,
        "position_encoding": "relative",
    },
    "BartForConditionalGeneration": {
        **_PAIR,
        "embedding_norm": True,
        "position_encoding": "learned",
        "position_offset": 2,
    },
    "BartModel": {
        **_PAIR,
        "embedding_norm": True,
        "position_encoding": "learned",
        "position_offset": 2,
        "output_bias": False,
    },
    "MarianMTModel": {**_PAIR, "sinusoid_layout": "halves"},
}
"""The fields of a config of each class, beside sizes."""


def make_public(class_name: str, **choices: Any) -> Pretrained:
    """Make a model that :func:`save_pretrained` writes as one of ``class_name``."""
    config = TransformerConfig(**{**_SIZES, **PUBLIC_SHAPES[class_name], **choices})
    model = make_model(config)
    params = init_parameters(model, jax.random.key(0))
    generation = GenerationDefaults()
    if config.architecture != "encoder_only":
        start_id = 0 if config.architecture == "encoder_decoder" else None
        generation = GenerationDefaults(
            bos_id=1, start_id=start_id, eos_ids=(2,), pad_id=0, suppressed_ids=(0,)
        )
    elif config.position_offset:
        generation = GenerationDefaults(pad_id=config.position_offset - 1)
    labels = tuple(f"class {index}" for index in range(config.num_labels))
    return Pretrained(model, params, config, None, generation, labels)


def write_torch_archive(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write what ``torch.save`` writes of a dictionary of float32 tensors."""
    write_torch_zip(
        path,
        _state_dict(tensors, view=b""),
        {str(index): array.tobytes("A") for index, array in enumerate(tensors.values())},
    )


def write_torch_zip(path: Path, pickled: bytes, storages: Mapping[str, bytes]) -> None:
    """Write a zip file as PyTorch's, of any pickle and any storages."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)


def write_legacy_torch_file(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write what ``torch.save`` wrote of a dictionary of float32 tensors before its zip files."""
    machine = {"protocol_version": 1001, "little_endian": True}
    header = b"".join(map(pickle.dumps, (0x1950A86A20F9469CFC6C, 1001, machine)))
    keys = pickle.dumps([str(index) for index in range(len(tensors))])
    numbers = b"".join(
        struct.pack("<q", array.size) + array.tobytes("A") for array in tensors.values()
    )
    path.write_bytes(header + legacy_state_dict(tensors) + keys + numbers)


def legacy_state_dict(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return the pickle of such a file that describes the tensors."""
    return _state_dict(tensors, view=b"N")


def _state_dict(tensors: Mapping[str, np.ndarray], *, view: bytes) -> bytes:
    content = b"".join(
        _string(name) + _tensor(str(index), array, view)
        for index, (name, array) in enumerate(tensors.items())
    )
    return b"\x80\x02}(" + content + b"u."


def _tensor(key: str, array: np.ndarray, view: bytes) -> bytes:
    """Return the opcodes that rebuild a tensor, as PyTorch writes them."""
    storage = b"(" + _string("storage") + b"ctorch\nFloatStorage\n" + _string(key)
    storage += _string("cpu") + _integer(array.size) + view + b"tQ"
    strides = [step // array.itemsize for step in array.strides]
    out = io.BytesIO()
    out.write(b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _integer(0))
    for numbers in (array.shape, strides):
        out.write(b"(" + b"".join(map(_integer, numbers)) + b"t")
    out.write(b"\x89ccollections\nOrderedDict\n)RtR")
    return out.getvalue()


def _string(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)
