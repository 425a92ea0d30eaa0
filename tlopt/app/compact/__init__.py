"""What exported networks cost in use, and smaller ones made of them."""
