"""A warning in our own modules fails a test; one in another package does not."""

import warnings

import pytest


@pytest.mark.parametrize(
    "module", ["minibn.ops.conv", "experiments.claims", "reference_models.vgg", "test_warnings"]
)
def test_a_warning_of_ours_is_an_error(module):
    with pytest.raises(DeprecationWarning, match="old"):
        warnings.warn_explicit("old", DeprecationWarning, "file.py", 1, module=module)


@pytest.mark.parametrize("module", ["matplotlib.pyplot", "numpy.lib", "torch.nn"])
def test_a_warning_of_another_package_is_none(module):
    text = f"a warning of matplotlib, in {module}"
    warnings.warn_explicit(text, DeprecationWarning, "file.py", 1, module=module)
