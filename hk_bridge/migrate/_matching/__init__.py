"""Which leaf of a Haiku network is which leaf of a Flax module.

`trace` and `flat` make both programs lists of steps; `arithmetic` runs these in float64
and `prints` knows values again. `terms` and `sites` say where weights meet data,
`candidates` which places of Flax may be one of Haiku's, in which order (`orders`) and
parts (`slices`), `search` chooses among them. `ends` has what meets no data, `guesses`
what is left. `rows` and `leaf_table` tell what was found, `parting` where it is not,
`proof` whether it holds, with the gradients of `slopes`; `outcome` puts these together,
and `matched` has `match`.

No layer is known by its name here, and none of its leaves: of the facts that
`migrate.twin` states, only what Haiku keeps of an average is needed
(`migrate._averages`), as no program tells `hidden` of `average`.
"""

from hk_bridge.migrate._matching.leaf_table import LeafTable as LeafTable
from hk_bridge.migrate._matching.matched import Match as Match
from hk_bridge.migrate._matching.matched import match as match
from hk_bridge.migrate._matching.parting import Parting as Parting
from hk_bridge.migrate._matching.parting import Place as Place
from hk_bridge.migrate._matching.proof import Proof as Proof
