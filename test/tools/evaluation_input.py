"""Lay an answer out as the platform hands a submission to the organisers, and check metrics.json.

Standard library only, since it runs inside the image too. `make` writes `input`, `ground_truth` and
an empty `output` into a folder.
"""

import argparse
import csv
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

JOB = "00000000-0000-4000-8000-000000000001"
STACK_SLUG = "stacked-fetal-ultrasound"
OUTPUTS = {
    "fetal-abdomen-segmentation": "images/fetal-abdomen-segmentation",
    "fetal-abdomen-frame-number": "fetal-abdomen-frame-number.json",
}
TABLE = "circumferences/fetal_abdominal_circumferences_per_sweep.csv"


def make(options: argparse.Namespace) -> None:
    """Write the folder."""
    folder: Path = options.folder
    (stack,) = (options.input / "images" / STACK_SLUG).glob("*.mha")
    shutil.copytree(options.answer, folder / "input" / JOB / "output")
    (folder / "input" / "predictions.json").write_text(json.dumps([job(stack.name)]))
    truth = folder / "ground_truth" / stack.stem
    (truth / "fetal_abdomen_stacked_masks").mkdir(parents=True)
    mask = options.truth / "masks" / "stacked_fetal_abdomen" / stack.name
    shutil.copy(mask, truth / "fetal_abdomen_stacked_masks")
    with (options.truth / TABLE).open(newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if row["uuid"] == stack.stem)
    references = {
        key: float(value) if value else None for key, value in row.items() if key.endswith("_ac_mm")
    }
    (truth / "fetal_abdominal_circumference.json").write_text(json.dumps(references))
    (folder / "output").mkdir()


def job(name: str) -> dict[str, Any]:
    """A job's entry of predictions.json."""
    return {
        "pk": JOB,
        "status": "Succeeded",
        "inputs": [
            {
                "image": {"name": name},
                "socket": {"slug": STACK_SLUG, "relative_path": f"images/{STACK_SLUG}"},
            }
        ],
        "outputs": [
            {"image": None, "socket": {"slug": slug, "relative_path": path}}
            for slug, path in OUTPUTS.items()
        ],
    }


def check(options: argparse.Namespace) -> None:
    """Exit with code 1 unless metrics.json has finite totals of the one case, and not its name."""
    text = (options.folder / "output" / "metrics.json").read_text()
    metrics = json.loads(text)
    (case,) = (path.name for path in (options.folder / "ground_truth").iterdir())
    wrong = [
        key
        for key, value in metrics.items()
        if isinstance(value, dict) and not all(map(math.isfinite, (value["mean"], value["std"])))
    ]
    if wrong or metrics["cases"] != 1 or "score" not in metrics or case in text:
        sys.exit(f"expected finite totals of one case that is not named; found {text}")
    print(
        ", ".join(
            f"{key} {metrics[key]['mean']:.4f}" for key in ("score", "wfss", "nae_circumference")
        )
    )


def main() -> None:
    """Do one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.set_defaults(run=make)
    for name in ("--input", "--answer", "--truth"):
        making.add_argument(name, type=Path, required=True)
    checking = commands.add_parser("check")
    checking.set_defaults(run=check)
    for command in (making, checking):
        command.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
