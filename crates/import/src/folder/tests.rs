use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A folder with files of these names and contents.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let place = TempDir::new().unwrap();
    for (name, content) in files {
        let path = place.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    place
}

fn only(place: &TempDir, name: &str) -> Model {
    let mut models = models(&place.path().join(name)).unwrap();
    assert_eq!(models.len(), 1);
    models.remove(0)
}

/// The versions of a model as `number: file file`, and those left out.
fn versions(model: &Model) -> Result<(Vec<String>, Vec<u64>), String> {
    let plan = model.plan().map_err(|error| error.to_string())?;
    let (versions, left_out) = model.versions(&plan).map_err(|error| error.to_string())?;
    let text = |version: &Version| {
        let names: Vec<&str> = version.files.iter().map(|file| file.name.as_str()).collect();
        format!("{}: {}", version.number.unwrap_or(0), names.join(" "))
    };
    Ok((versions.iter().map(text).collect(), left_out))
}

#[test]
fn a_repository_and_a_models_own_folder_are_told_apart() {
    let place = folder(&[
        ("repository/b/config.pbtxt", ""),
        ("repository/b/1/model.onnx", "b1"),
        ("repository/a/7/model.onnx", "a7"),
        ("repository/c/MLmodel", "flavors: {onnx: {}}"),
        ("repository/c/model.onnx", "c"),
        ("repository/notes/readme.txt", ""),
        ("repository/.git/1/model.onnx", ""),
        ("repository/file", ""),
        ("nothing/readme.txt", ""),
    ]);
    let found = models(&place.path().join("repository")).unwrap();
    let names: Vec<(&str, Kind)> = found.iter().map(|model| (model.name.as_str(), model.kind)).collect();
    assert_eq!(names, [("a", Kind::Triton), ("b", Kind::Triton), ("c", Kind::Mlflow)]);
    assert_eq!(versions(&found[2]), Ok((vec!["0: model.onnx".to_owned()], vec![])));
    assert_eq!(only(&place, "repository/a").name, "a");
    assert!(models(&place.path().join("nothing")).unwrap_err().to_string().contains("config.pbtxt"));
    assert!(models(&place.path().join("absent")).is_err());
}

#[test]
fn versions_are_taken_by_the_policy_with_the_files_beside_the_model() {
    let place = folder(&[
        ("m/config.pbtxt", "default_model_filename: \"net.onnx\" version_policy { latest { num_versions: 2 } }"),
        ("m/1/net.onnx", "1"),
        ("m/2/net.onnx", "2"),
        ("m/2/weights/part.bin", "w"),
        ("m/2/other.onnx", "another model"),
        ("m/10/net.onnx/net.onnx", "10"),
        ("m/10/net.onnx/net.onnx.data", "d"),
        ("m/010/net.onnx", "no version"),
        ("m/configs/a.pbtxt", ""),
    ]);
    let taken = versions(&only(&place, "m")).unwrap();
    assert_eq!(taken.0, ["2: model.onnx weights/part.bin", "10: model.onnx net.onnx.data"]);
    assert_eq!(taken.1, [1]);
    let (found, _) =
        only(&place, "m").versions(&Plan { filename: Some("net.onnx".to_owned()), ..Plan::default() }).unwrap();
    assert_eq!(found[0].files[0].digest().unwrap(), Digest::of(b"10"));
}

#[test]
fn an_mlflow_model_is_its_file_and_its_data() {
    let place = folder(&[
        ("m/MLmodel", "flavors: {onnx: {data: model.onnx}}"),
        ("m/model.onnx", "m"),
        ("m/model.onnx.data", "d"),
        ("m/conda.yaml", ""),
        ("m/requirements.txt", ""),
        ("m/metadata/MLmodel", ""),
        ("m/input_example.json", ""),
    ]);
    assert_eq!(versions(&only(&place, "m")), Ok((vec!["0: model.onnx model.onnx.data".to_owned()], vec![])));
}

#[test]
fn what_is_missing_is_said() {
    let place = folder(&[
        ("empty/config.pbtxt", ""),
        ("other/config.pbtxt", "version_policy { specific { versions: 9 } }"),
        ("other/1/model.onnx", ""),
        ("absent/1/model.plan", ""),
        ("broken/config.pbtxt", "input {\n  name 'x'\n}"),
    ]);
    for (name, part) in [
        ("empty", "no versions"),
        ("other", "none of its versions"),
        ("absent", "no `model.onnx`"),
        ("broken", "config.pbtxt: line 2"),
    ] {
        let error = versions(&only(&place, name)).unwrap_err();
        assert!(error.contains(part), "{name}: {error}");
    }
}

