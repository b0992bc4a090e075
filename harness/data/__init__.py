"""What a benchmark needs and nobody may ship: the published model, downloaded; ImageNet's validation set, unpacked."""
