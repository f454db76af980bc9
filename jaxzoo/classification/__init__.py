"""Classification: one file per family, under torchvision's file names."""
