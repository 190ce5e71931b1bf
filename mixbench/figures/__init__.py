"""Pictures of finished cells, drawn from what the store keeps of them."""
