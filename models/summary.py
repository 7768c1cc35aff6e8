"""Print the layers and parameters of a preset: `python -m models.ldeq --summary`."""

from utils.command_line import script_parser

PRESETS = ("mini", "paper")


def main() -> None:
    """Print a summary of a preset."""
    parser = script_parser("Print the layers and the parameters of a network.", prog="python -m models.ldeq")
    parser.add_argument("--summary", action="store_true", required=True, help="print layers and parameters")
    parser.add_argument("--preset", choices=PRESETS, default="mini")
    args = parser.parse_args()
    # Imported here, because torch is slow to load and `--help` does not need it.
    from torch import Tensor, nn
    from torchinfo import summary

    from models.config import preset
    from models.ldeq import LDEQ

    class OneEvaluation(nn.Module):
        """Backbone and one evaluation of the cell, with tensors only, because torchinfo needs that."""

        def __init__(self, model: LDEQ):
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> Tensor:
            """(B, 3, S, S) -> (B, Z, S/4, S/4)."""
            embedded = self.model.embed(images)
            return self.model.cell(self.model.initial_state(embedded), embedded)

    model = LDEQ(preset(args.preset))
    size = model.config.image_size
    columns = ("output_size", "num_params", "mult_adds")
    print(summary(OneEvaluation(model), (1, 3, size, size), depth=4, col_names=columns, verbose=0))
