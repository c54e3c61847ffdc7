"""The trees of Flax and of Haiku, and the way from one to the other.

`names` spells a path of Flax as a name of Haiku, `where` says where a leaf is, `tree`
walks over variables and `convert` makes Haiku's trees of them, and back. None of it
needs a framework.
"""

from hk_bridge._layout.convert import FLAXS_OWN as FLAXS_OWN
from hk_bridge._layout.convert import TRAINING as TRAINING
from hk_bridge._layout.convert import Bundles as Bundles
from hk_bridge._layout.convert import are_bundles as are_bundles
from hk_bridge._layout.convert import are_haikus as are_haikus
from hk_bridge._layout.convert import bundles as bundles
from hk_bridge._layout.convert import check_collections as check_collections
from hk_bridge._layout.convert import chosen as chosen
from hk_bridge._layout.convert import empty_bundles as empty_bundles
from hk_bridge._layout.convert import to_flax as to_flax
from hk_bridge._layout.convert import to_haiku as to_haiku
from hk_bridge._layout.convert import variables_of as variables_of
from hk_bridge._layout.names import Path as Path
from hk_bridge._layout.states import opened as opened
from hk_bridge._layout.tree import Variables as Variables
from hk_bridge._layout.tree import are_variables as are_variables
from hk_bridge._layout.tree import below as below
from hk_bridge._layout.tree import box_in_place as box_in_place
from hk_bridge._layout.tree import boxes_of as boxes_of
from hk_bridge._layout.tree import empty_paths as empty_paths
from hk_bridge._layout.tree import find as find
from hk_bridge._layout.tree import has_boxes as has_boxes
from hk_bridge._layout.tree import insert as insert
from hk_bridge._layout.tree import is_box as is_box
from hk_bridge._layout.tree import is_level as is_level
from hk_bridge._layout.tree import leaves as leaves
from hk_bridge._layout.tree import make_level as make_level
from hk_bridge._layout.tree import map_leaves as map_leaves
from hk_bridge._layout.tree import open_box as open_box
from hk_bridge._layout.tree import place as place
from hk_bridge._layout.tree import rebox as rebox
from hk_bridge._layout.tree import remove as remove
from hk_bridge._layout.tree import replace as replace
from hk_bridge._layout.tree import unbox as unbox
from hk_bridge._layout.where import PARAMS as PARAMS
from hk_bridge._layout.where import Where as Where
from hk_bridge._layout.where import address as address
from hk_bridge._layout.where import spelled as spelled
from hk_bridge._layout.whole import bare as bare
from hk_bridge._layout.whole import keep as keep
from hk_bridge._layout.whole import register as register
