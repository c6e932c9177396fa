"""Shows four answers for a text far longer than the model's window: a refusal, an explanation, one vector, and one vector per window.

    pip install longembed
    LONGEMBED_SERVER=127.0.0.1:50051 python quickstart.py
"""

from __future__ import annotations

import numpy as np

from longembed import Client, InvalidArgument
from license_texts import read_licenses

QUESTION = "What notice should a program print when it starts in interactive mode?"


def main() -> None:
    text = read_licenses()["GPL-3"]
    with Client() as client:
        model = client.model()
        print(f"{model.name}: {model.dimensions} dimensions, trained for {model.trained_window} tokens, prompts {dict(model.prompts)}")

        try:
            client.embed([text], input_type="DOCUMENT")
        except InvalidArgument as error:
            print(f"refused: {error}")

        explained = client.explain([text], input_type="DOCUMENT", extension={"windows": {}})
        result = explained.results[0]
        print(f"with windows: {result.tokens} tokens in {len(result.sequences)} sequences, {result.cost.gflop:.0f} GFLOP")

        query = client.embed([QUESTION], input_type="QUERY")[0].vector
        one = client.embed([text], input_type="DOCUMENT", extension={"windows": {}})
        print(f"one vector: shape {one[0].vectors.shape}, cosine with the question {one[0].vector @ query:.4f}, recipe {one.recipe[:8]}")

        windows = client.embed([text], input_type="DOCUMENT", extension={"windows": {"tokens": 64}}, output="WINDOW_VECTORS")[0]
        cosines = windows.vectors @ query
        best = int(np.argmax(cosines))
        start, end = windows.ranges[best]
        print(f"one vector per window: shape {windows.vectors.shape}, best cosine {cosines[best]:.4f}, at tokens {start} to {end} of {windows.tokens}")


if __name__ == "__main__":
    main()
