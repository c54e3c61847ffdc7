"""Weights on the move: checkpoints, what does not fit, and Haiku's own layers.

`load(path)` gives Flax variables, `save(path, variables)` keeps them, `diff` tells what
a checkpoint lacks or has too much, and `twin` gives Haiku's own layer with the weights
of a layer of Flax. `match` finds which leaf of a native Haiku network is which of a
Flax module, and proves it or shows where they part. `carry` gives the weights of a
Haiku network to one with layers swapped. `stack` makes the layers of an unrolled
network those of one that scans them, and `unstack` goes back. `load_haiku` and
`save_haiku` do what `load` and `save` do for the `(params, state)` of Haiku's own code
bases. The format of a checkpoint follows from its path:

* `.msgpack`, and a file like `checkpoint_100`: Flax's own (`flax.serialization`);
* `.safetensors`: flat names, `params/Dense_0/kernel`; arrays lie in the mapped file;
* `.npz`: NumPy's archive, with the same names; bfloat16 as its 2 bytes;
* `.msgpack.index.json`, `.safetensors.index.json`: parts, as Hugging Face splits them;
* a directory, or no suffix at all: an Orbax checkpoint;
* read, and not written: pickles and joblib's dumps (`.pkl`, `.pickle`, `.joblib`), a
  folder with `arrays.npy` and `tree.pkl`, one with Acme's `array_nest`.

Of a folder of steps the newest is read, of a folder of Hugging Face its Flax weights.
Remote paths (`gs://bucket/net.npz`) are copied by fsspec, if it is installed.

The flat names are spelled as in Haiku (`a%2Fb` for the Flax name `a/b`), and a name
that ends in `/` is an empty dict. A round trip is exact: structure, names, dtypes and
bits; what a format cannot hold is refused before anything is written. What is damaged
is refused where the format can tell: `.npz` has a checksum of each array, Orbax of each
file; msgpack, safetensors and pickles have none. Pickles are read without running what
they name: arrays, dicts and the mappings of Haiku and Flax are known, and nothing else.
`pip install 'hk_bridge[checkpoint]'` brings the libraries that are not Flax's.

A twin is a layer of Haiku with the weights of a layer of Flax. "Exact" means that both
run the same arithmetic: outputs are equal to the last bit where XLA compiles them alike
(op by op, always). Of the others, float32 outputs of scale 1 agree to 1e-6, but for
GroupNorm's where a variance is small: see there. Inputs are to have the dtype of the
weights, or float32 where a layer has none. What is not listed has no twin and is
refused.

* Dense: `hk.Linear`, exact. Conv: `hk.ConvND`, exact; one batch axis or none, no input
  dilation, no circular or reflected padding. ConvTranspose: `hk.ConvNDTranspose`,
  exact; no kernel dilation, no circular padding.
* Embed: `hk.Embed`, exact for ids in range (beyond it linen gives NaN, Haiku the last
  row); no `attend`.
* LayerNorm: `hk.LayerNorm`, exact with the fast variance. RMSNorm: `hk.RMSNorm`.
  GroupNorm: `hk.GroupNorm`, which has the slow variance only; where the variance of a
  group is small against its squared mean, as it may be for few values, linen's fast one
  is off in proportion to their ratio, and the twin is not. Linen clips the fast
  variance at zero, Haiku does not: to be seen where it is below the rounding of the
  squared mean. A GroupNorm has a batch axis, unless `ndim=1` is given: without it,
  Haiku's gives the bias alone for an input `[C]`. The calls take no `mask`.
* BatchNorm: `hk.BatchNorm`, exact with the fast variance, which is Haiku's only one.
  `hidden` and `average` are linen's statistic, and `counter` is so late that Haiku's
  debiasing divides by 1: evaluation is equal, and training goes on with linen's
  recurrence. In evaluation Haiku's `init` cannot make that state ("No value for
  'average'"): give `apply` the twin's own. The weight of a new value, `1 - momentum`,
  is rounded in two ways, so in float32 averages differ by up to
  `2**-25 / (1 - momentum)` of the batch statistics in the long run: 3e-6 for linen's
  0.99, nothing for 0.5 or 0.75.
* LSTMCell, OptimizedLSTMCell: `hk.LSTM`, where linen's carry `(c, h)` is
  `hk.LSTMState(hidden=h, cell=c)`. Haiku adds 1 to the forget gate, so the twin's bias
  has 1 taken away; `to_flax` gives it back to the bit where it did not change.
* MultiHeadDotProductAttention, MultiHeadAttention: `hk.MultiHeadAttention`, without
  dropout, and not in float16, where Haiku's mask gives NaN for a row without keys.
"""

from hk_bridge._errors import MatchError as MatchError
from hk_bridge.migrate._carry import Carried as Carried
from hk_bridge.migrate._carry import Paired as Paired
from hk_bridge.migrate._carry import carry as carry
from hk_bridge.migrate._diff import diff as diff
from hk_bridge.migrate._format import CheckpointError as CheckpointError
from hk_bridge.migrate._haiku import load_haiku as load_haiku
from hk_bridge.migrate._haiku import save_haiku as save_haiku
from hk_bridge.migrate._load import load as load
from hk_bridge.migrate._matching import LeafTable as LeafTable
from hk_bridge.migrate._matching import Match as Match
from hk_bridge.migrate._matching import match as match
from hk_bridge.migrate._save import save as save
from hk_bridge.migrate._stack import stack as stack
from hk_bridge.migrate._stack import unstack as unstack
from hk_bridge.migrate._table import Table as Table
from hk_bridge.migrate._twins import Twin as Twin
from hk_bridge.migrate._twins import TwinError as TwinError
from hk_bridge.migrate._twins import twin as twin

__docformat__ = "google"  # for pdoc
__all__ = [
    "Carried",
    "CheckpointError",
    "LeafTable",
    "Match",
    "MatchError",
    "Paired",
    "Table",
    "Twin",
    "TwinError",
    "carry",
    "diff",
    "load",
    "load_haiku",
    "match",
    "save",
    "save_haiku",
    "stack",
    "twin",
    "unstack",
]
