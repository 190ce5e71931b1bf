"""Show and Tell (Vinyals et al., arXiv:1411.4555): an image encoder with an LSTM decoder.

The embedded image is the first input of the decoder. As in yunjey/pytorch-tutorial@0500d3d,
tutorials/03-advanced/image_captioning/model.py, a linear layer and a batch norm embed the encoder's
pooled features.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Backbone, Output
from mixbench.vision.captions.tokenizer import END, START, UNKNOWN

DEPTHS = 2  # dimensions of features that are already pooled: (B, D)


class Captioner(Backbone):
    """An image encoder with an LSTM decoder of word indices.

    Parameters
    ----------
    encoder
        Backbone that encodes the images.
    words
        Size of the vocabulary, including the special tokens.
    width
        Size of the embeddings and of the decoder's hidden state.
    length
        Maximum number of words in a caption.
    beam
        Beam width of the search; 1 is greedy decoding.
    dropout
        Dropout probability of the word embeddings and of the decoder's outputs.
    frozen
        Whether the encoder is frozen, including its batch norms.
    """

    classifier: nn.Linear

    head_modules = ("image", "words", "decoder", "classifier")

    def __init__(  # noqa: PLR0913  # what users set
        self,
        encoder: Backbone,
        *,
        words: int,
        width: int,
        length: int,
        beam: int,
        dropout: float,
        frozen: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(not frozen)
        self.feature_dim = encoder.feature_dim
        self.feature_size = encoder.feature_size
        self.blocks = tuple(f"encoder.{name}" for name in encoder.blocks)
        self.image = nn.Sequential(nn.Linear(self.feature_dim, width), nn.BatchNorm1d(width))
        self.words = nn.Embedding(words, width)
        self.decoder = nn.LSTM(width, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, words)
        self.length = length
        self.beam = beam
        self.frozen = frozen

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002  # torch's signature
        """Switch between training and evaluation; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> Output:
        """Return embedded images, (B, width), and the encoder's features.

        Parameters
        ----------
        x : (B, C, H, W), or (B, D)
            Images, or pooled features of images.
        """
        if x.dim() == DEPTHS:
            return Output(self.image(x), x[..., None, None])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.encoder(x).features
        return Output(self.image(features.mean((2, 3))), features)

    def loss(self, out: Tensor, captions: Tensor) -> Tensor:
        """Return the cross-entropy of each caption, averaged over its words and end token, (B,).

        Parameters
        ----------
        out : (B, width)
            Embedded images.
        captions : (B, length + 1)
            Word indices of the captions, with at least one end token each.
        """
        captions = captions.long()
        read = F.pad(captions[:, :-1], (1, 0), value=START)
        states, _ = self.decoder(torch.cat([out[:, None], self._embedded(read)], 1))
        logits = self.classifier(self.dropout(states[:, 1:]))
        losses = F.cross_entropy(logits.flatten(0, 1), captions.flatten(), reduction="none")
        told = ((captions == END).cumsum(1) <= (captions == END).int()).to(out.dtype)
        return (losses.view_as(told) * told).sum(1) / told.sum(1)

    def _embedded(self, words: Tensor) -> Tensor:
        embedded: Tensor = self.dropout(self.words(words))
        return embedded

    @torch.no_grad()
    def tell(self, out: Tensor) -> Tensor:
        """Return the most likely captions found by beam search, (B, length) int32.

        Parameters
        ----------
        out : (B, width)
            Embedded images.
        """
        size, beam = len(out), min(self.beam, self.classifier.out_features - UNKNOWN - 1)
        state = self._step(out, None)[1]
        word = torch.full((size,), START, device=out.device)
        log_p, state = self._step(self._embedded(word), state)
        totals, word = log_p.topk(beam)  # (B, beam), as are those below
        told = word[..., None]
        rows = torch.arange(size, device=out.device)[:, None].expand_as(word)
        state = self._chosen(state, rows)
        for _ in range(self.length - 1):
            if bool((word == END).all()):
                break
            log_p, state = self._step(self._embedded(word.flatten()), state)
            log_p = log_p.view(size, beam, -1)
            ended = (word == END)[..., None]
            after_end = torch.full_like(log_p, -torch.inf)
            after_end[..., END] = 0
            log_p = torch.where(ended, after_end, log_p)
            totals, best = (totals[..., None] + log_p).flatten(1).topk(beam)
            parent, word = best // log_p.shape[-1], best % log_p.shape[-1]
            before = told.gather(1, parent[..., None].expand_as(told))
            told = torch.cat([before, word[..., None]], 2)
            state = self._chosen(state, rows * beam + parent)
        likeliest = told[:, 0]
        return F.pad(likeliest, (0, self.length - likeliest.shape[1]), value=END).int()

    def _step(
        self, embedded: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Decode one embedded word each, (N, width); return next log-probabilities and state."""
        states, state = self.decoder(embedded[:, None], state)
        logits = self.classifier(self.dropout(states[:, 0]))
        logits[:, [START, UNKNOWN]] = -torch.inf  # these are never generated
        return logits.log_softmax(1), state

    @staticmethod
    def _chosen(state: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        hidden, cell = (part[:, rows.flatten()] for part in state)
        return hidden, cell
