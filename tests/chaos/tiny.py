"""Real trainings that take seconds: the tests' tiny model, rows for it, and the parameters of a job over them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.sft.tiny import chat
from tests.chaos.server import ROOT

ROWS = 40


class Tiny:
    """A model and a dataset in a directory. Made in another process, so that this one stays without torch."""

    def __init__(self, home: Path) -> None:
        self.model, self.dataset = home / "tiny-llama", home / "train.jsonl"
        rows = (json.dumps(chat(number)) + "\n" for number in range(ROWS))
        self.dataset.write_text("".join(rows), encoding="utf-8")
        code = "import pathlib, sys; from tests.acceptance.sft.tiny import save_model; save_model(pathlib.Path(sys.argv[1]))"
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, self.model],
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def params(self, **changes: Any) -> dict[str, Any]:
        """Parameters of an SFT job; the same ones give the same weights, bit by bit, on one machine."""
        return {
            "model": str(self.model),
            "dataset": str(self.dataset),
            "max_steps": 24,
            "save_steps": 1,
            "per_device_train_batch_size": 2,
            "learning_rate": 5e-3,
            "max_length": 64,
            "lora_dropout": 0.05,  # random, so that its state has to be resumed, too
            "seed": 7,
            "dataloader_num_workers": 0,
            **changes,
        }
