//! Programs around a model that is a closure: what the steps make reaches it, and what it makes reaches the answer.

use std::cell::RefCell;
use std::io::Cursor;

use image::{ImageFormat, RgbImage};
use tenantry_types::model::Task;

use super::*;
use crate::manifest::Manifest;
use crate::sentence::cosine;
use crate::testing::{fetched, noise, reference};

fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    let dim = |extent: &i64| u64::try_from(*extent).map_or(Dim::Any(()), Dim::Fixed);
    TensorSpec { name: name.to_owned(), datatype, dims: dims.iter().map(dim).collect() }
}

fn open(manifest: &str, files: &[(&str, &[u8])], engine: &Signature) -> Result<Program, String> {
    let manifest = Manifest::parse(manifest.as_bytes()).map_err(|error| error.to_string())?;
    let files: Files<'_> = files.iter().copied().collect();
    Program::open(&manifest, &files, engine).map_err(|error| error.to_string())
}

fn texts(elements: &[&[u8]]) -> Vec<u8> {
    Array::texts(elements).bytes().to_vec()
}

type Outcome = Result<Vec<(u16, Array<'static>)>, RunError<String>>;

/// Runs a program; the closure is the model.
fn run(
    program: &Program,
    inputs: &[(DataType, &[u64], &[u8])],
    wanted: &[u16],
    mut model: impl FnMut(&[Array<'_>], &[u16]) -> Vec<Array<'static>>,
) -> Outcome {
    let mut engine = |feeds: &[Array<'_>], wanted: &[u16]| Ok(model(feeds, wanted));
    let outputs = program.run(inputs, wanted, &mut engine, &|| false)?;
    Ok(outputs.into_iter().map(|(index, array)| (index, array.into_owned())).collect())
}

fn minilm() -> Signature {
    let tokens = |name| spec(name, DataType::Int64, &[-1, -1]);
    Signature {
        inputs: vec![tokens("input_ids"), tokens("attention_mask"), tokens("token_type_ids")],
        outputs: vec![spec("last_hidden_state", DataType::Fp32, &[-1, -1, 4])],
    }
}

const SENTENCES: &str = include_str!("../../../../examples/sentences/tenantry.toml");

#[test]
fn a_sentence_becomes_tokens_and_the_mean_becomes_a_unit_vector() {
    let tokenizer = fetched("minilm/tokenizer.json");
    let program = open(SENTENCES, &[("tokenizer.json", &tokenizer)], &minilm()).unwrap();
    assert_eq!(program.facts().task, Some(Task::Embedding { dimensions: true }));
    assert_eq!(program.facts().files, ["tenantry.toml", "tokenizer.json"]);
    let outward = program.signature();
    assert!(outward.has_batch_axis());
    assert_eq!(
        outward.inputs,
        [TensorSpec { name: "text".to_owned(), datatype: DataType::Bytes, dims: vec![Dim::Named("batch".to_owned())] }]
    );

    let data = texts(&[b"A cat sits on the mat.", b"Hi"]);
    let seen = RefCell::new(Vec::new());
    let model = |feeds: &[Array<'_>], wanted: &[u16]| {
        assert_eq!(wanted, [0]);
        seen.borrow_mut().extend(feeds[0].as_longs().unwrap().to_vec());
        // Each token says where it stands; what is padding shouts.
        let mask = feeds[1].as_longs().unwrap().to_vec();
        let value = |(index, mask): (usize, &i64)| if *mask == 0 { 1000.0 } else { (index % 9) as f32 };
        let hidden = mask.iter().enumerate().flat_map(|each| [value(each), 1.0, 0.0, 0.0]).collect();
        vec![Array::floats([2, feeds[0].shape[1], 4], hidden)]
    };
    let outputs = run(&program, &[(DataType::Bytes, &[2], &data)], &[], model).unwrap();
    let expected: Vec<i64> = reference()["sentences"]["ids"]["A cat sits on the mat."]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_i64().unwrap())
        .collect();
    assert_eq!(seen.borrow()[..9], expected);
    let vectors = outputs[0].1.as_floats().unwrap();
    assert_eq!(outputs[0].1.shape.as_slice(), [2, 4]);
    // The mean of 0 to 8 is 4, that of 0 to 2 is 1.
    assert!((cosine(&vectors[..4], &[4.0 / 17.0_f32.sqrt(), 1.0 / 17.0_f32.sqrt(), 0.0, 0.0]) - 1.0).abs() < 1e-5);
    assert!((cosine(&vectors[4..], &[0.5_f32.sqrt(), 0.5_f32.sqrt(), 0.0, 0.0]) - 1.0).abs() < 1e-5);
    assert_eq!(outputs[1].1.as_longs().unwrap(), [9, 3]);
}

#[test]
fn token_ids_are_taken_as_they_are_and_unknown_ones_refused() {
    let tokenizer = fetched("minilm/tokenizer.json");
    let program = open(SENTENCES, &[("tokenizer.json", &tokenizer)], &minilm()).unwrap();
    let model = |feeds: &[Array<'_>], _: &[u16]| {
        vec![Array::floats([1, feeds[0].shape[1], 4], vec![1.0; feeds[0].shape[1] as usize * 4])]
    };
    let element = |ids: &[u32]| [vec![0xff], ids.iter().flat_map(|id| id.to_le_bytes()).collect()].concat();
    let count = |data: &[u8]| {
        run(&program, &[(DataType::Bytes, &[1], data)], &[1], model).map(|outputs| outputs[0].1.as_longs().unwrap()[0])
    };
    assert_eq!(count(&texts(&[&element(&[1037, 4937])])), Ok(4));
    assert!(matches!(count(&texts(&[&element(&[4_000_000])])), Err(RunError::Input(text)) if text.contains("4000000")));
    assert!(matches!(count(&texts(&[&[0xff, 1, 2]])), Err(RunError::Input(_))));
    // The number of elements is the shape's.
    assert!(matches!(
        run(&program, &[(DataType::Bytes, &[2], &texts(&[b"one"]))], &[], model),
        Err(RunError::Input(_))
    ));
}

#[test]
fn nothing_is_run_that_no_wanted_output_needs() {
    let tokenizer = fetched("minilm/tokenizer.json");
    let program = open(SENTENCES, &[("tokenizer.json", &tokenizer)], &minilm()).unwrap();
    let model =
        |_: &[Array<'_>], _: &[u16]| -> Vec<Array<'static>> { panic!("the model is not needed to count tokens") };
    let outputs = run(&program, &[(DataType::Bytes, &[1], &texts(&[b"Hi"]))], &[1], model).unwrap();
    assert_eq!(outputs[0].1.as_longs().unwrap(), [3]);
}

fn picture() -> RgbImage {
    RgbImage::from_fn(320, 200, |x, y| {
        image::Rgb([(x * 255 / 319) as u8, (y * 255 / 199) as u8, ((x / 20 + y / 20) % 2 * 200) as u8])
    })
}

fn png(picture: &RgbImage) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// The steps of the manifest do what the module `picture` does, which is compared with the authors' own package.
#[test]
fn a_picture_becomes_the_models_input() {
    let manifest = include_str!("../../../../examples/picture-safety/tenantry.toml");
    let engine = Signature {
        inputs: vec![spec("input_0", DataType::Fp32, &[-1, 224, 224, 3])],
        outputs: vec![spec("4195", DataType::Fp32, &[-1, 2])],
    };
    let program = open(manifest, &[("labels.txt", b"safe\nnsfw\n")], &engine).unwrap();
    let expected = crate::picture::prepare(&picture()).unwrap();
    let model = |feeds: &[Array<'_>], _: &[u16]| {
        assert_eq!(feeds[0].shape.as_slice(), [1, 224, 224, 3]);
        let furthest =
            feeds[0].as_floats().unwrap().iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < 1e-4, "{furthest}");
        vec![Array::floats([1, 2], vec![0.25, 0.75])]
    };
    let file = texts(&[&png(&picture())]);
    let outputs = run(&program, &[(DataType::Bytes, &[1], &file)], &[], model).unwrap();
    assert_eq!(outputs[0].1.as_texts().unwrap(), [&b"nsfw"[..], b"safe"]);
    assert_eq!(outputs[1].1.as_floats().unwrap(), [0.75, 0.25]);
    assert_eq!(outputs[2].1.as_floats().unwrap(), [0.25, 0.75]);
    for bad in [&b"not a picture"[..], &png(&picture())[..200], b""] {
        let model = |_: &[Array<'_>], _: &[u16]| -> Vec<Array<'static>> { panic!("there is no picture") };
        let refused = run(&program, &[(DataType::Bytes, &[1], &texts(&[bad]))], &[], model);
        assert!(matches!(refused, Err(RunError::Input(_))), "{refused:?}");
    }
}

fn silero() -> Signature {
    Signature {
        inputs: vec![
            spec("input", DataType::Fp32, &[-1, -1]),
            spec("state", DataType::Fp32, &[2, -1, 128]),
            spec("sr", DataType::Int64, &[]),
        ],
        outputs: vec![spec("output", DataType::Fp32, &[-1, 1]), spec("stateN", DataType::Fp32, &[-1, -1, -1])],
    }
}

/// A model whose state counts its frames, and whose answer is how often it was asked before.
fn counting(feeds: &[Array<'_>], wanted: &[u16]) -> Vec<Array<'static>> {
    assert_eq!(feeds[0].shape.as_slice(), [1, 576]);
    assert_eq!((feeds[2].as_longs().unwrap(), feeds[2].shape.len()), (&[16_000][..], 0));
    let state = feeds[1].as_floats().unwrap();
    let output = Array::floats([1, 1], vec![state[0]]);
    let next = Array::floats([2, 1, 128], state.iter().map(|value| value + 1.0).collect());
    wanted.iter().map(|index| if *index == 0 { output.clone() } else { next.clone() }).collect()
}

#[test]
fn a_model_is_run_step_by_step_and_remembers() {
    let program = open(include_str!("../../../../examples/speech/tenantry.toml"), &[], &silero()).unwrap();
    assert_eq!(
        program.signature().inputs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(),
        ["sound", "state"]
    );
    assert_eq!(program.facts().states.len(), 1);
    assert!(!program.signature().has_batch_axis());
    let wav = crate::sound::testing::wav(16_000, 1, &vec![0.1; 1200]);
    let state = vec![0_u8; 2 * 128 * 4];
    let file = texts(&[&wav]);
    let inputs: [(DataType, &[u64], &[u8]); 2] =
        [(DataType::Bytes, &[1], &file), (DataType::Fp32, &[2, 1, 128], &state)];
    let outputs = run(&program, &inputs, &[1, 2], counting).unwrap();
    assert_eq!(
        (outputs[0].1.shape.as_slice(), outputs[0].1.as_floats().unwrap()),
        (&[1, 3, 1][..], &[0.0, 1.0, 2.0][..])
    );
    assert_eq!(outputs[1].1.as_floats().unwrap()[0], 3.0);
    // The state is carried even where only the answers are wanted.
    let outputs = run(&program, &inputs, &[1], counting).unwrap();
    assert_eq!(outputs[0].1.as_floats().unwrap(), [0.0, 1.0, 2.0]);
}

#[test]
fn a_sequence_goes_on_where_the_last_piece_ended() {
    let program = open(include_str!("../../../../examples/speech-stream/tenantry.toml"), &[], &silero()).unwrap();
    let names = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&program.signature().inputs), ["samples", "state", "context"]);
    assert_eq!(names(&program.signature().outputs), ["probability", "stateN", "next_context"]);
    let samples: Vec<f32> = (0..1024).map(|index| index as f32).collect();
    let frames = RefCell::new(Vec::new());
    let hear = |from: usize, to: usize, state: &Array<'static>, context: &Array<'static>| {
        let piece = Array::floats([1, (to - from) as u64], samples[from..to].to_vec());
        let inputs = [&piece, state, context].map(|array| (array.datatype, array.shape.as_slice(), array.bytes()));
        let model = |feeds: &[Array<'_>], wanted: &[u16]| {
            frames.borrow_mut().push(feeds[0].as_floats().unwrap().to_vec());
            counting(feeds, wanted)
        };
        let mut outputs = run(&program, &inputs, &[], model).unwrap().into_iter().map(|(_, array)| array);
        (outputs.next().unwrap(), outputs.next().unwrap(), outputs.next().unwrap())
    };
    let (zero_state, zero_context) =
        (Array::floats([2, 1, 128], vec![0.0; 256]), Array::floats([1, 64], vec![0.0; 64]));
    let (_, whole_state, _) = hear(0, 1024, &zero_state, &zero_context);
    let at_once = frames.take();
    let (first, state, context) = hear(0, 512, &zero_state, &zero_context);
    let (second, state, _) = hear(512, 1024, &state, &context);
    assert_eq!(frames.take(), at_once);
    assert_eq!(state, whole_state);
    assert_eq!((first.as_floats().unwrap(), second.as_floats().unwrap()), (&[0.0][..], &[1.0][..]));
}

/// Letters from best paths: repeated ones are one, those with a blank between them two.
#[test]
fn text_is_read_from_a_best_path() {
    let manifest = "[[after]]\nstep = 'ctc_decode'\nfrom = 'paths'\nfile = 'letters'\n[[output]]\nname = 'text'\n[[output]]\nname = 'scores'";
    let engine = Signature {
        inputs: vec![spec("x", DataType::Fp32, &[-1, 1])],
        outputs: vec![spec("paths", DataType::Fp32, &[-1, -1, 4])],
    };
    let program = open(manifest, &[("letters", "a\nb\n".as_bytes())], &engine).unwrap();
    // Without an [[input]], the model's own are the version's.
    assert_eq!(program.signature().inputs, engine.inputs);
    let path = |classes: &[usize]| {
        classes
            .iter()
            .flat_map(|class| (0..4).map(move |at| if at == *class { 0.8 } else { 0.05 }))
            .collect::<Vec<f32>>()
    };
    let model = move |_: &[Array<'_>], _: &[u16]| {
        let paths = [path(&[1, 1, 0, 1, 3, 2, 2, 0]), path(&[0; 8])].concat();
        vec![Array::floats([2, 8, 4], paths)]
    };
    let input = [0_u8; 8];
    let outputs = run(&program, &[(DataType::Fp32, &[2, 1], &input)], &[], model).unwrap();
    assert_eq!(outputs[0].1.as_texts().unwrap(), [&b"aa b"[..], b""]);
    let scores = outputs[1].1.as_floats().unwrap();
    assert!((scores[0] - 0.8).abs() < 1e-6 && scores[1] == 0.0, "{scores:?}");
    let wrong = open(manifest, &[("letters", b"a\n")], &engine).unwrap_err();
    assert!(wrong.contains("1 letters for 4 classes"), "{wrong}");
}

#[test]
fn a_file_too_short_for_the_model_is_answered_without_it() {
    let manifest = include_str!("../../../../examples/file-type/tenantry.toml");
    let (configuration, knowledge) = (fetched("magika/config.min.json"), fetched("magika/content_types_kb.min.json"));
    let files: [(&str, &[u8]); 2] = [("config.min.json", &configuration), ("content_types_kb.min.json", &knowledge)];
    let engine = Signature {
        inputs: vec![spec("bytes", DataType::Int32, &[-1, 2048])],
        outputs: vec![spec("target_label", DataType::Fp32, &[-1, 214])],
    };
    let program = open(manifest, &files, &engine).unwrap();
    let long = noise(5000, 1);
    let model = |feeds: &[Array<'_>], _: &[u16]| {
        assert_eq!(feeds[0].shape.as_slice(), [3, 2048]);
        let mut scores = vec![0.0; 3 * 214];
        scores[2 * 214..].fill(0.001);
        scores[2 * 214 + 5] = 0.99;
        vec![Array::floats([3, 214], scores)]
    };
    let data = texts(&[b"", b"hi", &long]);
    let outputs = run(&program, &[(DataType::Bytes, &[3], &data)], &[0, 3], model).unwrap();
    let labels = outputs[0].1.as_texts().unwrap();
    assert_eq!((labels[0], labels[1]), (&b"empty"[..], &b"txt"[..]));
    assert!((outputs[1].1.as_floats().unwrap()[2] - 0.99).abs() < 1e-6);
}

#[test]
fn what_does_not_fit_is_said_when_the_version_is_registered() {
    let tokenizer = fetched("minilm/tokenizer.json");
    let files: [(&str, &[u8]); 1] = [("tokenizer.json", &tokenizer)];
    let without = |gone: &str| SENTENCES.replace(gone, "");
    for (manifest, files, says) in [
        (SENTENCES.to_owned(), &[][..], "`tokenizer.json` is not beside the manifest"),
        (SENTENCES.to_owned(), &[("tokenizer.json", &b"{}"[..])], "tokenizer's file is malformed"),
        (without("types = \"token_type_ids\""), &files, "no value `token_type_ids`"),
        (SENTENCES.replace("from = \"mean\"", "from = \"men\""), &files, "no value `men`"),
        (SENTENCES.replace("to = \"embedding\"", "to = \"mean\""), &files, "`mean` is made twice"),
        (SENTENCES.replace("type = \"text\"", "type = \"image\"\nrows = 1"), &files, ""),
        (SENTENCES.replace("count = \"token_count\"", ""), &files, "no value `token_count`"),
        (
            SENTENCES.replace("name = \"token_count\"", "name = \"tokens\"\nfrom = \"token_count\""),
            &files,
            "the task \"embedding\"",
        ),
    ] {
        match open(&manifest, files, &minilm()) {
            Err(error) => assert!(!says.is_empty() && error.contains(says), "{says}: {error}"),
            Ok(_) => assert!(says.is_empty(), "{says}: accepted"),
        }
    }
    let mut other = minilm();
    other.inputs[0].datatype = DataType::Int32;
    let error = open(SENTENCES, &files, &other).unwrap_err();
    assert!(error.contains("`input_ids` is INT32") && error.contains("INT64"), "{error}");
}

#[test]
fn a_run_can_be_ended_between_steps() {
    let program = open(include_str!("../../../../examples/speech-stream/tenantry.toml"), &[], &silero()).unwrap();
    let arrays = [
        Array::floats([1, 51_200], vec![0.0; 51_200]),
        Array::floats([2, 1, 128], vec![0.0; 256]),
        Array::floats([1, 64], vec![0.0; 64]),
    ];
    let inputs: Vec<_> = arrays.iter().map(|array| (array.datatype, array.shape.as_slice(), array.bytes())).collect();
    let steps = RefCell::new(0);
    let mut engine = |feeds: &[Array<'_>], wanted: &[u16]| -> Result<Vec<Array<'static>>, String> {
        *steps.borrow_mut() += 1;
        Ok(counting(feeds, wanted))
    };
    let outcome = program.run(&inputs, &[], &mut engine, &|| *steps.borrow() >= 10);
    assert_eq!(outcome.unwrap_err(), RunError::Stopped);
    assert_eq!(*steps.borrow(), 10);
}
