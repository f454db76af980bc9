"""Writes docs/models.md from the registry: `python -m tests.models_table`."""

from pathlib import Path

import jaxzoo

HEADER = """# Models

Written by `python -m tests.models_table`. Names, arguments, behaviour and initialisation are those of the reference;
`jaxzoo.model_info(NAME)` says the same in Python. Weights are downloaded by `convert.load(NAME, WEIGHTS)`, the default
one stands first. How exactly each model agrees with its reference is in [parity.md](parity.md).

| model | parameters | input | weights | reference | paper |
|---|---|---|---|---|---|"""


def main() -> None:
    rows = [HEADER]
    for name in jaxzoo.list_models():
        info = jaxzoo.model_info(name)
        weights = ", ".join(info.weights)
        rows.append(
            f"| {name} | {info.parameters / 1e6:.1f} M | {info.input_size} | {weights} | {info.twin} | {info.paper} |"
        )
    Path("docs/models.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
