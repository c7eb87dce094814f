use super::*;

fn refused(text: &str) -> String {
    Manifest::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn errors_say_where_and_what() {
    assert!(refused("[[before]]\nstep = 'tokenise'\nfrom = 'x'").contains("tokenise"));
    let unknown = refused("\n\n[[input]]\nname = 'a'\ntype = 'text'\ncolour = 1\n");
    assert!(unknown.contains("colour") && unknown.contains("line"), "{unknown}");
    assert!(refused("[[input]]\nname = 'a'\ntype = 'tensor'").contains("datatype"));
    assert!(refused("[[input]]\nname = 'a'\ntype = 'text'\nrows = 0").contains("rows"));
    assert!(refused("[[input]]\nname = 'a'\ntype = 'text'\n[[input]]\nname = 'a'\ntype = 'text'").contains("twice"));
    assert!(refused("[[state]]\nname = 'a'\nnext = 'b'\ndatatype = 'FP32'\nshape = [1000000]").contains("65536 bytes"));
    assert!(refused("[[state]]\nname = 'a'\nnext = 'b'\ndatatype = 'BYTES'\nshape = [1]").contains("fixed size"));
    assert!(refused("[[stage]]\nmodel = 'a'").contains("[[input]]"));
    assert!(
        refused("[[stage]]\nmodel = 'a'\n[[before]]\nstep = 'softmax'\nfrom = 'a'\nto = 'b'").contains("stages only")
    );
    assert_eq!(Manifest::parse(&vec![b' '; MAX_BYTES + 1]), Err(ManifestError::Long(MAX_BYTES + 1)));
    assert_eq!(Manifest::parse(&[0xff]), Err(ManifestError::Text));
}

#[test]
fn an_error_of_the_parser_is_one_line_with_its_number() {
    let error = refused("[task]\nkind = 'embedding'\n\n[[input]\nname = 1");
    assert!(!error.contains('\n') && error.contains("line 4"), "{error}");
}

#[test]
fn the_examples_can_be_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path().join(FILE_NAME);
        if path.exists() {
            let manifest = Manifest::parse(&std::fs::read(&path).unwrap());
            assert!(manifest.is_ok(), "{}: {manifest:?}", path.display());
            count += 1;
        }
    }
    assert!(count >= 9);
}

#[test]
fn a_chain_says_what_goes_where() {
    let chain = Manifest::parse(include_bytes!("../../../../examples/ocr/tenantry.toml")).unwrap().chain().unwrap();
    assert_eq!(chain.inputs, ["image"]);
    let models: Vec<&str> = chain.stages.iter().map(|stage| stage.model.as_str()).collect();
    assert_eq!(models, ["ocr-lines", "ocr-direction", "ocr-text"]);
    assert_eq!(chain.stages[2].outputs, [("scores".to_owned(), "certainty".to_owned())]);
    assert_eq!(chain.outputs[0], ("text".to_owned(), "text".to_owned()));
}

#[test]
fn files_are_named_once_and_those_of_the_model_apart() {
    let manifest = Manifest::parse(include_bytes!("../../../../examples/file-type/tenantry.toml")).unwrap();
    assert_eq!(manifest.files(), ["config.min.json", "content_types_kb.min.json"]);
    let manifest = Manifest::parse(include_bytes!("../../../../examples/ocr-text/tenantry.toml")).unwrap();
    assert_eq!((manifest.files(), manifest.metadata_files()), (vec![], vec!["metadata:character"]));
}
