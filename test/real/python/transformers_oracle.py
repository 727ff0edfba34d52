"""What Hugging Face transformers says of a checkpoint: the third opinion.

usage: python transformers_oracle.py FOLDER < QUESTIONS > ANSWERS, both one JSON object:
  sequences: lists of token ids    -> log_probs: for each, that of every token but the first, at temperature 1, float32
  chats: lists of messages         -> chats: {text, ids} through the chat template with the generation prompt
  texts: texts                     -> texts: {ids, decoded} without special tokens
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def log_probs(model: torch.nn.Module, ids: list[int]) -> list[float]:
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logits = model(tokens).logits.float()
    return logits.log_softmax(-1)[0, :-1].gather(-1, tokens[0, 1:, None])[:, 0].tolist()


def main() -> None:
    folder = sys.argv[1]
    asked = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def chat(messages: list[dict[str, str]]) -> dict:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False)}

    def text(value: str) -> dict:
        ids = tokenizer.encode(value, add_special_tokens=False)
        return {"ids": ids, "decoded": tokenizer.decode(ids, clean_up_tokenization_spaces=False)}

    json.dump(
        {
            "log_probs": [log_probs(model, ids) for ids in asked["sequences"]],
            "chats": [chat(messages) for messages in asked["chats"]],
            "texts": [text(value) for value in asked["texts"]],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
