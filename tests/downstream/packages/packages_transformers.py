"""Flax networks of transformers, small and with random weights.

Each is the linen module inside one of the library's model objects.
"""

import jax.numpy as jnp
from packages_case import Catalogue
from packages_case import Linen
from packages_case import floats
from packages_case import ints

CASES = Catalogue()
SIZES = {
    "vocab_size": 17,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
}
TOKENS = ints(2, 6, below=17)
MASK = jnp.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
POSITIONS = jnp.broadcast_to(jnp.arange(6), (2, 6))
TRAIN = {"deterministic": False}


@CASES.of("transformers", "BERT, masked language model")
def _() -> Linen:
    from transformers import BertConfig
    from transformers.models.bert import modeling_flax_bert as bert

    net = bert.FlaxBertForMaskedLMModule(BertConfig(**SIZES))
    args = (TOKENS, MASK, jnp.zeros_like(TOKENS), POSITIONS, None)
    return Linen(net, args, TRAIN)


@CASES.of("transformers", "RoBERTa, checkpointed blocks")
def _() -> Linen:
    from transformers import RobertaConfig
    from transformers.models.roberta import modeling_flax_roberta as roberta

    net = roberta.FlaxRobertaForMaskedLMModule(
        RobertaConfig(**SIZES), gradient_checkpointing=True
    )
    args = (TOKENS, MASK, jnp.zeros_like(TOKENS), POSITIONS, None)
    return Linen(net, args, TRAIN)


@CASES.of("transformers", "GPT-2")
def _() -> Linen:
    from transformers import GPT2Config
    from transformers.models.gpt2 import modeling_flax_gpt2 as gpt2

    config = GPT2Config(vocab_size=17, n_positions=12, n_embd=8, n_layer=2, n_head=2)
    return Linen(gpt2.FlaxGPT2LMHeadModule(config), (TOKENS, MASK, POSITIONS), TRAIN)


@CASES.of("transformers", "GPT-2 with a cache")
def _() -> Linen:
    from transformers import GPT2Config
    from transformers.models.gpt2 import modeling_flax_gpt2 as gpt2

    config = GPT2Config(vocab_size=17, n_positions=12, n_embd=8, n_layer=1, n_head=2)
    args = (TOKENS, MASK, POSITIONS)
    return Linen(gpt2.FlaxGPT2LMHeadModule(config), args, {"init_cache": True})


@CASES.of("transformers", "Llama")
def _() -> Linen:
    from transformers import LlamaConfig
    from transformers.models.llama import modeling_flax_llama as llama

    net = llama.FlaxLlamaForCausalLMModule(LlamaConfig(**SIZES))
    return Linen(net, (TOKENS, MASK, POSITIONS), TRAIN)


@CASES.of("transformers", "ViT")
def _() -> Linen:
    from transformers import ViTConfig
    from transformers.models.vit import modeling_flax_vit as vit

    sizes = {k: v for k, v in SIZES.items() if k != "vocab_size"}
    config = ViTConfig(**sizes, image_size=8, patch_size=4)
    net = vit.FlaxViTForImageClassificationModule(config)
    return Linen(net, (floats(2, 8, 8, 3),), TRAIN)


@CASES.of("transformers", "ResNet")
def _() -> Linen:
    from transformers import ResNetConfig
    from transformers.models.resnet import modeling_flax_resnet as resnet

    config = ResNetConfig(embedding_size=4, hidden_sizes=[8, 16], depths=[1, 1])
    net = resnet.FlaxResNetForImageClassificationModule(config)
    return Linen(net, (floats(2, 16, 16, 3),), TRAIN)
