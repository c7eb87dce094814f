"""Sentences, pictures and sounds through the API itself, compared with what the models' own libraries make of them."""

import io
import os
import tarfile

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image, ImageDraw, ImageFont
from tritonclient.utils import InferenceServerException

from conftest import LIBRARY, MODELS, ROOT, until

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

EXAMPLES = ROOT / "examples"


def archive(folder, *models):
    """A model with its manifest, as somebody would upload it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in [MODELS / name for name in models] + sorted((EXAMPLES / folder).iterdir()):
            tar.add(path, path.name)
    return file.getvalue()


def push(api, tenant, name, content):
    digest = api.expect("POST", f"/admin/v1/tenants/{tenant}/artefacts?filename={name}.tar", content)["digest"]
    versions = f"/admin/v1/tenants/{tenant}/models/{name}/versions"
    version = api.expect("POST", versions, {"artefact": digest, "filename": f"{name}.tar"})
    while version["state"] == "registering":
        version = api.expect("GET", f"{versions}/{version['number']}?wait_ms=20000")
    return version


class Studio:
    """A tenant with the examples as its models."""

    def __init__(self, server):
        self.server, self.api = server, server.tenant("studio")
        self.headers = {"Authorization": f"Bearer {self.api.key}"}
        self.known = set()

    def has(self, name, *models):
        if name not in self.known:
            version = push(self.api, "studio", name, archive(name, *models))
            assert version["state"] == "ready", version
            self.known.add(name)
        return name

    def infer(self, model, wanted=None, parameters=None, **inputs):
        """`bytes` and lists of them become BYTES, arrays themselves."""
        made = []
        for name, values in inputs.items():
            if isinstance(values, (bytes, str)):
                values = [values]
            if isinstance(values, list):
                values, datatype = np.array(values, dtype=object), "BYTES"
            else:
                datatype = "FP32"
            made.append(triton.InferInput(name, list(values.shape), datatype))
            made[-1].set_data_from_numpy(values)
        outputs = wanted and [triton.InferRequestedOutput(name) for name in wanted]
        with triton.InferenceServerClient(self.server.address, network_timeout=120.0) as client:
            return client.infer(model, made, outputs=outputs, headers=self.headers, **(parameters or {}))


@pytest.fixture(scope="session")
def studio(server):
    """One for all test files: a fixture that is imported elsewhere is another fixture there."""
    if not hasattr(server, "studio"):
        server.studio = Studio(server)
    return server.studio


def session(name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(MODELS / name, options, providers=["CPUExecutionProvider"])


SUBJECTS = ["A cat", "The old captain", "Nobody", "My neighbour's dog", "The invoice from March", "A very large telescope",
            "Our new colleague", "The 3 pm train", "Grüße aus München", "Water, at 20 °C,"]
DEEDS = ["sleeps on the sofa.", "was paid twice by mistake!", "never answers questions about the weather", "looks at far galaxies?",
         "runs", "left early, as always; it had good reasons.", "costs €1,299.00 (taxes included).", "is 漢字 to me",
         "prefers tea with milk and two spoons of sugar in the afternoon, when the shop is quiet", "…"]


@pytest.mark.conformance(client="tritonclient.http", call="infer", covers="sentences, as the reference library embeds them")
def test_embeddings_equal_the_reference_on_a_hundred_sentences(studio):
    model = studio.has("sentences", "minilm/model.onnx", "minilm/tokenizer.json")
    sentences = [f"{subject} {deed}" for subject in SUBJECTS for deed in DEEDS]
    tokenizer = Tokenizer.from_file(str(MODELS / "minilm/tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.no_padding()
    reference = session("minilm/model.onnx")
    expected, counts = [], []
    for sentence in sentences:
        encoded = tokenizer.encode(sentence)
        feed = {"input_ids": [encoded.ids], "attention_mask": [encoded.attention_mask], "token_type_ids": [encoded.type_ids]}
        [hidden] = reference.run(["last_hidden_state"], {name: np.array(row, dtype=np.int64) for name, row in feed.items()})
        mean = hidden[0].mean(axis=0)
        expected.append(mean / np.linalg.norm(mean))
        counts.append(len(encoded.ids))
    # One by one: the model is quantised, so what a sentence is padded with changes its vector a little, here as there.
    made = np.concatenate([studio.infer(model, text=sentence).as_numpy("embedding") for sentence in sentences])
    np.testing.assert_allclose(made, np.array(expected), atol=1e-3)
    result = studio.infer(model, text=sentences)
    assert result.as_numpy("token_count").tolist() == counts
    cosines = (result.as_numpy("embedding") * np.array(expected)).sum(axis=1)
    assert cosines.min() > 0.97, cosines.min()


@pytest.mark.conformance(client="tritonclient.http", call="infer", covers="pictures, as the classifier's own package judges them")
def test_a_classifier_answers_as_its_own_package_does(studio):
    model = studio.has("picture-safety", "nsfw/open_nsfw.onnx")
    x, y = np.meshgrid(np.arange(500), np.arange(375))
    waves = np.stack([x * 255 // 499, y * 255 // 374, 127 + 100 * np.sin(x / 37) * np.cos(y / 23)], axis=-1)
    file = io.BytesIO()
    Image.fromarray(waves.astype(np.uint8)).save(file, "JPEG", quality=90)
    # The package's own preparation, in its own words: 256 x 256, JPEG, the middle, BGR less the means.
    picture = Image.open(io.BytesIO(file.getvalue())).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    again = io.BytesIO()
    picture.save(again, "JPEG")
    pixels = np.array(Image.open(again), dtype=np.float32)[16:240, 16:240, ::-1] - np.array([104, 117, 123], dtype=np.float32)
    [expected] = session("nsfw/open_nsfw.onnx").run(None, {"input_0": pixels[None]})
    result = studio.infer(model, image=file.getvalue())
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=2e-2)
    best = expected[0].argmax()
    assert result.as_numpy("label").tolist()[0][0] == [b"safe", b"nsfw"][best]
    np.testing.assert_allclose(result.as_numpy("score")[0, 0], result.as_numpy("probabilities")[0, best])


def minute():
    """A minute at 16 kHz: stretches of something like vowels, and silence between them."""
    rate, rng = 16_000, np.random.default_rng(7)
    time = np.arange(60 * rate) / rate
    sound = rng.normal(0, 0.002, time.size)
    start = 1.0
    while start < 57:
        length, pause = rng.uniform(0.8, 3.5), rng.uniform(0.3, 2.0)
        inside = (time >= start) & (time < min(start + length, 59))
        t = time[inside] - start
        pitch = 130 - 20 * t / length + 3 * np.sin(2 * np.pi * 5 * t)
        phase, voice = 2 * np.pi * np.cumsum(pitch) / rate, np.zeros(t.size)
        first, second = 500 + 250 * np.sin(2 * np.pi * 2.1 * t), 1500 + 500 * np.cos(2 * np.pi * 1.7 * t)
        for harmonic in range(1, 30):
            frequency = harmonic * pitch
            level = 1 / (1 + ((frequency - first) / 90) ** 2) + 0.5 / (1 + ((frequency - second) / 120) ** 2) + 0.01
            voice += level * np.sin(harmonic * phase) / harmonic**0.3
        sound[inside] += 0.25 * voice / np.abs(voice).max() * (0.3 + 0.7 * np.sin(np.pi * 4 * t) ** 2)
        start += length + pause
    return (sound * 32767).clip(-32768, 32767).astype("<i2")


def wav(samples):
    data = samples.tobytes()
    head = b"fmt " + (16).to_bytes(4, "little") + b"\1\0\1\0" + (16_000).to_bytes(4, "little")
    head += (32_000).to_bytes(4, "little") + b"\2\0\x10\0"
    body = b"WAVE" + head + b"data" + len(data).to_bytes(4, "little") + data
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def reference_probabilities(samples):
    """The package's own loop: 512 new samples behind the last 64, and a state."""
    model = session("silero/silero_vad.onnx")
    samples = np.concatenate([samples, np.zeros(-samples.size % 512, dtype=np.float32)])
    context, state, probabilities = np.zeros(64, np.float32), np.zeros((2, 1, 128), np.float32), []
    for frame in samples.reshape(-1, 512):
        feed = {"input": np.concatenate([context, frame])[None], "state": state, "sr": np.array(16_000, dtype=np.int64)}
        output, state = model.run(["output", "stateN"], feed)
        probabilities.append(output[0, 0])
        context = frame[-64:]
    return np.array(probabilities)


