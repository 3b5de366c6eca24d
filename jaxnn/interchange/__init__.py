"""Files and parameters of other libraries: safetensors files, and parameters of PyTorch and flax.

- `save_safetensors`, `load_safetensors` write and read pytrees by name, in the format of Hugging Face;
  `safetensors_metadata` reads the texts beside them.
- `from_torch`, `to_torch` convert a `state_dict` of PyTorch to the parameters and state of a network, and back.
- `from_linen`, `to_linen` do so for the variables of flax.linen.
- `torch_names`, `linen_names` return which layer is which module.

Of PyTorch and flax nothing is imported: what they return are dicts of arrays.

| layer | PyTorch | flax.linen |
|---|---|---|
| `Dense` | `Linear` (out, in) | `Dense` (in, out) |
| `Conv`, `DepthwiseConv` | `Conv1d`, ... (out, in, *window) | `Conv` (*window, in, out) |
| `ConvTranspose` | `ConvTranspose1d`, ... (in, out, *window) | `ConvTranspose`, window reversed |
| `BatchNorm` | `BatchNorm1d`, ... | `BatchNorm` |
| `LayerNorm`, `GroupNorm`, `RMSNorm` | of the same names | of the same names |
| `Embedding`, `LearnedPositions` | `Embedding` | `Embed` |
| `Attention`, `CrossAttention` | `MultiheadAttention`, or four linear | `MultiHeadDotProductAttention`, or four dense |
| `GatedDense` | two linear modules | two dense modules |
| `RNN`, `LSTM`, `GRU` | of the same names | `SimpleCell`, `OptimizedLSTMCell`, `GRUCell` |
| `PRelu` | `PReLU` | `PReLU`, for `shared=True` |

Layers without parameters need no counterpart. A layer of another kind with parameters raises an error that names it.
The tables are `torch_forms.FORMS` and `linen_forms.FORMS`; a layer of your own enters one as a `forms.Form`.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.interchange import forms, linen_forms, torch_forms
from jaxnn.interchange.linen_params import from_linen, linen_names, to_linen
from jaxnn.interchange.safetensors_file import load_safetensors, safetensors_metadata, save_safetensors
from jaxnn.interchange.torch_params import from_torch, to_torch, torch_names

__all__ = [
    "forms",
    "from_linen",
    "from_torch",
    "linen_forms",
    "linen_names",
    "load_safetensors",
    "safetensors_metadata",
    "save_safetensors",
    "to_linen",
    "to_torch",
    "torch_forms",
    "torch_names",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
