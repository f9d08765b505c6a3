"""The paper's networks; one function builds each variant: `reference_models.vgg.vgg`, ..."""