@pytest.mark.conformance(client="tritonclient.http", call="infer", covers="a minute of sound, as the reference hears it, whole and as a sequence")
def test_speech_is_where_the_reference_hears_it_over_a_minute(studio):
    samples = minute()
    expected = reference_probabilities(samples.astype(np.float32) / 32768)
    assert (expected > 0.9).mean() > 0.2 and (expected < 0.1).mean() > 0.1, "the sound is neither speech nor silence"
    model = studio.has("speech", "silero/silero_vad.onnx")
    result = studio.infer(model, sound=wav(samples))
    made = result.as_numpy("probability").reshape(-1)
    np.testing.assert_allclose(made, expected, atol=1e-3)
    segments = result.as_numpy("speech")
    assert len(segments) > 5 and (segments[1:, 0] >= segments[:-1, 1]).all()
    # As a sequence, in pieces, the same.
    stream, whole = studio.has("speech-stream", "silero/silero_vad.onnx"), samples[: 512 * 300].astype(np.float32) / 32768
    heard = []
    for index, piece in enumerate(whole.reshape(10, 1, -1)):
        call = {"sequence_id": 42, "sequence_start": index == 0, "sequence_end": index == 9}
        heard.append(studio.infer(stream, samples=piece, parameters=call).as_numpy("probability").reshape(-1))
    np.testing.assert_allclose(np.concatenate(heard), expected[:300], atol=1e-3)
    with pytest.raises(InferenceServerException, match="no sequence `42`"):
        studio.infer(stream, samples=whole[None, :512], parameters={"sequence_id": 42})


