"""The sample of `make mutants` is fixed, has every module, and each of its mutants is another program."""

import ast

from tests.mutants import ROOT, all_mutants, named, sample


def test_the_sample_is_fixed_by_its_seed_and_has_a_mutant_of_every_module_that_has_any() -> None:
    of_modules = all_mutants()
    chosen = sample(0, 80, of_modules)
    assert len(chosen) == len({mutant.name for mutant in chosen}) == 80
    assert {mutant.path for mutant in chosen} == {mutants[0].path for mutants in of_modules if mutants}
    assert sample(0, 80, [mutants[::-1] for mutants in of_modules[::-1]]) == chosen
    assert sample(1, 80, of_modules) != chosen
    for mutant in chosen[::8]:
        source = (ROOT / mutant.path).read_bytes()
        assert ast.unparse(ast.parse(mutant.apply(source))) != ast.unparse(ast.parse(source)), mutant.name


def test_each_mutant_that_is_named_with_a_reason_exists() -> None:
    assert named().keys() <= {mutant.name for mutants in all_mutants() for mutant in mutants}
