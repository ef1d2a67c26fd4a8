from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_wheel_holds_every_package_under_the_three_roots_and_nothing_else(tmp_path: Path) -> None:
    build = "from hatchling.build import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    packages = {
        path.name
        for root in ("daemon", "events", "plugins")
        for path in (ROOT / root).iterdir()
        if path.name != "__pycache__"
    }
    assert top == packages
    assert "finetuned/sql/queries.sql" in names
    assert "finetuned_events/schema.sql" in names
    assert "finetuned/demo/data/orders-train.jsonl" in names
    assert "finetuned/skeleton/files/package/trainer.py.template" in names
    assert "finetuned/service/systemd/system/finetuned.service" in names
