"""Search for the class pairs and masks whose compositions a trained model finds hardest."""