def test_a_sequence_survives_its_worker_and_is_nobody_elses(studio, server):
    stream = studio.has("speech-stream", "silero/silero_vad.onnx")
    studio.api.expect("PATCH", f"/admin/v1/tenants/studio/models/{stream}", {"shared": "everyone"})
    samples = minute()[16_000 : 16_000 + 1024].astype(np.float32)[None] / 32768
    alone = studio.infer(stream, samples=samples).as_numpy("probability").reshape(-1)
    call = {"sequence_id": "call-7", "sequence_start": True}
    studio.infer(stream, samples=samples[:, :512], parameters=call)
    other = Studio.__new__(Studio)
    other.server, other.api = server, server.tenant("eavesdropper")
    other.headers = {"Authorization": f"Bearer {other.api.key}"}
    with pytest.raises(InferenceServerException, match="no sequence `call-7`"):
        other.infer("studio/speech-stream", samples=samples[:, 512:], parameters={"sequence_id": "call-7"})
    killed = {worker["pid"] for worker in server.workers_of("studio")}
    for pid in killed:
        os.kill(pid, 9)
    until(lambda: not killed & {worker["pid"] for worker in server.workers_of("studio")})
    after = studio.infer(stream, samples=samples[:, 512:], parameters={"sequence_id": "call-7", "sequence_end": True})
    np.testing.assert_allclose(after.as_numpy("probability").reshape(-1), alone[1:], atol=1e-5)


def page(lines):
    picture = Image.new("RGB", (900, 90 + 90 * len(lines)), "white")
    draw = ImageDraw.Draw(picture)
    for index, line in enumerate(lines):
        draw.text((40, 50 + 90 * index), line, fill="black", font=ImageFont.load_default(size=44))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.conformance(client="tritonclient.http", call="infer", covers="a chain of models: a page of text")
def test_a_chain_reads_a_page(studio):
    studio.has("ocr-lines", "ocr/PP-OCRv6_det_small.onnx")
    studio.has("ocr-direction", "ocr/ch_ppocr_mobile_v2.0_cls_mobile.onnx")
    studio.has("ocr-text", "ocr/PP-OCRv6_rec_small.onnx")
    ocr = studio.has("ocr")
    lines = ["Tenantry reads this page", "Invoice 2026-11-30: 1,299.00", "one deadline and one bill"]
    result = studio.infer(ocr, image=page(lines))
    read = [text.decode() for text in result.as_numpy("text")]
    assert [text.replace(" ", "") for text in read] == [line.replace(" ", "") for line in lines], read
    assert result.as_numpy("certainty").min() > 0.8
    assert result.as_numpy("boxes").shape == (3, 4, 2)
    tops = result.as_numpy("boxes")[:, 0, 1]
    assert (np.diff(tops) > 50).all(), tops
    # Nothing to read is nothing read, not an error.
    blank = studio.infer(ocr, image=page([]))
    assert blank.as_numpy("text").size == 0 and blank.as_numpy("boxes").shape == (0, 4, 2)
    # Its metadata are the chain's own.
    metadata = studio.api.expect("GET", f"/v2/models/{ocr}")
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [1]}]
    assert [output["name"] for output in metadata["outputs"]] == ["text", "certainty", "boxes"]


def test_bad_media_is_a_400_that_costs_nobody_else_anything(studio):
    model = studio.has("picture-safety", "nsfw/open_nsfw.onnx")
    sound = studio.has("speech", "silero/silero_vad.onnx")
    good = page([])
    workers = {worker["pid"] for worker in studio.server.workers_of("studio")}
    bomb = bytearray(good)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    for name, file in [("image", b"GIF89a not really"), ("image", good[:300]), ("image", bytes(bomb)), ("image", b"")]:
        with pytest.raises(InferenceServerException, match="picture") as refused:
            studio.infer(model, **{name: file})
        assert refused.value.status() == "400"
    with pytest.raises(InferenceServerException, match="sound"):
        studio.infer(sound, sound=b"RIFF....WAVEfmt ")
    assert studio.infer(model, image=good).as_numpy("label") is not None
    assert workers <= {worker["pid"] for worker in studio.server.workers_of("studio")}


@pytest.mark.parametrize("manifest, says", [
    ("[[before]]\nstep = 'tokenise'", "tokenise"),
    ("[[input]]\nname = 'text'\ntype = 'text'\n[[before]]\nstep = 'tokenize'\nfrom = 'text'\nfile = 'absent.json'", "absent.json"),
    ("[[after]]\nstep = 'softmax'\nfrom = 'nothing'\nto = 'x'", "no value `nothing`"),
    ("[[input]]\nname = 'a'\ntype = 'text'\n[[stage]]\nmodel = 'not-there'\n[[output]]\nname = 'b'", "stage"),
])
def test_a_manifest_that_does_not_fit_is_refused_with_its_reason(studio, manifest, says):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in [("model.onnx", (MODELS / "minilm/model.onnx").read_bytes()), ("tenantry.toml", manifest.encode())]:
            if name == "model.onnx" and "stage" in manifest:
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    version = push(studio.api, "studio", "misfit", file.getvalue())
    assert version["state"] == "refused" and says in version["reason"], version
    assert str(LIBRARY.parent) not in version["reason"]
