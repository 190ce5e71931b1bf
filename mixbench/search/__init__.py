"""Search over class pairs and masks: which compositions a trained model finds hardest."""
