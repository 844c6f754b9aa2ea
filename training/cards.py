"""Model cards: what people, and model hubs, must know about a bundle, from its provenance.

A card is Markdown with a head in YAML, with the keys that model hubs read (Mitchell et al., "Model
cards for model reporting", 2019; huggingface.co/docs/hub/model-cards).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from training.base import AND, NO_LICENCE

# A figure's key, its name, and what it is.
FIGURES = (
    ("score", "score", "the challenge's score, higher is better"),
    ("wfss", "WFSS", "weighted frame selection score, higher is better"),
    ("dice_soft", "soft Dice", "overlap of the mask, higher is better"),
    ("nae", "NAE of the AC", "relative error of the circumference, lower is better"),
)
TAGS = ("ultrasound", "fetal-biometry", "abdominal-circumference", "acouslic-ai", "lora")
TASK = {"type": "image-segmentation", "name": "abdominal circumference from blind sweeps"}
DATASET = {"type": "acouslic-ai", "name": "ACOUSLIC-AI training set v1.1, out of fold"}
PHANTOMS = {"type": "phantoms", "name": "simulated stacks, held out"}
OWN_LICENCE = "apache-2.0"
HUB_LICENCES = {"CC BY-NC 4.0": "cc-by-nc-4.0", "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0"}
# The column of the report in which nothing was fitted to the cases that it is about.
HONEST = "fitted on other folds"
LIMITS = """## Intended use and limits

For research on measuring the fetal abdominal circumference in blind sweeps of a convex probe, in
the form of the ACOUSLIC-AI challenge. No medical device; no measurement may guide the care of a
pregnancy. Untested on other probes, depths, frame sizes and gestational ages than the training
data's. One frame is always returned, even where no abdomen was recorded: heed the confidence.
"""
SIMULATED = (
    "**SIMULATED: trained on simulated images; its measurements mean nothing for patients.**"
)


def demo_card(provenance: Mapping[str, Any]) -> str:
    """The demo bundle's card."""
    figures = provenance["calibration"]
    data, base_data = provenance["phantoms"], provenance["base"]["phantoms"]
    honest = figures["scores"][figures["column"]]
    means = {key: honest[key]["mean"] for key, _, _ in FIGURES}
    head = _head("acouslic-demo", (), None, PHANTOMS, means, is_simulated=True)
    return f"""{head}
# Demo bundle: simulated images only

**Trained on phantoms, not on patients. It shows that the software works; its measurements mean
nothing for any pregnancy.**

| | |
|---|---|
| base | small ViT, from scratch, {base_data["training"]} phantoms of seed {base_data["seed"]} |
| adapters, heads | trained on {data["training"]} other phantoms, of seed {data["seed"]} |
| members | {provenance["members"]}: mean of their mask logits and quality probabilities |
| held-out phantoms | {figures["cases"]} |
| choice of the frame | {figures["column"]} |
| phantom figures on those | {_listed(honest)} |
| what answers say of themselves | fitted to those by code {figures["code"]} |
| the same, fitted on other parts of them | {_claims(figures["claims"])} |
| made by | `python -m training demo`, code {provenance["code"]} |
| licence | the project's own |
"""


def model_card(provenance: Mapping[str, Any]) -> str:
    """A packed bundle's card."""
    validation, base = provenance["cross_validation"], provenance["base"]
    is_simulated = provenance["simulated"]
    honest = validation["scores"][validation["column"]]
    head = _head(
        provenance["name"],
        _licences(base.get("licence", NO_LICENCE), provenance["data_licence"]),
        base.get("model"),
        PHANTOMS if provenance["data_licence"] == NO_LICENCE else DATASET,
        {key: honest[key]["mean"] for key, _, _ in FIGURES},
        is_simulated=is_simulated,
    )
    use = "\n\n".join([*([SIMULATED] if is_simulated else []), provenance["intended_use"]])
    return f"""{head}
# {provenance["name"]}

{use}

| | |
|---|---|
| base | {base["what"]}, sha256 of the source {base.get("sha256", "none: trained here")} |
| base's licence | {base.get("licence", "the project's own")} |
| data | {provenance["data"]} |
| data's licence | {provenance["data_licence"]} |{_mixed_in(provenance)}
| cases, subjects | {validation["cases"]}, {validation["subjects"]} |
| members | {provenance["members"]} |
| code | {provenance["code"]} |

## Out-of-fold figures

Every case was judged by the network that was not trained on its subject, in
{validation["folds"]} folds; means with 95 % intervals by resampling subjects. "fitted" had its
calibration from the same cases and is optimistic; with "fitted on other folds" the calibration, and
what answers say of themselves, come from the other folds. No epoch was chosen on the cases that a
fold is judged on: each fold's weights are those after its last epoch.

{_table(validation["scores"])}
{_sweep_head(validation)}
Packed: the choice "{validation["column"]}". What answers say of themselves, fitted on other folds:
{_claims(validation["claims"])}.

Each case was unseen by one member only: these are figures of single members, and the ensemble has
not been judged.
{_calibrated_later(provenance)}
{LIMITS}"""


