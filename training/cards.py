"""Model cards: what people must know about a bundle, from its provenance."""

from typing import Any

FIGURES = (
    ("score", "score"),
    ("wfss", "WFSS"),
    ("dice_soft", "soft Dice"),
    ("nae", "NAE of the AC"),
)
LIMITS = """## Intended use and limits

For research on measuring the fetal abdominal circumference in blind sweeps of a convex probe, in
the form of the ACOUSLIC-AI challenge. No medical device; no measurement may guide the care of a
pregnancy. Untested on other probes, depths, frame sizes and gestational ages than the training
data's. One frame is always returned, even where no abdomen was recorded: heed the confidence.
"""


def demo_card(provenance: dict[str, Any]) -> str:
    """The demo bundle's card, Markdown."""
    figures = provenance["phantom_figures_on_held_out_cases"]
    data, base_data = provenance["phantoms"], provenance["base"]["phantoms"]
    fitted = figures["fitted_selection"]
    found = ", ".join(f"{name} {fitted[key]:.3f}" for key, name in FIGURES)
    return f"""# Demo bundle: simulated images only

**Trained on phantoms, not on patients. It shows that the software works; its measurements mean
nothing for any pregnancy.**

| | |
|---|---|
| base | small ViT, from scratch, {base_data["training"]} phantoms of seed {base_data["seed"]} |
| adapters, heads | trained on {data["training"]} other phantoms, of seed {data["seed"]} |
| members | {provenance["members"]}: mean of their mask logits and quality probabilities |
| held-out phantoms | {figures["cases"]}, of both seeds; they chose trunk and selection |
| phantom figures on those | {found}; optimistic |
| made by | `python -m training demo`, code {provenance["code"]} |
| licence | the project's own |
"""


def model_card(provenance: dict[str, Any]) -> str:
    """A packed bundle's card, Markdown."""
    validation, base = provenance["cross_validation"], provenance["base"]
    simulated = (
        "**Trained on simulated images only: means nothing for patients.**\n\n"
        if provenance["simulated"]
        else ""
    )
    rows = "\n".join(
        f"| {name} | "
        + " | ".join(_interval(each[key]) for each in validation["scores"].values())
        + " |"
        for key, name in FIGURES
    )
    heads = " | ".join(name.replace("_", " ") for name in validation["scores"])
    return f"""# {provenance["name"]}

{simulated}{provenance["intended_use"]}

| | |
|---|---|
| base | {base["what"]}, sha256 of the source {base.get("sha256", "none: trained here")} |
| base's licence | {base.get("licence", "the project's own")} |
| data | {provenance["data"]} |
| data's licence | {provenance["data_licence"]} |
| cases, subjects | {validation["cases"]}, {validation["subjects"]} |
| members | {provenance["members"]} |
| code | {provenance["code"]} |

## Out-of-fold figures

Every case was judged by the network that was not trained on its subject, in
{validation["folds"]} folds; means with 95 % intervals by resampling subjects. "fitted" chose the
selection's parameters on the same cases and is optimistic; "fitted on other folds" is not.

| | {heads} |
|---|{"---|" * len(validation["scores"])}
{rows}

The members that are packed saw part of these cases; as an ensemble they have not been judged.

{LIMITS}"""


def _interval(value: dict[str, Any]) -> str:
    low, high = value["interval"]
    return f"{value['mean']:.3f} [{low:.3f}, {high:.3f}]"
