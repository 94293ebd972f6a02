"""A tiny random language model for tests: byte-level BPE, ChatML, a two-layer Llama; made in a folder in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CORPUS = (
    "The quick brown fox jumps over the lazy dog. Steven Spielberg was born in Cincinnati, Ohio in 1946. "
    '{"answer":"yes","quotes":["Jaws is a 1975 film."],"sufficient":"no"} He said "hi" and left. '
    "Caf\u00e9 \u00dcber \u65e5\u672c\u8a9e \\ \\n"
)
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a model to ``folder``; ``changes`` go to its configuration."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([CORPUS] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=special[2], pad_token=special[0])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**shape, **changes}))
    with torch.no_grad():  # spread the logits, so that draws are not uniform
        model.lm_head.weight *= 20
    model.save_pretrained(folder)
    return folder
