"""What leaves: adapters for PEFT, merged or whole models."""

from ealign.export.write import Exported, export