def _mixed_in(provenance: Mapping[str, Any]) -> str:
    """A row about phantoms among the frames that were trained on; none where there were none."""
    told = {(one["phantoms"], one["share"]) for one in provenance.get("mixed_in", ())}
    return "".join(
        f"\n| mixed into training | {100 * share:g} % of the drawn frames: SIMULATED, of {count} "
        "phantoms; no figure below is about one of them |"
        for count, share in sorted(told)
    )


def _sweep_head(validation: Mapping[str, Any]) -> str:
    """What a sweep head that was tried has brought; nothing where none was."""
    told = validation.get("sweep_head")
    if told is None:
        return ""
    gain, losses = told["gain"]["score"], told["log_loss"]
    return f"""
Each fold was judged with a sweep head too, trained on the other folds: its gain in score over
"{told["upon"]}" is {_interval(gain)}, and it takes the log loss of a stack from
{losses["without"]["mean"]:.3f} to {losses["with"]["mean"]:.3f}.
"""


def card_of(provenance: Mapping[str, Any]) -> str:
    """The card of a bundle that was calibrated after it was packed."""
    if "phantoms" in provenance:
        return demo_card(provenance)
    if "cross_validation" in provenance:
        return model_card(provenance)
    # Not packed by `pack`: nothing more is known of it.
    simulated = f"{SIMULATED}\n" if provenance.get("simulated") else ""
    return f"# Bundle\n\n{simulated}{_calibrated_later(provenance)}\n{LIMITS}"


def _calibrated_later(provenance: Mapping[str, Any]) -> str:
    """What to know of a calibration that was fitted to other cases, after packing."""
    later = provenance.get("calibration")
    if later is None:
        return ""
    of_what = "simulated cases" if later["simulated"] else "cases"
    measured = _listed(later["scores"][later["column"]])
    # Bundles from before this was told have none that stayed.
    kept = " and ".join(later.get("kept_claims", ()))
    stayed = f" ({kept} stayed, as the fit was not clearly better)" if kept else ""
    return f"""
## Calibrated again

The claims in this bundle were fitted to {later["cases"]} other {of_what} of {later["subjects"]}
subjects{stayed}, by code {later["code"]}; the choice of the frame: {later["column"]}. The whole
bundle on them, each of {later["folds"]} parts under what was fitted to the rest:
{measured}; {_claims(later["claims"])}.
{_sweep_head(later)}"""


def _listed(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_interval(figures[key])}" for key, name, _ in FIGURES)


def _claims(claims: Mapping[str, Any]) -> str:
    """Whether answers hold what they say of themselves."""
    return (
        f"expected calibration error of `confidence` {claims['confidence_calibration_error']:.3f},"
        f" of `p_annotated` {claims['p_annotated_calibration_error']:.3f}; the AC's 90 % interval"
        f" holds {100 * claims['ac_coverage']:.0f} % of {claims['n_references']} references"
    )


def _table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    heads = " | ".join(name.replace("_", " ") for name in scores)
    rows = [
        f"| {name} | {' | '.join(_interval(column[key]) for column in scores.values())} |"
        for key, name, _ in FIGURES
    ]
    return "\n".join([f"| | {heads} |", f"|---|{'---|' * len(scores)}", *rows])


def _interval(value: Mapping[str, Any]) -> str:
    low, high = value["interval"]
    return f"{value['mean']:.3f} [{low:.3f}, {high:.3f}]"


def _head(
    name: str,
    licences: Sequence[str],
    base_model: str | None,
    dataset: Mapping[str, str],
    figures: Mapping[str, float],
    *,
    is_simulated: bool,
) -> str:
    """The card's head; every value is JSON, which is YAML too and needs no library to write."""
    metrics = [
        {"type": key, "name": f"{short}: {text}", "value": round(figures[key], 4)}
        for key, short, text in FIGURES
    ]
    entries: dict[str, Any] = {
        **_licence(licences),
        **({"base_model": base_model} if base_model else {}),
        "library_name": "acouslic",
        "pipeline_tag": TASK["type"],
        "tags": [*TAGS, *(["simulated"] if is_simulated else [])],
        "metrics": [key for key, _, _ in FIGURES],
    }
    result = {"task": TASK, "dataset": dataset, "metrics": metrics}
    lines = [f"{key}: {json.dumps(value)}" for key, value in entries.items()]
    lines += ["model-index:", f"  - name: {json.dumps(name)}", "    results:"]
    lines += [f"      - {json.dumps(result)}"]
    return "\n".join(["---", *lines, "---"])


def _licences(*texts: str) -> list[str]:
    """All licences that texts such as "A and B" name, each once."""
    names = [name for text in texts for name in text.split(AND)]
    return list(dict.fromkeys(name for name in names if name != NO_LICENCE))


def _licence(licences: Sequence[str]) -> dict[str, str]:
    """The hub's keys for licences that hold all at once; without any the project's own holds."""
    known = [HUB_LICENCES.get(licence, "other") for licence in licences]
    if not licences:
        return {"license": OWN_LICENCE}
    if len(set(known)) == 1 and known[0] != "other":
        return {"license": known[0]}
    return {"license": "other", "license_name": AND.join(licences)}
