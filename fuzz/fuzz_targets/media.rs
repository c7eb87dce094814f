//! Pictures and sounds as clients send them: bounded memory and time, whatever their headers say, and an answer that fits.
//!
//! The libraries that read media may panic over what they did not expect. A worker takes that for the input's failure, so
//! it is none here; what is asserted here is asserted outside of that.

#![no_main]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tenantry_pipeline::{Array, Files, Manifest, Program};
use tenantry_types::{DataType, Dim, Signature, TensorSpec};

const PICTURE: &str = "
[[input]]
name = 'image'
type = 'image'
[[before]]
step = 'decode_image'
from = 'image'
to = 'picture'
max_pixels = 1000000
[[before]]
step = 'resize'
from = 'picture'
to = 'small'
mode = 'stretch'
width = 16
height = 16
[[before]]
step = 'pixels'
from = 'small'
to = 'x'
layout = 'nchw'
";

const SOUND: &str = "
[[input]]
name = 'sound'
type = 'audio'
rows = 1
[[before]]
step = 'decode_audio'
from = 'sound'
to = 'decoded'
rate_hz = 16000
max_seconds = 20
[[before]]
step = 'frame'
from = 'decoded'
to = 'x'
size = 512
context = 64
";

/// The longest sound at 16 kHz, as frames.
const MAX_FRAMES: u64 = 20 * 16_000 / 512 + 2;

static PROGRAMS: LazyLock<(Program, Program)> = LazyLock::new(|| {
    // Instead of libFuzzer's, which would end the process: a caught panic is no finding.
    std::panic::set_hook(Box::new(|_| {}));
    (open(PICTURE, 4), open(SOUND, 3))
});

fn open(manifest: &str, rank: usize) -> Program {
    let tensor = |name: &str, rank| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        dims: vec![Dim::Any(()); rank],
    };
    let engine = Signature { inputs: vec![tensor("x", rank)], outputs: vec![tensor("y", 2)] };
    let manifest = Manifest::parse(manifest.as_bytes()).expect("the manifest is good");
    Program::open(&manifest, &Files::new(), &engine).expect("the manifest fits")
}

fuzz_target!(|input: &[u8]| {
    let (picture, sound) = &*PROGRAMS;
    let file = Array::texts(&[input]);
    let inputs: [(DataType, &[u64], &[u8]); 1] = [(DataType::Bytes, &[1], file.bytes())];
    for (program, fits) in [
        (picture, (|shape: &[u64]| shape == [1, 3, 16, 16]) as fn(&[u64]) -> bool),
        (sound, |shape: &[u64]| matches!(shape, [1, frames, 576] if *frames <= MAX_FRAMES)),
    ] {
        let mut seen = None;
        let mut engine = |feeds: &[Array<'_>], _: &[u16]| -> Result<Vec<Array<'static>>, ()> {
            let finite = feeds[0].as_floats().is_some_and(|values| values.iter().all(|value| value.is_finite()));
            seen = Some(fits(&feeds[0].shape) && finite);
            Ok(vec![Array::floats([1, 1], vec![0.0])])
        };
        let _ = catch_unwind(AssertUnwindSafe(|| program.run(&inputs, &[], &mut engine, &|| false).map(drop)));
        if seen == Some(false) {
            // Past the hook that keeps quiet.
            eprintln!("what reached the model does not fit it");
            std::process::abort();
        }
    }
});
