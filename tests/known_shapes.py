"""Configurations in the shapes of known models, without weights."""

from transformers import LlamaConfig


TINYLLAMA = LlamaConfig(
    hidden_size=2048,
    num_hidden_layers=22,
    num_attention_heads=32,
    num_key_value_heads=4,
    intermediate_size=5632,
    vocab_size=32000,
    architectures=["LlamaForCausalLM"],
)
