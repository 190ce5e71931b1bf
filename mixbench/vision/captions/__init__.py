"""Image captioning: a tokenizer, caption scores and a captioning model."""
