"""Model cards: a head that model hubs can read, and what people must be told."""

from typing import Any

import pytest
import yaml

from training.cards import FIGURES, HONEST, card_of, demo_card, model_card

FIGURE = {"mean": 0.65432, "interval": [0.5, 0.8]}
SCORES = {key: FIGURE for key, _, _ in FIGURES}
REPORT: dict[str, Any] = {
    "cases": 68,
    "subjects": 60,
    "folds": 4,
    "column": HONEST,
    "scores": {"default": SCORES, "fitted": SCORES, HONEST: SCORES},
    "claims": {
        "confidence_calibration_error": 0.02,
        "p_annotated_calibration_error": 0.04,
        "p_annotated_roc_area": 0.8,
        "ac_coverage": 0.912,
        "n_references": 67,
    },
}
DEMO: dict[str, Any] = {
    "calibration": REPORT | {"simulated": True, "code": "abc"},
    "phantoms": {"seed": 2002, "training": 252},
    "base": {"phantoms": {"seed": 1001, "training": 280}},
    "members": 2,
    "code": "abc",
}


def provenance(**changes: Any) -> dict[str, Any]:
    """Of a bundle trained on the real data, on FetalCLIP's trunk."""
    return {
        "name": 'acouslic: "one"',
        "simulated": False,
        "intended_use": "For research only.",
        "data": "ACOUSLIC-AI training set v1.1",
        "data_licence": "CC BY-NC-SA 4.0",
        "base": {
            "what": "visual tower of FetalCLIP",
            "model": "numansaeed/fetalclip-model",
            "sha256": "0" * 64,
            "licence": "CC BY-NC 4.0",
        },
        "members": 5,
        "code": "abc",
        "cross_validation": REPORT | {"cases": 300, "subjects": 280, "folds": 5},
    } | changes


def head(card: str) -> dict[str, Any]:
    empty, text, body = card.split("---\n", 2)
    assert not empty and body.startswith("# ")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def test_a_bundles_head_says_licence_base_tags_and_honest_figures() -> None:
    values = head(model_card(provenance()))
    assert values["license"] == "other"
    assert values["license_name"] == "CC BY-NC 4.0 and CC BY-NC-SA 4.0"
    assert values["base_model"] == "numansaeed/fetalclip-model"
    assert values["pipeline_tag"] == "image-segmentation"
    assert "ultrasound" in values["tags"] and "simulated" not in values["tags"]
    assert values["metrics"] == ["score", "wfss", "dice_soft", "nae"]
    (model,) = values["model-index"]
    assert model["name"] == 'acouslic: "one"'
    (result,) = model["results"]
    assert result["task"]["type"] == "image-segmentation"
    assert "training set v1.1" in result["dataset"]["name"]
    assert [metric["value"] for metric in result["metrics"]] == [0.6543] * 4


@pytest.mark.parametrize(
    ("base_licence", "data_licence", "licence"),
    [
        (None, "none needed", {"license": "apache-2.0"}),
        ("CC BY-NC 4.0", "none needed", {"license": "cc-by-nc-4.0"}),
        ("CC BY-NC-SA 4.0", "CC BY-NC-SA 4.0", {"license": "cc-by-nc-sa-4.0"}),
        (
            "CC BY-NC 4.0 and CC BY-NC-SA 4.0",
            "CC BY-NC-SA 4.0",
            {"license": "other", "license_name": "CC BY-NC 4.0 and CC BY-NC-SA 4.0"},
        ),
        ("somebody's own", "none needed", {"license": "other", "license_name": "somebody's own"}),
    ],
)
def test_every_licence_that_holds_is_in_the_head(
    base_licence: str | None, data_licence: str, licence: dict[str, str]
) -> None:
    base = {"what": "a trunk", **({"licence": base_licence} if base_licence else {})}
    values = head(model_card(provenance(base=base, data_licence=data_licence)))
    assert {key: values[key] for key in ("license", "license_name") if key in values} == licence
    assert "base_model" not in values


def test_a_bundle_of_phantoms_is_called_simulated_for_people_and_hubs() -> None:
    card = model_card(provenance(simulated=True, data_licence="none needed"))
    assert "**SIMULATED: trained on simulated images" in card
    values = head(card)
    assert "simulated" in values["tags"]
    assert values["model-index"][0]["results"][0]["dataset"]["type"] == "phantoms"
    assert "SIMULATED" not in model_card(provenance())


def test_a_card_tells_of_phantoms_that_were_mixed_in_and_of_a_sweep_head() -> None:
    plain = model_card(provenance())
    assert "mixed into training" not in plain and "sweep head" not in plain
    mixed = [{"share": 0.2, "phantoms": 480}] * 2
    loss = {"without": {"mean": 3.21}, "with": {"mean": 2.1}}
    told = {"upon": "default", "gain": {"score": FIGURE}, "log_loss": loss}
    validation = REPORT | {"sweep_head": told}
    card = model_card(provenance(mixed_in=mixed, cross_validation=validation))
    assert card.count("| 20 % of the drawn frames: SIMULATED, of 480 phantoms;") == 1
    text = " ".join(card.split())
    assert 'in score over "default" is 0.654 [0.500, 0.800]' in text
    assert "the log loss of a stack from 3.210 to 2.100" in text


def test_the_demos_card_has_a_head_too() -> None:
    values = head(demo_card(DEMO))
    assert values["license"] == "apache-2.0" and "simulated" in values["tags"]
    metrics = values["model-index"][0]["results"][0]["metrics"]
    assert {metric["type"]: metric["value"] for metric in metrics}["score"] == 0.6543


def test_each_row_of_the_table_has_a_cell_for_each_score() -> None:
    lines = model_card(provenance()).splitlines()
    table = [line for line in lines if line.startswith(("| |", "| WFSS", "| NAE", "| score"))][1:]
    assert len({line.count("|") for line in table}) == 1 and len(table) == 4


def test_cards_tell_what_was_held_out_and_what_answers_claim() -> None:
    card = model_card(provenance())
    assert "those after its last epoch" in card
    assert "91 % of 67 references" in card
    assert "the ensemble has\nnot been judged" in card
    assert "91 % of 67 references" in demo_card(DEMO)


def test_a_bundle_that_was_calibrated_again_says_on_what() -> None:
    later = REPORT | {"cases": 40, "simulated": False, "code": "def"}
    card = card_of(provenance(calibration=later))
    assert "fitted to 40 other cases of 60 subjects, by code def" in " ".join(card.split())
    card = card_of(provenance(calibration=later | {"kept_claims": ["claim_score"]}))
    assert "subjects (claim_score stayed, as the fit was not clearly" in " ".join(card.split())
    assert card_of(DEMO) == demo_card(DEMO)
