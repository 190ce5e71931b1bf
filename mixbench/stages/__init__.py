"""What a stage does in its process: training, evaluation, and the traces that they leave."""
