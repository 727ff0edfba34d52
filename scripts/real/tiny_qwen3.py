"""Writes a tiny random Qwen3 in Hugging Face's layout: 4 layers, hidden 256, 8 heads over 4, vocabulary 512, float32, 10 MB.

usage: python tiny_qwen3.py FOLDER

Its tokenizer has one token a character (ids 4 to 98 are the printable ASCII), so a text and its ids can be told by looking; ids
above print as <t123>, and no text encodes to them. The chat template is the usual one of <|im_start|> blocks, whose marks are tokens 510 and 511.
Weights are drawn five times wider than Qwen3's own start: logits then differ enough that greedy outputs vary and no two tokens tie.
"""

import json
import pathlib
import sys

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 512
ROPE_BASE = 1e6
IM_START, IM_END = VOCABULARY - 2, VOCABULARY - 1
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=4096,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
            initializer_range=0.1,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
            bos_token_id=1,
            eos_token_id=2,
        )
    ).to(torch.float32)


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3}
    for code in (*range(32, 127), 10):
        vocabulary[chr(code)] = len(vocabulary)
    for token in range(len(vocabulary), IM_START):
        vocabulary[f"<t{token}>"] = token
    vocabulary |= {"<|im_start|>": IM_START, "<|im_end|>": IM_END}
    characters = Tokenizer(models.BPE(vocabulary, merges=[], unk_token="<unk>"))
    characters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=characters,
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHAT_TEMPLATE,
    )


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    # Readers older than transformers 5 want the base of RoPE at the top, and the template with the tokenizer.
    config = json.loads((folder / "config.json").read_text())
    config["rope_theta"] = ROPE_BASE
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    fields = json.loads((folder / "tokenizer_config.json").read_text())
    fields["chat_template"] = CHAT_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(fields, indent=1))


if __name__ == "__main__":
    main()
