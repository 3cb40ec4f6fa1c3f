"""Which stems a combination has, and what they are made from."""

from __future__ import annotations

import pytest

from bsmamba2 import Chain, Ensemble, Manifest, ModelError
from bsmamba2.models.combined_stems import CombinedStems, chain_stems, ensemble_stems

FOUR = ("drums", "bass", "other", "vocals")
VOCALS = Manifest("v")
KARAOKE = Manifest("karaoke", stems=("instrumental",), residual="vocals")
DEMUCS = Manifest("d", stems=FOUR, residual="residual")
SIX = Manifest("six", stems=(*FOUR, "guitar", "piano"), residual="residual")
DRY = Manifest("dry", stems=("dry",), residual="residual")
BOTH = Manifest("both", stems=("vocals", "other"), residual=None)


def ensemble(*models: Manifest, stems: list[list[str]] | None = None) -> CombinedStems:
    return ensemble_stems(Ensemble([m.name for m in models], stems=stems), models)


def chain(first: Manifest, second: Manifest, stem: str = "vocals") -> CombinedStems:
    return chain_stems(Chain("a", "b", stem=stem), first, second)


@pytest.mark.parametrize(
    ("models", "stems", "residual"),
    [
        ((VOCALS, VOCALS), ("vocals",), "instrumental"),
        ((VOCALS, KARAOKE), ("vocals",), "instrumental"),
        ((KARAOKE, VOCALS), ("instrumental",), "vocals"),
        ((VOCALS, DEMUCS), ("vocals",), "instrumental"),
        ((DEMUCS, VOCALS), ("vocals",), "instrumental"),
        ((DEMUCS, DEMUCS), FOUR, "residual"),
        ((BOTH, VOCALS), ("vocals",), "instrumental"),
        ((BOTH, BOTH), ("vocals", "other"), "residual"),
    ],
)
def test_an_ensemble_has_the_stems_that_all_its_models_have(
    models: tuple[Manifest, ...], stems: tuple[str, ...], residual: str
) -> None:
    found = ensemble(*models)
    assert (found.stems, found.residual) == (stems, residual)


def test_what_is_left_over_in_one_model_is_not_what_is_left_over_in_another() -> None:
    assert ensemble(SIX, DEMUCS).stems == ("drums", "bass", "vocals")


def test_each_stem_is_made_from_the_outputs_of_its_name() -> None:
    assert ensemble(DEMUCS, KARAOKE).sources == (((0, 3), (1, 1)),)


def test_models_without_a_common_stem_are_named_with_their_stems() -> None:
    message = "must have a stem in common; got v: vocals, instrumental; dry: dry, residual: choose"
    with pytest.raises(ModelError, match=message):
        ensemble(VOCALS, DRY)


def test_in_a_bag_each_model_is_used_for_its_own_stems() -> None:
    bag = ensemble(*[DEMUCS] * 4, stems=[[name] for name in FOUR])
    assert (bag.stems, bag.residual) == (FOUR, "residual")
    assert bag.sources == (((0, 0),), ((1, 1),), ((2, 2),), ((3, 3),))


def test_a_bag_may_use_aliases_and_share_stems() -> None:
    bag = ensemble(VOCALS, DEMUCS, stems=[["no_vocals", "voice"], ["instrumental"]])
    assert bag.stems == ("vocals", "instrumental")
    assert bag.sources == (((0, 0),), ((0, 1), (1, 5)))


def test_a_stem_that_its_model_lacks_is_named() -> None:
    with pytest.raises(ModelError, match=r"stem must be one of vocals, instrumental; got 'drums'"):
        ensemble(VOCALS, DEMUCS, stems=[["drums"], ["bass"]])


@pytest.mark.parametrize(
    ("first", "second", "stem", "outputs"),
    [
        (VOCALS, DRY, "vocals", ("dry", "vocals_residual", "instrumental")),
        (VOCALS, VOCALS, "vocals", ("vocals", "vocals_instrumental", "instrumental")),
        (VOCALS, DEMUCS, "instrumental", ("vocals", "drums", "bass", "other",
         "instrumental_vocals", "instrumental_residual")),
        (DEMUCS, DRY, "voice", ("dry", "vocals_residual", "drums", "bass", "other", "residual")),
        (DEMUCS, DRY, "instrumental", ("vocals", "dry", "instrumental_residual")),
        (BOTH, DRY, "vocals", ("dry", "vocals_residual", "other")),
    ],
)  # fmt: skip
def test_a_chain_has_the_outputs_of_the_second_model_and_what_the_first_left(
    first: Manifest, second: Manifest, stem: str, outputs: tuple[str, ...]
) -> None:
    found = chain(first, second, stem)
    assert (*found.stems, found.residual) == outputs


def test_a_chain_separates_the_row_of_its_stem() -> None:
    found = chain(DEMUCS, DRY, "vocals")
    assert found.chained_row == 3
    assert found.sources == (((1, 0),), ((1, 1),), ((0, 0),), ((0, 1),), ((0, 2),))


def test_a_chain_on_a_stem_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ModelError, match="stem must be one of vocals, instrumental; got 'drums'"):
        chain(VOCALS, DRY, "drums")


def test_names_stay_different_however_often_models_are_chained() -> None:
    inner = chain(VOCALS, VOCALS)
    manifest = Manifest("inner", stems=inner.stems, residual=inner.residual)
    found = chain(manifest, VOCALS)
    names = (*found.stems, found.residual)
    assert len(set(names)) == len(names) == 4
