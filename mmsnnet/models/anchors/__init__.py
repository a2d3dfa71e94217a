"""One plain ViT of timm as an anchor: building, weights, cost, compiling."""
