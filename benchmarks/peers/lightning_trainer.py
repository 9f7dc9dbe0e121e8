"""Lightning's Trainer with its defaults (the progress bar and files aside), or tuned."""

from __future__ import annotations

import logging
import warnings

import lightning
from network import BATCH, BF16, Faces, measure, sgd, study_cnn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(lightning.LightningModule):
    """The network, its loss and its optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.network = study_cnn()

    def training_step(self, batch, index):
        """Return the loss of a batch."""
        faces, targets = batch
        return cross_entropy(self.network(faces), targets)

    def configure_optimizers(self):
        """Return the optimiser."""
        return sgd(self.network)


module = Module()


def epoch(images, labels):
    """Show every face once."""
    trainer = lightning.Trainer(
        max_epochs=1,
        precision="bf16-mixed" if BF16 else None,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.fit(module, DataLoader(Faces(images, labels), BATCH, shuffle=True))


measure(epoch)
