"""Fine-tuning of one site: the optimizer steps that LocFT-BF, FT-L and FT-M share."""