#[test]
fn nothing_outside_of_the_folder_is_read() {
    let place = folder(&[
        ("secret/model.onnx", "secret"),
        ("secret/config.pbtxt", "max_batch_size: 8"),
        ("r/file/1/placeholder", ""),
        ("r/folder/placeholder", ""),
        ("r/config/1/model.onnx", ""),
        ("r/inside/1/placeholder", ""),
        ("r/blobs/weights", "w"),
    ]);
    let at = |name: &str| place.path().join(name);
    symlink(at("secret/model.onnx"), at("r/file/1/model.onnx")).unwrap();
    symlink(at("secret"), at("r/folder/1")).unwrap();
    symlink(at("secret/config.pbtxt"), at("r/config/config.pbtxt")).unwrap();
    symlink(at("secret"), at("r/linked")).unwrap();
    symlink("../../blobs/weights", at("r/inside/1/model.onnx")).unwrap();
    let found = models(&at("r")).unwrap();
    let of = |name: &str| found.iter().find(|model| model.name == name).map(versions);
    assert!(of("file").unwrap().unwrap_err().contains("outside"));
    assert!(of("folder").unwrap().unwrap_err().contains("outside"));
    assert!(of("config").unwrap().unwrap_err().contains("outside"));
    assert!(of("linked").is_none());
    assert_eq!(of("inside"), Some(Ok((vec!["1: model.onnx placeholder".to_owned()], vec![]))));
}

#[test]
fn folders_that_go_on_for_ever_end() {
    let deep = format!("m/1/{}file", "d/".repeat(MAX_DEPTH + 1));
    let place = folder(&[("m/1/model.onnx", ""), (&deep, ""), ("loop/1/model.onnx", "")]);
    assert!(versions(&only(&place, "m")).unwrap_err().contains("too deep"));
    symlink(".", place.path().join("loop/1/again")).unwrap();
    assert!(versions(&only(&place, "loop")).unwrap_err().contains("too deep"));
    let many: Vec<String> = (0..=MAX_ARCHIVE_FILES).map(|number| format!("many/1/w{number}")).collect();
    let files: Vec<(&str, &str)> =
        many.iter().map(|name| (name.as_str(), "")).chain([("many/1/model.onnx", "")]).collect();
    let place = folder(&files);
    assert!(versions(&only(&place, "many")).unwrap_err().contains("more than"));
}

#[test]
fn settings_beyond_their_size_or_not_text_are_refused() {
    let large = "#".repeat(text_format::MAX_TEXT_BYTES + 1);
    let place = folder(&[("large/config.pbtxt", &large), ("bytes/1/model.onnx", "")]);
    assert!(only(&place, "large").plan().unwrap_err().to_string().contains("longer"));
    fs::write(place.path().join("bytes/config.pbtxt"), [0xff, 0xfe]).unwrap();
    assert!(only(&place, "bytes").plan().unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn labels_that_fit_come_along_with_a_manifest() {
    let config = |classes: u32, file: &str| {
        format!(
            "max_batch_size: 4 output {{ name: 'p' data_type: TYPE_FP32 dims: {classes} label_filename: '{file}' }} \
             output {{ name: 'q' data_type: TYPE_FP32 dims: [2, 2] label_filename: 'labels.txt' }}"
        )
    };
    let place = folder(&[
        ("fits/config.pbtxt", &config(2, "labels.txt")),
        ("fits/labels.txt", "cat\ndog\n"),
        ("fits/1/model.onnx", "m"),
        ("fits/1/tenantry.toml", "something else"),
        ("short/config.pbtxt", &config(3, "labels.txt")),
        ("short/labels.txt", "cat\ndog\n"),
        ("short/1/model.onnx", "m"),
        ("absent/config.pbtxt", &config(2, "labels.txt")),
        ("absent/1/model.onnx", "m"),
        ("outside/config.pbtxt", &config(2, "../fits/labels.txt")),
        ("outside/1/model.onnx", "m"),
    ]);
    let fits = only(&place, "fits");
    assert_eq!(versions(&fits), Ok((vec!["1: model.onnx tenantry.toml labels.txt".to_owned()], vec![])));
    let plan = fits.plan().unwrap();
    let (found, _) = fits.versions(&plan).unwrap();
    let mut text = String::new();
    found[0].files[1].open().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("\"p_label\"") && text.len() as u64 == found[0].files[1].bytes, "{text}");
    let outcome = |name: &str, setting: &str| {
        let plan = only(&place, name).plan().unwrap();
        let found = plan.findings.iter().find(|finding| finding.setting == setting).unwrap();
        (found.outcome == crate::Outcome::Applied, found.note.clone())
    };
    assert!(outcome("fits", "output p.label_filename").0 && !outcome("fits", "output q.label_filename").0);
    for (name, part) in [("short", "2 labels, and there are 3"), ("absent", "no such file"), ("outside", "FP32")] {
        let (applied, note) = outcome(name, "output p.label_filename");
        assert!(!applied && note.contains(part), "{name}: {note}");
        assert_eq!(versions(&only(&place, name)), Ok((vec!["1: model.onnx".to_owned()], vec![])), "{name}");
    }
}

#[test]
fn a_chain_has_no_files() {
    let place = folder(&[
        ("c/config.pbtxt", "platform: 'ensemble' ensemble_scheduling { step { model_name: 'a' } }"),
        ("c/1/readme", ""),
    ]);
    assert_eq!(versions(&only(&place, "c")), Ok((vec!["1: ".to_owned()], vec![])));
}
