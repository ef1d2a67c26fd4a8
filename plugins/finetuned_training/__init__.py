"""What trainers on transformers' ``Trainer`` share: parameters, reading rows, loading models, reporting, publishing.

No trainer is here: each of them (``finetuned_sft.trainer``, ``finetuned_dpo.trainer``) reads top to bottom by itself.
"""
