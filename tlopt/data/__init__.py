"""Images: listed, divided into splits, decoded once, cropped and batched."""
