"""The embedded default: a ResNet50 and images for it, made on the spot, so that a first run needs no download."""
